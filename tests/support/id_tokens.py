"""What GitHub gives a job that may write ``id-token``: an address that says who the job is."""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loopback import LoopbackHub


class IdTokens:
    """Issues tokens for jobs and tells a hub what they say. Used as a context manager; `env` is what a job gets."""

    def __init__(self, hub: LoopbackHub, claims: Mapping[str, str]) -> None:
        self.hub, self.claims = hub, claims
        self.secret = secrets.token_hex(20)

    def __enter__(self) -> IdTokens:  # noqa: PYI034 - typing.Self is not in Python 3.10
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                if self.headers.get("Authorization") != f"Bearer {issuer.secret}":
                    self.send_error(401)
                    return
                body = json.dumps({"value": issuer.issue(asked["audience"][0])}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        address = f"http://127.0.0.1:{self._server.server_address[1]}/token?api-version=2"
        self.env = {"ACTIONS_ID_TOKEN_REQUEST_URL": address, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.secret}
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def issue(self, audience: str) -> str:
        """Return a new token for whoever is its audience."""
        token = secrets.token_urlsafe(30)
        with self.hub.state.lock:
            self.hub.state.issued[token] = {**self.claims, "aud": audience}
        return token

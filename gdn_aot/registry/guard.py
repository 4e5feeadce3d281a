"""What may go to a Hub and come from it: huggingface_hub keeps all that a server sends, and where the server says.

Hooks of its HTTP client look at every request and answer. A body ends where the limit is, however long the server says
that it is; it is not compressed, so that it cannot grow; and a header that becomes a file name is one.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from gdn_aot.errors import GdnAotError
    from gdn_aot.registry.failures import Secrets

_ETAG = re.compile(r"[A-Za-z0-9+=_~:.-]{1,200}")
_FROM = re.compile(r"bytes=(\d{1,18})-.*")
_PARTIAL = 206
_MOST_DIGITS = 18
"""Of a size that is worth reading."""
_LOG = logging.getLogger(__name__)
_warned: set[str] = set()
"""Hosts that got a token in clear."""


class Guard:
    """Hooks for the requests that are made for one purpose.

    Args:
        http: The package that huggingface_hub speaks HTTP with.
        name: The registry.
        secrets: Are told of the tokens that are sent.
        limit: Most bytes of one answer.
        too_much: What to raise for more.
        commit: What the answers must be of, if they say it; None if anything will do.
    """

    def __init__(
        self, http: ModuleType, name: str, secrets: Secrets, limit: int, too_much: GdnAotError, commit: str | None
    ) -> None:
        self._http, self._name, self._secrets = http, name, secrets
        self._limit, self._too_much, self._commit = limit, too_much, commit
        self.etags: set[str] = set()
        """Names that huggingface_hub may have given to files."""

    def hooks(self, own: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Return the hooks of a client, which has some of its ``own``."""
        return {
            "request": [*own.get("request", ()), self._asked],
            "response": [self._answered, *own.get("response", ())],
        }

    def _asked(self, request: Any) -> None:
        request.headers["Accept-Encoding"] = "identity"
        if token := request.headers.get("authorization", "").partition(" ")[2]:
            self._secrets.add(token)
            host = request.url.host
            if request.url.scheme == "http" and not is_loopback(host) and host not in _warned:
                _warned.add(host)
                _LOG.warning("the token is sent to http://%s in clear: anyone on the way can read it", shown(host))

    def _answered(self, response: Any) -> None:
        headers = response.headers
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise self._wrong("its answer is compressed, which nobody asked for")
        for name in ("etag", "x-linked-etag"):
            etag = headers.get(name, '"-"').lstrip("W/").strip('"')  # as huggingface_hub does
            if response.is_success and (not _ETAG.fullmatch(etag) or etag in (".", "..")):
                raise self._wrong(f"{shown(etag, 80)} cannot be an ETag")
            self.etags.add(etag)
        commit = headers.get("x-repo-commit")
        if self._commit and commit and commit != self._commit:
            raise self._wrong(f"it answered with a file of commit {shown(commit, 80)}, not {self._commit}")
        left = self._limit
        if response.status_code == _PARTIAL and (start := _FROM.fullmatch(response.request.headers.get("range", ""))):
            left -= int(start[1])
        for name in ("content-length", "x-linked-size"):
            size = headers.get(name, "")
            if size.isascii() and size.isdigit() and (len(size) > _MOST_DIGITS or int(size) > left):
                raise self._too_much
        response.stream = self._bounded(response.stream, left)

    def _wrong(self, what: str) -> NetworkError:
        return NetworkError(
            f"{self._name}: it did not answer as the Hub does: {what}", hint="check HF_ENDPOINT, and proxies on the way"
        )

    def _bounded(self, stream: Any, limit: int) -> Any:
        too_much = self._too_much

        class Bounded(self._http.SyncByteStream):  # type: ignore[name-defined,misc]  # of a package known at run time
            def __iter__(self) -> Iterator[bytes]:
                left = limit
                for piece in stream:
                    left -= len(piece)
                    if left < 0:
                        raise too_much
                    yield piece

            def close(self) -> None:
                stream.close()

        return Bounded()


def is_loopback(host: str) -> bool:
    """Say whether what is sent to a host stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Trusted publishers: a job of a CI service gets a token of the Hub for one repository, without a secret.

The job has a token of its service that says who it is. Here it is known by having been issued, where the Hub checks a
signature.
"""

from __future__ import annotations

import secrets

from loopback.exchange import ApiError, Request, Response
from loopback.state import State, User

LIFETIME = 3600
"""Seconds that the Hub says a token is good for."""


def exchange(state: State, request: Request, url: str) -> Response:
    """POST /oauth/token: RFC 8693, the job's token against one that may write to one repository."""
    asked = request.json
    if asked.get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange":
        raise ApiError(400, "unsupported_grant_type")
    claims = state.issued.get(asked.get("subject_token", ""))
    if claims is None or claims["aud"] != url:
        raise ApiError(401, "invalid_token")
    wanted = state.publishers.get(asked["resource"])
    if wanted is None or any(claims.get(name) != value for name, value in wanted.items()):
        raise ApiError(403, "no trusted publisher of this repository is the one that the token names")
    token = f"hf_jwt_{secrets.token_hex(20)}"
    namespace = asked["resource"].split("/")[0]
    name = f"ci:{claims['repository']}"
    state.granted[token] = User(name=name, namespaces=frozenset({namespace}), write=True, only=asked["resource"])
    return Response.of({"access_token": token, "token_type": "bearer", "expires_in": LIFETIME})

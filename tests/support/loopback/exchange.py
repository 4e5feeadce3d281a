"""What goes over the wire: a request, its answer, the error that becomes one, and the faults that strike them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Host = Literal["hub", "storage"]
"""Which of the two servers: the Hub, or the storage that large files are sent to and served from."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, its path split and decoded, its body whole."""

    host: Host
    method: str
    parts: tuple[str, ...]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def parse(cls, host: Host, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Split a request's target; the parts of the path are decoded one by one, so ``a%2Fb`` is one part."""
        url = urlsplit(target)
        parts = tuple(unquote(part) for part in url.path.lstrip("/").split("/"))
        lower = {name.lower(): value for name, value in headers.items()}
        return cls(host=host, method=method, parts=parts, query=parse_qs(url.query), headers=lower, body=body)

    @property
    def path(self) -> str:
        """The decoded path, as fault rules and the log see it."""
        return "/" + "/".join(self.parts)

    @property
    def token(self) -> str | None:
        """The bearer token sent with it."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    @property
    def json(self) -> Any:
        """The body, which is one JSON document."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise ApiError(400, "the body is not JSON") from None

    def span(self, size: int) -> tuple[int, int] | None:
        """Return the first byte asked for and the one after the last, None for the whole file; 416 for others."""
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        if match is None:
            return None
        first, last = match.groups()
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last) + 1, size) if first and last else size
        if start >= end:
            raise ApiError(416, "range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
        return start, end


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer. ``body`` is what GET sends; for HEAD only its length counts."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def of(cls, document: Any, *, status: int = 200) -> Response:
        """Answer with a JSON document."""
        body = json.dumps(document).encode()
        return cls(status=status, headers={"Content-Type": "application/json; charset=utf-8"}, body=body)


@dataclass(eq=False)
class ApiError(Exception):
    """A request that is refused."""

    status: int
    message: str
    """Sent as ``X-Error-Message`` and in the body, as the Hub does."""
    code: str | None = None
    """``X-Error-Code``, which the client tells missing repositories, revisions and files apart by."""
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    """More members of the JSON body."""

    def response(self) -> Response:
        """Return it as an answer."""
        plain = Response.of({"error": self.message, **self.extra}, status=self.status)
        headers = {**plain.headers, **self.headers, "X-Error-Message": self.message}
        if self.code:
            headers["X-Error-Code"] = self.code
        return Response(status=self.status, headers=headers, body=plain.body)


@dataclass(slots=True, kw_only=True)
class Record:
    """What the log keeps of one request. ``user`` is whose token came with it, "?" an unknown one, None none."""

    method: str
    path: str
    range: str | None
    user: str | None
    status: int | None = None  # None while nothing was answered
    sent: int = 0  # bytes of body


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an error instead of doing anything."""

    status: int
    message: str = "the loopback hub was told to refuse this"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """Answer, but close the connection after so many bytes of body; -1: before the first byte of the answer.

    ``reset`` closes it with a TCP reset instead of an orderly end. What the request asks for has been done.
    """

    after: int = -1
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """Send a body of the right length with wrong bytes: every bit of the middle byte is turned over."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve this content instead, with headers that fit it."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Stall:
    """Be silent for so many seconds: before the answer, or after so many bytes of its body."""

    seconds: float
    after: int = -1


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the body in pieces of so many bytes with a pause, in seconds, before each."""

    piece: int
    pause: float


@dataclass(frozen=True, slots=True)
class Flood:
    """Send a body of so many bytes, or one that never ends, in chunks and without saying how long it is."""

    size: int | None = None


@dataclass(frozen=True, slots=True)
class Forge:
    """Answer with these headers in place of the right ones; None leaves one out."""

    headers: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Call something before the request is worked on: what somebody else does at that moment."""

    action: Callable[[], object]


Fault = Refuse | Cut | Damage | Serve | Stall | Drip | Flood | Forge | Meanwhile


@dataclass(slots=True, kw_only=True)
class Rule:
    """A fault and the requests it strikes: so many, or all where ``times`` is None."""

    method: str
    """Regular expression that the whole method matches."""
    path: str
    """Regular expression found in the decoded path, which starts with ``/storage/`` on the storage server."""
    fault: Fault
    times: int | None = 1
    struck: int = 0

    def fits(self, method: str, path: str) -> bool:
        """Return whether it is about a request, used up or not."""
        return bool(re.fullmatch(self.method, method) and re.search(self.path, path))

"""A stand-in for the Hugging Face Hub over real HTTP on 127.0.0.1, for the unmodified ``huggingface_hub`` client.

It keeps everything in memory and answers as the Hub does where the client looks: status codes, ``X-Error-Code``,
ETags, redirects of large files to a storage on another origin that takes signed links alone. It is not the Hub: no Xet
(run the client with ``HF_HUB_DISABLE_XET=1``), no uploads in several parts, no pull requests, no quotas, one page
of every list.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loopback import api
from loopback.exchange import (
    ApiError,
    Cut,
    Damage,
    Drip,
    Fault,
    Flood,
    Forge,
    Host,
    Meanwhile,
    Record,
    Refuse,
    Request,
    Response,
    Rule,
    Serve,
    Stall,
)
from loopback.state import File, Repository, State, User, serve_instead

ORG = "acme"
WRITER, READER, OUTSIDER = "hf_writerWRITERwriterWRITER", "hf_readerREADERreaderREADER", "hf_outsiderOUTSIDERoutside"
"""Tokens of: a member of the organization who may write, one who may only read, and somebody else."""
UNKNOWN = "hf_unknownUNKNOWNunknown"
"""A token of nobody."""

USERS = {
    WRITER: User(name="writer", namespaces=frozenset({"writer", ORG}), write=True),
    READER: User(name="reader", namespaces=frozenset({"reader", ORG}), write=False),
    OUTSIDER: User(name="outsider", namespaces=frozenset({"outsider"}), write=True),
}
_PIECE = 1 << 16


class _Gone(Exception):  # noqa: N818 - not an error: the connection is to be closed
    """The connection is to be closed without another byte."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    host: Host
    hub: LoopbackHub

    def handle_error(self, _request: object, _address: object) -> None:
        """Say nothing about clients that went away; the log has what was asked."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (_Gone, ConnectionError):
            self.close_connection = True

    def _serve(self) -> None:
        body = self._read_body()
        request = Request.parse(self.server.host, self.command, self.path, self.headers, body)
        self.server.hub.serve(request, self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - http.server wants these names

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self._read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) != size:
            raise _Gone
        return data

    def write_head(self, response: Response, fault: Fault | None) -> None:
        """Send the status line and the headers."""
        self.send_response(response.status)
        length: dict[str, str | None] = {"Content-Length": str(len(response.body))}
        if isinstance(fault, Flood) and self.command != "HEAD":
            length = {"Transfer-Encoding": "chunked"}
        forged = fault.headers if isinstance(fault, Forge) else {}
        for name, value in {**response.headers, **length, **forged}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def hang_up(self, *, reset: bool) -> None:
        """Close the connection, at once and with a TCP reset if asked to."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            # The files made from the socket keep it open until they are closed too.
            self.wfile.close()
            self.rfile.close()
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        raise _Gone


class LoopbackHub:
    """The stand-in. Used as a context manager; `url` is what ``HF_ENDPOINT`` is set to."""

    def __init__(self) -> None:
        self.state = State(users=USERS)
        self.faults: list[Rule] = []
        self.log: list[Record] = []
        self._striking, self._closing = threading.Lock(), threading.Event()
        self._servers: list[_Server] = []

    def __enter__(self) -> LoopbackHub:  # noqa: PYI034 - typing.Self is not in Python 3.10
        hosts: tuple[Host, ...] = ("hub", "storage")
        for host in hosts:
            server = _Server(("127.0.0.1", 0), _Handler)
            server.host, server.hub = host, self
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self._servers.append(server)
        self.url, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # What tests do to it

    def fault(self, method: str, path: str, fault: Fault, *, times: int | None = 1) -> Rule:
        """Let a fault strike requests; `Rule.struck` of what is returned says how often it did."""
        rule = Rule(method=method, path=path, fault=fault, times=times)
        self.faults.append(rule)
        return rule

    def quiet(self) -> None:
        """Take all faults away and forget the log."""
        self.faults.clear()
        self.log.clear()

    def requests(self, method: str = ".*", path: str = "") -> list[Record]:
        """Return what the log has of some requests, in the order they came."""
        probe = Rule(method=method, path=path, fault=Damage())
        return [record for record in list(self.log) if probe.fits(record.method, record.path)]

    @contextlib.contextmanager
    def repository(self, name: str) -> Iterator[Repository]:
        """Look into a repository, or change it, while nobody else does."""
        with self.state.lock:
            yield self.state.repositories[name]

    def commit(self, name: str, branch: str, files: Mapping[str, bytes]) -> str:
        """Commit files as somebody else would; return the commit. Tarballs are large files."""
        with self.repository(name) as repository:
            tree = dict(repository.commits[repository.branches[branch]].files)
            for path, content in files.items():
                tree[path] = File(content=content, large=path.endswith(".tar.zst"))
                if tree[path].large:
                    self.state.large[tree[path].sha256] = content
            return repository.add(branch, tree).id

    def adopt(self, name: str, repository: Repository, large: Mapping[str, bytes]) -> None:
        """Have a copy of a repository, perhaps of another hub, with the large files that it needs."""
        with self.state.lock:
            self.state.large |= large
            own = {what: dict(getattr(repository, what)) for what in ("branches", "tags", "commits")}
            self.state.repositories[name] = replace(repository, id=name, **own)

    # What the servers do

    def serve(self, request: Request, wire: _Handler) -> None:
        """Answer one request, with what is wrong with it."""
        token = request.token or ""
        user = self.state.users.get(token) or self.state.granted.get(token)
        name = user.name if user else "?" if request.token else None
        fault = self._strike(request)
        record = Record(method=request.method, path=request.path, range=request.headers.get("range"), user=name)
        self.log.append(record)
        if isinstance(fault, Stall) and fault.after < 0:
            self._pause(fault.seconds)
        if isinstance(fault, Meanwhile):
            fault.action()
        response = self._answer(request, fault)
        record.status = response.status
        self._send(request, response, fault, record, wire)

    def _strike(self, request: Request) -> Fault | None:
        """Return the fault of the first rule that fits a request and is not used up, and count it."""
        with self._striking:
            for rule in self.faults:
                if rule.fits(request.method, request.path) and rule.struck != rule.times:
                    rule.struck += 1
                    return rule.fault
        return None

    def _answer(self, request: Request, fault: Fault | None) -> Response:
        if isinstance(fault, Refuse):
            refused = ApiError(fault.status, fault.message, fault.code, headers=fault.headers)
            return _named(refused.response())
        with self.state.lock:
            try:
                response = api.answer(self.state, request, self.url, self.storage)
            except ApiError as error:
                return _named(error.response())
            if isinstance(fault, Serve):
                response = serve_instead(self.state, request, response, fault.content, self.storage)
        return _named(response)

    def _send(self, request: Request, response: Response, fault: Fault | None, record: Record, wire: _Handler) -> None:
        if isinstance(fault, Cut) and fault.after < 0:
            record.status = None
            wire.hang_up(reset=fault.reset)
        wire.write_head(response, fault)
        if request.method == "HEAD":
            return
        if isinstance(fault, Flood):
            while fault.size is None or record.sent < fault.size:
                wire.wfile.write(b"%x\r\n%s\r\n" % (_PIECE, bytes(_PIECE)))
                record.sent += _PIECE
            wire.wfile.write(b"0\r\n\r\n")
            return
        body = response.body
        if isinstance(fault, Damage) and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        for piece in self._pieces(body, fault):
            wire.wfile.write(piece)
            record.sent += len(piece)
        if isinstance(fault, Cut):
            wire.hang_up(reset=fault.reset)

    def _pieces(self, body: bytes, fault: Fault | None) -> Iterable[bytes]:
        match fault:
            case Cut(after=after):
                yield body[:after]
            case Stall(seconds=seconds, after=after) if after >= 0:
                yield body[:after]
                self._pause(seconds)
                yield body[after:]
            case Drip(piece=piece, pause=pause):
                for at in range(0, len(body), piece):
                    self._pause(pause)
                    yield body[at : at + piece]
            case _:
                for at in range(0, len(body), _PIECE):
                    yield body[at : at + _PIECE]

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise _Gone


def _named(response: Response) -> Response:
    """Add the name that the Hub gives each request, which the client quotes in its messages."""
    headers = {**response.headers, "X-Request-Id": f"Root=1-{time.monotonic_ns():024x}"}
    return Response(status=response.status, headers=headers, body=response.body)

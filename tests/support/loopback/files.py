"""Files: what the Hub answers when one is asked for, and the storage that large ones are sent to and come from."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from loopback.exchange import ApiError, Request, Response

if TYPE_CHECKING:
    from loopback.state import State

_SECRET = b"links that the loopback hub has signed"


def sign(method: str, digest: str) -> str:
    """Return the signature of a link to the storage."""
    return hmac.new(_SECRET, f"{method} {digest}".encode(), hashlib.sha256).hexdigest()


def resolve(state: State, request: Request, name: str, revision: str, path: str, storage: str) -> Response:
    """HEAD and GET resolve: a small file itself, or where a large one is."""
    repository = state.repository(name, state.user(request.token))
    commit = repository.resolve(revision)
    common = {"X-Repo-Commit": commit.id}
    file = commit.files.get(path)
    if file is None:
        raise ApiError(404, "Entry not found", "EntryNotFound", headers=common)
    if file.large:
        link = f"{storage}/storage/{file.sha256}?signature={sign('GET', file.sha256)}"
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content)), "Location": link}
        return Response(status=302, headers={**common, **linked}, body=f"Found. Redirecting to {link}".encode())
    disposition = f'inline; filename="{path.rsplit("/", maxsplit=1)[-1]}";'
    headers = {**common, "ETag": f'"{file.blob}"', "Content-Disposition": disposition}
    return ranged(request, file.content, headers)


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """Answer with a file, or with the bytes of it that are asked for."""
    span = request.span(len(content))
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if span is None:
        return Response(headers=headers, body=content)
    start, end = span
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    return Response(status=206, headers=headers, body=content[start:end])


def serve_instead(state: State, request: Request, answer: Response, content: bytes, storage: str) -> Response:
    """Return the answer that would be right if a file had this content; what is not about a file's bytes stays."""
    digest = hashlib.sha256(content).hexdigest()
    if answer.status == 302:
        state.large[digest] = content
        link = f"{storage}/storage/{digest}?signature={sign('GET', digest)}"
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Location": link}
        return Response(status=302, headers={**answer.headers, **linked}, body=answer.body)
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    changing = {"Content-Range", "ETag", "Accept-Ranges", "Content-Type"}
    headers = {name: value for name, value in answer.headers.items() if name not in changing}
    return ranged(request, content, {**headers, "ETag": f'"{blob}"'})


def batch(state: State, request: Request, name: str, storage: str) -> Response:
    """POST LFS batch: where to send each large file, unless it is there already."""
    state.writable(name, state.user(request.token))
    asked = request.json
    if asked.get("operation") != "upload" or "basic" not in asked.get("transfers", ["basic"]):
        raise ApiError(422, "only uploads by the basic transfer are served")
    objects = []
    for item in asked["objects"]:
        digest, size = item["oid"], item["size"]
        there = state.large.get(digest)
        if there is not None and len(there) != size:
            error = {"code": 422, "message": f"the size of {digest} is {len(there)}, not {size}"}
            objects.append({"oid": digest, "size": size, "error": error})
            continue
        href = f"{storage}/storage/{digest}?size={size}&signature={sign(f'PUT {size}', digest)}"
        actions = {} if there is not None else {"actions": {"upload": {"href": href}}}
        objects.append({"oid": digest, "size": size, **actions})
    return Response.of({"transfer": "basic", "objects": objects})


def put(state: State, request: Request, digest: str) -> Response:
    """PUT to the storage: the bytes must be those that the link was made for."""
    size = request.query.get("size", ["-1"])[0]
    _check(request, f"PUT {size}", digest)
    if len(request.body) != int(size):
        raise ApiError(400, f"{len(request.body)} bytes came, expected {size}")
    if hashlib.sha256(request.body).hexdigest() != digest:
        raise ApiError(400, "the SHA-256 of what came is another one")
    state.large[digest] = request.body
    return Response(headers={"ETag": f'"{digest[:32]}"'})


def get(state: State, request: Request, digest: str) -> Response:
    """HEAD and GET of the storage."""
    _check(request, "GET", digest)
    content = state.large.get(digest)
    if content is None:
        raise ApiError(404, "no such key")
    return ranged(request, content, {"ETag": f'"{digest[:32]}"'})


def _check(request: Request, method: str, digest: str) -> None:
    if "authorization" in request.headers:
        raise ApiError(400, "only one kind of authentication is allowed, and the link is signed")
    if request.query.get("signature") != [sign(method, digest)]:
        raise ApiError(403, "the signature does not match")

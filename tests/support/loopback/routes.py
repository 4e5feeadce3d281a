"""Which endpoint answers a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopback import api, files, trust
from loopback.exchange import ApiError, Request, Response

if TYPE_CHECKING:
    from loopback.state import State


def answer(state: State, request: Request, hub: str, storage: str) -> Response:  # noqa: PLR0911 - a table
    """Answer a request.

    Args:
        state: What is kept; the caller holds its lock.
        request: What is asked.
        hub: URL of the Hub.
        storage: URL of the storage.

    Raises:
        ApiError: It is refused; 404 too when there is no such endpoint.
    """
    if request.host == "storage":
        return _storage(state, request)
    match request.method, *request.parts:
        case "GET", "api", "agent-harnesses":
            return api.harnesses(state, request, hub)
        case "POST", "api", "repos", "create":
            return api.create_repository(state, request, hub)
        case "POST", "oauth", "token":
            return trust.exchange(state, request, hub)
        case "POST", "api", "validate-yaml":
            return api.validate_card(state, request, hub)
        case _, "api", "models", space, name, *rest:
            return _model(state, request, f"{space}/{name}", rest, hub)
        case "POST", space, name, "info", "lfs", "objects", "batch" if name.endswith(".git"):
            return files.batch(state, request, f"{space}/{name.removesuffix('.git')}", storage)
        case "GET" | "HEAD", space, name, "resolve", revision, *path if path:
            return files.resolve(state, request, f"{space}/{name}", revision, "/".join(path), storage)
    raise ApiError(404, f"no such endpoint: {request.method} {request.path}")


def _storage(state: State, request: Request) -> Response:
    match request.method, *request.parts:
        case "PUT", "storage", digest:
            return files.put(state, request, digest)
        case "GET" | "HEAD", "storage", digest:
            return files.get(state, request, digest)
    raise ApiError(404, f"no such key: {request.method} {request.path}")


def _model(state: State, request: Request, name: str, rest: list[str], hub: str) -> Response:  # noqa: PLR0911
    match request.method, *rest:
        case "GET", "revision", revision:
            return api.information(state, request, name, revision)
        case "GET", "refs":
            return api.references(state, request, name)
        case "GET", "tree", revision, *_:
            return api.tree(state, request, name, revision)
        case "POST", "preupload", revision:
            return api.preupload(state, request, name, revision)
        case "POST", "commit", revision:
            return api.commit(state, request, name, revision, hub)
        case "POST", "branch", branch:
            return api.create_branch(state, request, name, branch)
        case "POST", "tag", revision:
            return api.create_tag(state, request, name, revision)
    raise ApiError(404, f"no such endpoint: {request.method} {request.path}")

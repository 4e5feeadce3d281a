"""The Hub's API: which endpoint answers a request; users, repositories, commits, branches and tags.

Trusted publishers: a job of a CI service gets a token of the Hub for one repository, without a secret. The job has a
token of its service that says who it is. Here it is known by having been issued, where the Hub checks a signature.
"""

import base64
import binascii
import json
import secrets
from typing import Any

from loopback import state as kept
from loopback.exchange import ApiError, Request, Response
from loopback.state import File, State, User, is_large

_DATE = "2026-01-01T00:00:00.000Z"
LIFETIME = 3600
"""Seconds that the Hub says a token is good for."""


def create_repository(state: State, request: Request, url: str) -> Response:
    """POST /api/repos/create."""
    user = state.user(request.token)
    asked = request.json
    if asked.get("type", "model") != "model":
        raise ApiError(400, "only model repositories are kept here")
    namespace = asked.get("organization") or (user.name if user else "")
    state.check_namespace(namespace, user)
    name = f"{namespace}/{asked['name']}"
    where = {"url": f"{url}/{name}"}
    if name in state.repositories:
        raise ApiError(409, "You already created this model repo", extra=where)
    state.create(name, private=asked.get("visibility") == "private" or asked.get("private") is True)
    return Response.of({**where, "name": name})


def validate_card(state: State, request: Request) -> Response:
    """POST /api/validate-yaml: what is between the two lines of dashes at the top of a card.

    There is no YAML parser here: each line must look like ``key: value``, ``key:``, ``- item`` or a deeper one.
    """
    state.user(request.token)
    lines = request.json["content"].splitlines()
    if not lines or lines[0] != "---":
        return Response.of({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    if "---" not in lines[1:]:
        return _bad_card("the metadata does not end")
    metadata = lines[1 : lines.index("---", 1)]
    for line in metadata:
        key, colon, _ = line.partition(":")
        if line.startswith("\t") or not (line.startswith((" ", "- ")) or (colon and key and " " not in key)):
            return _bad_card(f"not a line of metadata: {line!r}")
    keys = [line.partition(":")[0] for line in metadata if not line.startswith((" ", "- "))]
    if len(keys) != len(set(keys)):
        return _bad_card("a key is there twice")
    return Response.of({"errors": [], "warnings": []})


def _bad_card(message: str) -> Response:
    """Return the errors in the form that the client expects of this endpoint."""
    return Response.of({"errors": [{"message": message}], "warnings": []}, status=400)


def preupload(state: State, request: Request, name: str, revision: str) -> Response:
    """POST preupload: how each file is to be sent, and what is there now."""
    repository = state.writable(name, state.user(request.token))
    commit = repository.resolve(revision)
    files = []
    for item in request.json["files"]:
        there = commit.files.get(item["path"])
        large = is_large(repository, commit, item["path"], item["size"], base64.b64decode(item["sample"]))
        mode = "lfs" if large else "regular"
        oid = {"oid": there.oid} if there else {}
        files.append({"path": item["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
    return Response.of({"files": files, "commitOid": commit.id})


def commit(state: State, request: Request, name: str, revision: str, url: str) -> Response:
    """POST commit: newline-delimited JSON, a header and then one operation a line."""
    repository = state.writable(name, state.user(request.token))
    try:
        lines = [json.loads(line) for line in request.body.splitlines() if line]
    except ValueError:
        raise ApiError(400, "the body is not newline-delimited JSON") from None
    if not lines or lines[0]["key"] != "header":
        raise ApiError(400, "the first line must be the header")
    header = lines[0]["value"]
    if not header.get("summary"):
        raise ApiError(400, "a summary is needed")

    def change(files: dict[str, File]) -> None:
        for line in lines[1:]:
            _apply(state, files, line["key"], line["value"])

    done = repository.commit(revision, header.get("parentCommit"), change)
    where = f"{url}/{name}/commit/{done.id}"
    return Response.of({"success": True, "commitOid": done.id, "commitUrl": where, "hookOutput": ""})


def _apply(state: State, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if path.startswith(("/", "./", "../")) or "//" in path or "/../" in path or ".git" in path.split("/"):
        raise ApiError(400, f"invalid path {path!r}")
    match key:
        case "file":
            try:
                content = base64.b64decode(value["content"], validate=True)
            except binascii.Error:
                raise ApiError(400, f"the content of {path} is not base64") from None
            files[path] = File(content=content, large=False)
        case "lfsFile":
            content = state.large.get(value["oid"])
            if content is None or len(content) != value.get("size", len(content)):
                raise ApiError(400, f"LFS pointer pointed to a file that does not exist: {path}")
            files[path] = File(content=content, large=True)
        case _:
            raise ApiError(400, f"unknown operation {key}")


def create_branch(state: State, request: Request, name: str, branch: str) -> Response:
    """POST branch: at ``startingPoint``, by default the head of main."""
    repository = state.writable(name, state.user(request.token))
    if branch in repository.branches:
        raise ApiError(409, f"Reference already exists: refs/heads/{branch}")
    start = request.json.get("startingPoint") or "main"
    repository.branches[branch] = repository.resolve(start).id
    return Response.of({"ref": f"refs/heads/{branch}"}, status=201)


def create_tag(state: State, request: Request, name: str, revision: str) -> Response:
    """POST tag: a name for a commit, which never names another one."""
    repository = state.writable(name, state.user(request.token))
    tag = request.json["tag"]
    target = repository.resolve(revision)
    if tag in repository.tags:
        raise ApiError(409, f"Tag already exists: refs/tags/{tag}")
    repository.tags[tag] = target.id
    return Response.of({"ref": f"refs/tags/{tag}"}, status=201)


def references(state: State, request: Request, name: str) -> Response:
    """GET refs."""
    repository = state.repository(name, state.user(request.token))

    def listed(kind: str, kept: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": key, "ref": f"refs/{kind}/{key}", "targetCommit": kept[key]} for key in kept]

    branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
    return Response.of({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


def information(state: State, request: Request, name: str, revision: str) -> Response:
    """GET the repository at a revision."""
    repository = state.repository(name, state.user(request.token))
    at = repository.resolve(revision)
    siblings = [{"rfilename": path} for path in sorted(at.files)]
    author = {"author": repository.namespace, "private": repository.private, "tags": [], "downloads": 0, "likes": 0}
    dates = {"createdAt": _DATE, "lastModified": _DATE}
    return Response.of({"_id": "0", "id": name, "modelId": name, "sha": at.id, **author, **dates, "siblings": siblings})


def tree(state: State, request: Request, name: str, revision: str) -> Response:
    """GET tree: all files; the client asks for no part of it."""
    at = state.repository(name, state.user(request.token)).resolve(revision)
    return Response.of([_entry(path, file) for path, file in sorted(at.files.items())])


def _entry(path: str, file: File) -> dict[str, Any]:
    size = len(file.content)
    lfs = {"lfs": {"oid": file.sha256, "size": size, "pointerSize": len(file.pointer)}} if file.large else {}
    return {"type": "file", "path": path, "oid": file.blob, "size": size, **lfs}


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


def answer(state: State, request: Request, hub: str, storage: str) -> Response:  # noqa: PLR0911 - a table
    """Answer a request to one of two servers, whose URLs are given; the caller holds the lock of the state."""
    if request.host == "storage":
        return _storage(state, request)
    match request.method, *request.parts:
        case "GET", "api", "agent-harnesses":  # the client asks once a day, to say in its requests what runs it
            return Response.of({"standardEnvVars": [], "harnesses": {}})
        case "POST", "api", "repos", "create":
            return create_repository(state, request, hub)
        case "POST", "oauth", "token":
            return exchange(state, request, hub)
        case "POST", "api", "validate-yaml":
            return validate_card(state, request)
        case _, "api", "models", space, name, *rest:
            return _model(state, request, f"{space}/{name}", rest, hub)
        case "POST", space, name, "info", "lfs", "objects", "batch" if name.endswith(".git"):
            return kept.batch(state, request, f"{space}/{name.removesuffix('.git')}", storage)
        case "GET" | "HEAD", space, name, "resolve", revision, *path if path:
            return kept.resolve(state, request, f"{space}/{name}", revision, "/".join(path), storage)
    raise ApiError(404, f"no such endpoint: {request.method} {request.path}")


def _storage(state: State, request: Request) -> Response:
    match request.method, *request.parts:
        case "PUT", "storage", digest:
            return kept.put(state, request, digest)
        case "GET" | "HEAD", "storage", digest:
            return kept.get(state, request, digest)
    raise ApiError(404, f"no such key: {request.method} {request.path}")


def _model(state: State, request: Request, name: str, rest: list[str], hub: str) -> Response:  # noqa: PLR0911
    match request.method, *rest:
        case "GET", "revision", revision:
            return information(state, request, name, revision)
        case "GET", "refs":
            return references(state, request, name)
        case "GET", "tree", revision, *_:
            return tree(state, request, name, revision)
        case "POST", "preupload", revision:
            return preupload(state, request, name, revision)
        case "POST", "commit", revision:
            return commit(state, request, name, revision, hub)
        case "POST", "branch", branch:
            return create_branch(state, request, name, branch)
        case "POST", "tag", revision:
            return create_tag(state, request, name, revision)
    raise ApiError(404, f"no such endpoint: {request.method} {request.path}")

"""The Hub's API: users, repositories, commits, branches and tags."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from registry.loopback.exchange import ApiError, Request, Response
from registry.loopback.state import Commit, File, Repository, State, is_large

if TYPE_CHECKING:
    from collections.abc import Iterable

_DATE = "2026-01-01T00:00:00.000Z"


def whoami(state: State, request: Request, _url: str) -> Response:
    """GET /api/whoami-v2."""
    user = state.user(request.token)
    if user is None:
        raise ApiError(401, "Invalid username or password.")
    role = "write" if user.write else "read"
    orgs = [{"type": "org", "name": name} for name in sorted(user.namespaces - {user.name})]
    return Response.of({"type": "user", "name": user.name, "orgs": orgs, "auth": {"accessToken": {"role": role}}})


def harnesses(_state: State, _request: Request, _url: str) -> Response:
    """GET /api/agent-harnesses: what the client asks for once a day, to say in its requests what runs it."""
    return Response.of({"standardEnvVars": [], "harnesses": {}})


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


def delete_repository(state: State, request: Request, _url: str) -> Response:
    """DELETE /api/repos/delete."""
    user = state.user(request.token)
    name = f"{request.json.get('organization') or (user.name if user else '')}/{request.json['name']}"
    state.writable(name, user)
    del state.repositories[name]
    return Response.of({})


def validate_card(state: State, request: Request, _url: str) -> Response:
    """POST /api/validate-yaml: what is between the two lines of dashes at the top of a card.

    There is no YAML parser here: each line must look like ``key: value``, ``key:``, ``- item`` or a deeper one.
    """
    state.user(request.token)
    lines = request.json["content"].splitlines()
    if not lines or lines[0] != "---":
        return Response.of({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    if "---" not in lines[1:]:
        raise _bad_card("the metadata does not end")
    metadata = lines[1 : lines.index("---", 1)]
    for line in metadata:
        key, colon, _ = line.partition(":")
        if line.startswith("\t") or not (line.startswith((" ", "- ")) or (colon and key and " " not in key)):
            raise _bad_card(f"not a line of metadata: {line!r}")
    keys = [line.partition(":")[0] for line in metadata if not line.startswith((" ", "- "))]
    if len(keys) != len(set(keys)):
        raise _bad_card("a key is there twice")
    return Response.of({"errors": [], "warnings": []})


class _BadCardError(ApiError):
    def response(self) -> Response:
        """Return the errors in the form that the client expects of this endpoint."""
        return Response.of({"errors": [{"message": self.message}], "warnings": []}, status=400)


def _bad_card(message: str) -> ApiError:
    return _BadCardError(400, message)


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

    done = repository.commit(revision, header.get("parentCommit"), header["summary"], change)
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
        case "deletedFile" if path in files:
            del files[path]
        case "deletedFile":
            raise ApiError(404, "A file with this name doesn't exist", "EntryNotFound")
        case "deletedFolder":
            for inside in [there for there in files if there.startswith(path.rstrip("/") + "/")]:
                del files[inside]
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


def delete_reference(state: State, request: Request, name: str, kind: str, reference: str) -> Response:
    """DELETE branch or tag."""
    repository = state.writable(name, state.user(request.token))
    kept = repository.branches if kind == "branch" else repository.tags
    if reference not in kept:
        raise ApiError(404, f"Invalid rev id: {reference}", "RevisionNotFound")
    del kept[reference]
    return Response.of({})


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
    blobs = request.query.get("blobs", ["false"])[0].lower() == "true"
    siblings = [{"rfilename": path, **(_blob(file) if blobs else {})} for path, file in sorted(at.files.items())]
    author = {"author": repository.namespace, "private": repository.private, "tags": [], "downloads": 0, "likes": 0}
    dates = {"createdAt": _DATE, "lastModified": _DATE}
    return Response.of({"_id": "0", "id": name, "modelId": name, "sha": at.id, **author, **dates, "siblings": siblings})


def _blob(file: File) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}}
    return {"blobId": file.blob, "size": len(file.content), **(lfs if file.large else {})}


def history(state: State, request: Request, name: str, revision: str) -> Response:
    """GET commits, the newest first."""
    repository = state.repository(name, state.user(request.token))
    commits: list[Commit] = []
    at: Commit | None = repository.resolve(revision)
    while at is not None:
        commits.append(at)
        at = repository.commits[at.parent] if at.parent else None
    rest = {"message": "", "date": _DATE, "authors": [{"user": repository.namespace}]}
    return Response.of([{"id": each.id, "title": each.title, **rest} for each in commits])


def tree(state: State, request: Request, name: str, revision: str, below: str) -> Response:
    """GET tree: files and folders, all or those right below a folder."""
    repository = state.repository(name, state.user(request.token))
    at = repository.resolve(revision)
    start = f"{below}/" if below else ""
    inside = {path: file for path, file in at.files.items() if path.startswith(start)}
    if below and not inside:
        raise ApiError(404, f"{below} does not exist on {revision}", "EntryNotFound")
    recursive = request.query.get("recursive", ["false"])[0].lower() == "true"
    folders = {path[: cut + 1] for path in inside for cut in _cuts(path, len(start))}
    shown = inside if recursive else {path: file for path, file in inside.items() if "/" not in path[len(start) :]}
    if not recursive:
        folders = {folder for folder in folders if "/" not in folder[len(start) :]}
    entries = [_entry(path, file) for path, file in shown.items()]
    entries += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in folders]
    return Response.of(sorted(entries, key=lambda entry: str(entry["path"])))


def _cuts(path: str, start: int) -> Iterable[int]:
    return (at - 1 for at in range(start, len(path)) if path[at] == "/")


def paths(state: State, request: Request, name: str, revision: str) -> Response:
    """POST paths-info: files by name; those that are missing are left out."""
    repository: Repository = state.repository(name, state.user(request.token))
    at = repository.resolve(revision)
    asked = parse_qs(request.body.decode()).get("paths", [])
    return Response.of([_entry(path, at.files[path]) for path in asked if path in at.files])


def _entry(path: str, file: File) -> dict[str, Any]:
    size = len(file.content)
    lfs = {"lfs": {"oid": file.sha256, "size": size, "pointerSize": len(file.pointer)}} if file.large else {}
    return {"type": "file", "path": path, "oid": file.blob, "size": size, **lfs}

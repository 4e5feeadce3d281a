"""What the Hub keeps: users, repositories with commits, branches and tags, large files; and how files come and go."""

import fnmatch
import hashlib
import hmac
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from loopback.exchange import ApiError, Request, Response

ATTRIBUTES = "*.bin filter=lfs diff=lfs merge=lfs -text\n*.tar.* filter=lfs diff=lfs merge=lfs -text\n"
"""Part of the ``.gitattributes`` that the Hub puts into a new repository: what is kept as a large file."""

_SECRET = b"links that the loopback hub has signed"
LARGEST_REGULAR = 10 * 2**20
"""Bytes above which the Hub keeps any file as a large one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom a token speaks for; may write where ``write`` and the namespace is among ``namespaces``.

    With ``only`` it may write that one repository and make none.
    """

    name: str
    namespaces: frozenset[str]
    write: bool
    only: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a commit."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        """The name of a large file."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git keeps in the place of a large file."""
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        )

    @property
    def blob(self) -> str:
        """The git object id."""
        data = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    @property
    def oid(self) -> str:
        """The id by which the client sees that a file has not changed."""
        return self.sha256 if self.large else self.blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit: its whole tree."""

    id: str
    files: Mapping[str, File]


_numbers = itertools.count(1)


@dataclass(slots=True, kw_only=True)
class Repository:
    """One model repository."""

    id: str
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organization it belongs to."""
        return self.id.split("/", maxsplit=1)[0]

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag or 40 hexadecimal digits name; raise 404 if there is none."""
        name = revision.removeprefix("refs/heads/")
        commit = self.branches.get(name) or self.tags.get(name.removeprefix("refs/tags/")) or revision
        if commit not in self.commits:
            raise ApiError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[commit]

    def add(self, branch: str, files: Mapping[str, File]) -> Commit:
        """Put a commit with this tree on a branch, and an id that no other has."""
        name = hashlib.sha1(b"commit %d" % next(_numbers), usedforsecurity=False).hexdigest()
        commit = Commit(id=name, files=dict(files))
        self.commits[commit.id] = commit
        self.branches[branch] = commit.id
        return commit

    def commit(self, branch: str, parent: str | None, change: Callable[[dict[str, File]], None]) -> Commit:
        """Commit a change of the tree to a branch, which must still be at the parent if one is given.

        Raises 404 where there is no such branch, 412 where it has moved on, and what ``change`` raises.
        """
        if branch not in self.branches:
            raise ApiError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.commits[self.branches[branch]]
        if parent is not None and not head.id.startswith(parent):
            raise ApiError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        change(files)
        return self.add(branch, files)


@dataclass(slots=True)
class State:
    """All of it. Whoever reads or changes it holds ``lock``."""

    users: Mapping[str, User]
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    publishers: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Who may publish without a secret: what the token of a job has to say, by repository."""
    issued: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Tokens that a CI service gave to its jobs, with what they say."""
    granted: dict[str, User] = field(default_factory=dict)
    """Tokens that jobs got for theirs."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def user(self, token: str | None) -> User | None:
        """Return whom a token speaks for, None without a token; raise 401 for a token of nobody."""
        if token is None:
            return None
        if token not in self.users and token not in self.granted:
            raise ApiError(401, "Invalid credentials in Authorization header")
        return self.users.get(token) or self.granted[token]

    def repository(self, name: str, user: User | None) -> Repository:
        """Return a repository that a user may read.

        Raises:
            ApiError: The Hub does not say whether a repository is missing or private: 404 to users, 401 to others.
                There the client tells the latter by the https address; here it needs the code.
        """
        repository = self.repositories.get(name)
        visible = repository and (not repository.private or (user and repository.namespace in user.namespaces))
        if repository is None or not visible:
            if user is None:
                raise ApiError(401, "Invalid username or password.", "RepoNotFound")
            raise ApiError(404, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, name: str, user: User | None) -> Repository:
        """Return a repository that a user may write; raise as `repository`, and 401 or 403 if it may only be read."""
        repository = self.repository(name, user)
        self.check_namespace(repository.namespace, user, name)
        return repository

    def check_namespace(self, namespace: str, user: User | None, name: str | None = None) -> None:
        """Raise 401 or 403 unless a user may write what belongs to a namespace, or the repository called ``name``."""
        if user is None:
            raise ApiError(401, "Invalid username or password.")
        if namespace not in user.namespaces:
            raise ApiError(403, f'You don\'t have the rights to write to the namespace "{namespace}"')
        if not user.write or user.only not in (None, name):
            raise ApiError(403, "Forbidden: you must use a write token to upload to a repository.")

    def create(self, name: str, *, private: bool) -> Repository:
        """Make a repository with its first commit."""
        repository = Repository(id=name, private=private)
        repository.add("main", {".gitattributes": File(content=ATTRIBUTES.encode(), large=False)})
        self.repositories[name] = repository
        return repository


def is_large(repository: Repository, revision: Commit, path: str, size: int, sample: bytes) -> bool:
    """Return whether the Hub wants a file as a large one: by ``.gitattributes``, by its size, or as it is binary."""
    attributes = revision.files.get(".gitattributes")
    lines = attributes.content.decode().splitlines() if attributes else []
    patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
    named = any(fnmatch.fnmatch(path.rsplit("/", maxsplit=1)[-1], pattern) for pattern in patterns)
    return named or size > LARGEST_REGULAR or b"\0" in sample


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
        return _linked(file, storage, common)
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
    file = File(content=content, large=answer.status == 302)
    if file.large:
        state.large[file.sha256] = content
        return _linked(file, storage, answer.headers)
    changing = {"Content-Range", "ETag", "Accept-Ranges", "Content-Type"}
    headers = {name: value for name, value in answer.headers.items() if name not in changing}
    return ranged(request, content, {**headers, "ETag": f'"{file.blob}"'})


def _linked(file: File, storage: str, headers: Mapping[str, str]) -> Response:
    """Say where in the storage a large file is."""
    link = f"{storage}/storage/{file.sha256}?signature={sign('GET', file.sha256)}"
    linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content)), "Location": link}
    return Response(status=302, headers={**headers, **linked}, body=f"Found. Redirecting to {link}".encode())


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

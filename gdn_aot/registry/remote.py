"""A registry on the Hugging Face Hub: the only module that imports huggingface_hub, and only when it is needed.

Token, endpoint, cache and offline mode are huggingface_hub's own (``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME``,
``HF_HUB_OFFLINE``, ``HF_OIDC_RESOURCE``). Offline answers, and files that were downloaded before, are taken from its
cache as its documentation lays it out (https://huggingface.co/docs/huggingface_hub/guides/manage-cache): ``refs`` say
what a branch or tag was when it was last read, ``snapshots`` have the files of a commit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from gdn_aot._files import read_regular, write_whole
from gdn_aot._version import __version__
from gdn_aot.errors import (
    AccessDeniedError,
    ConflictError,
    EntryMissingError,
    GdnAotError,
    NetworkError,
    OfflineMissError,
    Problem,
    RegistryError,
    RepositoryMissingError,
    RevisionMissingError,
    StaleParentError,
    VerificationError,
)
from gdn_aot.registry.base import COMMIT, MAX_READ, Refs, Registry, Snapshot, check_revision
from gdn_aot.registry.failures import Failures, Secrets, check_token, http_of
from gdn_aot.registry.guard import Guard
from gdn_aot.registry.layout import INDEX, MAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from huggingface_hub import CommitOperationAdd, HfApi

    from gdn_aot.registry.base import Addition

_ATTEMPTS = 4
"""Times that a request is sent."""
_PATIENCE = 60.0
"""Seconds: the longest ``Retry-After`` that is waited for."""
_TIMEOUT = 60.0
"""Seconds without an answer. huggingface_hub 2 waits for ever, except where it downloads."""
_MAX_REF = 256
"""Bytes of a file that names a commit."""
_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


class RemoteRegistry(Registry):
    """A model repository of the Hub, ``org/name``; a token is used instead of what huggingface_hub finds by itself.

    Raises:
        UsageError: The token has characters that no token has.
    """

    def __init__(self, place: str, *, token: str | None = None) -> None:
        self.name = f"hf://{place}"
        self._place = place
        self._as_us: dict[str, Any] = {
            "token": check_token(token) if token is not None else None,
            "library_name": "gdn-aot",
            "library_version": __version__,
        }
        self._secrets = Secrets(token)
        self._uploads: dict[tuple[str, str, int], CommitOperationAdd] = {}
        """Files that are uploaded, for a commit that has to be tried again."""

    def refs(self) -> Refs:
        """Return branches and tags."""
        self._expect_online("its branches and tags")
        found = self._ask("its branches and tags", partial(self._api().list_repo_refs, self._place))
        return Refs(
            branches={ref.name: ref.target_commit for ref in found.branches},
            tags={ref.name: ref.target_commit for ref in found.tags},
        )

    def _commit_of(self, revision: str) -> str:
        if self._offline():
            return self._remembered(revision)
        return self._ask(f"revision {revision}", partial(self._asked_commit, revision))

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a small file; see `gdn_aot.registry.base.Registry.read`."""
        hint = "check that this is a registry of gdn-aot"
        too_much = RegistryError(f"{path} of {self.name} is larger than {MAX_READ} bytes", hint=hint)
        place = self._file(snapshot, path, MAX_READ, too_much)
        try:
            content = read_regular(place, MAX_READ)
        except OSError as error:
            self.forget(snapshot, path)
            if error.errno == errno.EFBIG:
                raise too_much from None
            raise NetworkError(f"cannot read {place}: {error.strerror or error}", hint="try again") from error
        if path == INDEX and snapshot.revision != snapshot.commit:
            self._remember(snapshot)
        return content

    def download(self, snapshot: Snapshot, path: str, size: int, sha256: str) -> Path:
        """Return where a file is in huggingface_hub's cache; see `gdn_aot.registry.base.Registry.download`."""
        del sha256
        place = self._kept(snapshot, path)
        if place is not None:
            return place
        self._expect_online(f"{path} of commit {snapshot.commit}")
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        def wrong(found: str) -> VerificationError:
            problem = Problem("size", f"{found} bytes, expected {size}")
            hint = "nothing was downloaded; fetch again, and if it stays so tell whoever publishes there"
            return VerificationError(f"{path} of {self.name} is not what the index lists", [problem], hint=hint)

        url = hf_hub_url(self._place, path, revision=snapshot.commit)
        asked = partial(get_hf_file_metadata, url, **self._as_us)
        found = self._ask(f"{path} at {snapshot.revision}", asked).size
        if found not in (None, size):  # without a size huggingface_hub downloads nothing
            raise wrong(str(found))
        return self._file(snapshot, path, size, wrong("more"))

    def _kept(self, snapshot: Snapshot, path: str) -> Path | None:
        """Return where huggingface_hub's cache has a file, if it does."""
        place = self._cache() / "snapshots" / snapshot.commit / path
        return place if place.is_file() else None

    def _file(self, snapshot: Snapshot, path: str, limit: int, too_much: GdnAotError) -> Path:
        """Return where a file is in the cache; one of more bytes than the limit is neither downloaded nor kept."""
        place = self._kept(snapshot, path)
        if place is not None:
            return place
        if self._offline() and (self._cache() / ".no_exist" / snapshot.commit / path).is_file():
            raise EntryMissingError(f"{self.name} at {snapshot.revision} has no {path}")
        self._expect_online(f"{path} of commit {snapshot.commit}")
        from huggingface_hub import errors, hf_hub_download

        guard = Guard(http_of(errors), self.name, self._secrets, limit, too_much, snapshot.commit)
        fetch = partial(hf_hub_download, self._place, path, revision=snapshot.commit, **self._as_us)
        try:
            return Path(self._ask(f"{path} at {snapshot.revision}", fetch, download=True, guard=guard))
        except GdnAotError as error:
            if error is too_much:
                self.forget(snapshot, path)
                for etag in guard.etags:
                    self._remove_partial(etag)
            raise

    def _remove_partial(self, etag: str) -> None:
        """Remove what a download that was given up has left in the cache; huggingface_hub 2 leaves only the lock."""
        cache = self._cache()
        for place in (cache / "blobs" / f"{etag}.incomplete", cache.parent / ".locks" / cache.name / f"{etag}.lock"):
            with contextlib.suppress(OSError):
                place.unlink()

    def forget(self, snapshot: Snapshot, path: str) -> None:
        """Remove a file from huggingface_hub's cache, together with the blob that it is a link to, and its lock."""
        cache = self._cache()
        place = cache / "snapshots" / snapshot.commit / path
        with contextlib.suppress(OSError):
            blob = place.resolve()
            place.unlink(missing_ok=True)
            if blob.parent == (cache / "blobs").resolve():
                blob.unlink(missing_ok=True)
                self._remove_partial(blob.name)

    def create(self, *, private: bool) -> bool:
        """Make the repository unless it is there; see `gdn_aot.registry.base.Registry.create`."""
        self._expect_online("the repository")
        try:
            self.resolve(MAIN)
        except RevisionMissingError:
            return False
        except (RepositoryMissingError, AccessDeniedError):
            # None leaves it to the organization's own default.
            make = partial(self._api().create_repo, self._place, repo_type="model", private=private or None)
            try:
                self._ask("a new repository", make)
            except ConflictError:
                return False
            return True
        return False

    def commit(self, branch: str, parent: str | None, additions: Sequence[Addition], message: str) -> str:
        """Add files to a branch; see `gdn_aot.registry.base.Registry.commit`.

        Large files are uploaded before the commit and only once, however often the commit has to be tried.
        """
        check_revision(branch)
        self._expect_online("a commit")
        parent = self._new_branch(branch) if parent is None else parent
        api = self._api()
        operations = [self._operation(addition) for addition in additions]
        upload = partial(api.preupload_lfs_files, self._place, operations, revision=branch, free_memory=False)
        self._ask(f"an upload to {branch}", upload, attempts=1)
        for addition, operation in zip(additions, operations, strict=True):
            addition.check(operation.upload_info.sha256.hex())
        send = partial(
            api.create_commit, self._place, operations, commit_message=message, revision=branch, parent_commit=parent
        )
        made = self._ask(f"a commit to {branch}", send)
        self._uploads.clear()
        return made.oid

    def tag(self, name: str, commit: str) -> None:
        """Name a commit for good; see `gdn_aot.registry.base.Registry.tag`."""
        check_revision(name)
        self._expect_online("a tag")
        try:
            self._ask(f"the tag {name}", partial(self._api().create_tag, self._place, tag=name, revision=commit))
        except ConflictError as error:
            found = self.resolve(name).commit
            if found != commit:
                raise ConflictError(f"{self.name}: the tag {name} names {found}, not {commit}") from error

    # Requests

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(**self._as_us)

    def _asked_commit(self, revision: str) -> str:
        """Ask what a revision is, as ``HfApi.model_info`` does, which takes 80 ms longer to import."""
        from huggingface_hub import constants
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, and not marked so
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        response = get_session().get(
            f"{constants.ENDPOINT}/api/models/{self._place}/revision/{quote(revision, safe='')}",
            headers=build_hf_headers(**self._as_us),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        hf_raise_for_status(response)
        commit = response.json()["sha"]
        if not (isinstance(commit, str) and COMMIT.fullmatch(commit)):
            raise ValueError("the answer names no commit")
        return commit

    def _new_branch(self, branch: str) -> str:
        """Make a branch where ``main`` is now, and return that commit: what it must still be at when we add to it."""
        start = self.resolve(MAIN).commit
        try:
            make = partial(self._api().create_branch, self._place, branch=branch, revision=start)
            self._ask(f"the branch {branch}", make)
        except ConflictError as error:
            raise StaleParentError(f"{self.name}: somebody else made the branch {branch}") from error
        return start

    def _operation(self, addition: Addition) -> CommitOperationAdd:
        from huggingface_hub import CommitOperationAdd

        if isinstance(addition.content, bytes):
            return CommitOperationAdd(path_in_repo=addition.path, path_or_fileobj=addition.content)
        key = (addition.path, str(addition.content), addition.content.stat().st_mtime_ns)
        if key not in self._uploads:
            self._uploads[key] = CommitOperationAdd(path_in_repo=addition.path, path_or_fileobj=addition.content)
        return self._uploads[key]

    def _ask(
        self,
        what: str,
        request: Callable[[], _T],
        *,
        attempts: int = _ATTEMPTS,
        download: bool = False,
        guard: Guard | None = None,
    ) -> _T:
        """Send a request, again where that may help, and turn what goes wrong into errors of ours.

        It must be harmless to repeat. huggingface_hub repeats the parts of uploads by itself; of a ``download`` it has
        repeated some of what failed. Without a ``guard`` an answer may have as many bytes as a small file.
        """
        from huggingface_hub import constants, errors

        places = {"endpoint": constants.ENDPOINT, "cache": str(constants.HF_HUB_CACHE)}
        failures = Failures(self.name, what, self._secrets, errors, **places)
        self._secrets.watch()
        if guard is None:
            too_much = NetworkError(f"{self.name} answers with more than {MAX_READ} bytes when asked for {what}")
            guard = Guard(http_of(errors), self.name, self._secrets, MAX_READ, too_much, None)
        for attempt in range(attempts):
            try:
                with _guarded(guard):
                    return request()
            except Exception as error:  # noqa: BLE001 - what huggingface_hub and what is below it raise is not one family
                if _LOG.isEnabledFor(logging.DEBUG):
                    _LOG.debug("%s", failures.trace(error))
                wait = failures.retry_after(error, download=download)
                if wait is None or wait > _PATIENCE or attempt == attempts - 1:
                    raise failures.translate(error) from None
                time.sleep(max(wait, random.uniform(0.5, 1) * 2**attempt))  # noqa: S311 - so that not all come at once
        raise AssertionError("unreachable")

    # The cache of huggingface_hub

    def _offline(self) -> bool:
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)

    def _expect_online(self, what: str) -> None:
        if self._offline():
            raise OfflineMissError(f"offline mode is on, and {what} of {self.name} is not in the cache")

    def _cache(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{self._place.replace('/', '--')}"

    def _remembered(self, revision: str) -> str:
        try:
            commit = _ref(self._cache() / "refs" / revision)
        except OSError:
            commit = ""
        if not COMMIT.fullmatch(commit):
            raise OfflineMissError(
                f"offline mode is on, and the revision {revision} of {self.name} is not in the cache"
            )
        return commit

    def _remember(self, snapshot: Snapshot) -> None:
        place = self._cache() / "refs" / snapshot.revision
        with contextlib.suppress(OSError):  # a cache that is read-only still answers
            if not place.is_file() or _ref(place) != snapshot.commit:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_whole(place, snapshot.commit.encode())


def _ref(place: Path) -> str:
    return read_regular(place, _MAX_REF).decode("ascii", "replace").strip()


@contextlib.contextmanager
def _guarded(guard: Guard) -> Iterator[None]:
    """Guard what huggingface_hub's session asks, and let no request wait for ever.

    ``HF_HUB_DOWNLOAD_TIMEOUT`` says how long, if set.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # public, and not marked so

    session = get_session()
    timeout, hooks = session.timeout, session.event_hooks
    if timeout == type(timeout)(None):
        session.timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT if "HF_HUB_DOWNLOAD_TIMEOUT" in os.environ else _TIMEOUT
    session.event_hooks = guard.hooks(hooks)
    try:
        yield
    finally:
        session.timeout, session.event_hooks = timeout, hooks

"""Registries to publish to and to fetch from, and what must be true of them and of the store."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import Done, gdn_aot
from loopback import LoopbackHub
from making import WANTED, expected, make
from processes import RENAMES, killed_at

from gdn_aot._files import file_sha256
from gdn_aot.artifact.archive import Written
from gdn_aot.errors import RepositoryMissingError
from gdn_aot.registry.base import Addition, Registry, read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import INDEX, artifact_path
from gdn_aot.registry.open import locate, open_registry
from gdn_aot.registry.publish import PublishResult, publish
from gdn_aot.registry.publisher import publisher_of
from gdn_aot.registry.remote import RemoteRegistry
from gdn_aot.registry.signing import Signing
from gdn_aot.store.store import Store


def put(directory: Path, *made: Written, tag: str | None = None, signing: Signing | None = None) -> str:
    """Publish artifacts to a directory and return the commit of its branch."""
    files, replace = [one.path for one in made], tag is not None
    result = publish(open_registry(str(directory)), files, tag=tag, replace=replace, create=True, signing=signing)
    assert result.commit is not None
    return result.commit


def listed(registry: Registry, revision: str = "v1") -> dict[str, str]:
    """Return what a revision has, after a look at the bytes of every artifact."""
    snapshot, index = read_index(registry, revision)
    for entry in index.entries:
        path = registry.download(snapshot, artifact_path(entry.identifier), entry.size, entry.sha256)
        assert file_sha256(path) == entry.sha256
    return {entry.identifier: entry.sha256 for entry in index.entries}


def all_signed(registry: Registry, home: Path, revision: str = "v1") -> None:
    """Check that what a revision has is signed by somebody who is known here, all of it."""
    snapshot, index = read_index(registry, revision)
    location, store = locate(registry.name, revision), Store(str(home))
    publisher = publisher_of(location, registry, snapshot, index, store, unsigned=False)
    assert publisher is not None
    assert all(publisher.release(registry, snapshot, entry).key for entry in index.entries)


def branches(registry: Registry) -> tuple[str, ...]:
    """What publishing changes: a directory has no branch main."""
    return ("v1", "main") if isinstance(registry, RemoteRegistry) else ("v1",)


def send(registry: Registry, *made: Written, **options: Any) -> PublishResult:
    return publish(registry, [one.path for one in made], **options)


def uploads(hub: LoopbackHub) -> list[str]:
    """Return the SHA-256 of every large file that was sent whole."""
    return [record.path.removeprefix("/storage/") for record in hub.requests("PUT") if record.status == 200]


def spoil(registry: Registry, content: bytes, branch: str = "v1", **more: bytes) -> str:
    """Put bytes where the index of a branch is."""
    additions = [Addition(path=path, content=data) for path, data in {INDEX: content, **more}.items()]
    return registry.commit(branch, registry.refs().branches.get(branch), additions, "spoil")


def files(root: Path) -> dict[str, bytes]:
    """Everything below a directory but its lock."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(found)}


def kept(registry: Path, made: Written) -> Path:
    """Where a directory has an artifact."""
    (found,) = (path for path in registry.glob("targets/*.zst") if file_sha256(path) == made.sha256)
    return found


@dataclass(frozen=True)
class Here:
    """A directory with artifacts for sm_120 and sm_90, at tag v1.0.0, and a home whose store is filled from it."""

    registry: Path
    home: Path

    @property
    def lock_file(self) -> Path:
        """What ``gdn-aot lock`` writes: commands run in the home."""
        return self.home / "gdn-aot.lock"

    def run(self, *args: object, code: int = 0, extra: Mapping[str, str] | None = None) -> Done:
        """Run ``gdn-aot``, for versions that are named, whatever is installed here."""
        return gdn_aot(*args, *WANTED, home=self.home, code=code, extra=extra)

    def fetch(self, *args: object, repo: object = None, code: int = 0, extra: Mapping[str, str] | None = None) -> Done:
        """Run ``gdn-aot fetch``, for sm_120 unless told otherwise."""
        arch = () if "--arch" in args else ("--arch", "sm_120")
        return self.run(
            "fetch", "--allow-unsigned", "--repo", repo or self.registry, *arch, *args, code=code, extra=extra
        )

    def lock(self, *args: object, code: int = 0) -> Done:
        """Run ``gdn-aot lock``, for all targets unless told otherwise."""
        arch = () if "--arch" in args else ("--arch", "all")
        return self.run("lock", "--allow-unsigned", "--repo", self.registry, *arch, *args, code=code)

    def locked(self, *args: object, code: int = 0, extra: Mapping[str, str] | None = None) -> Done:
        """Run ``gdn-aot fetch --locked``."""
        return self.run("fetch", "--locked", "--allow-unsigned", *args, code=code, extra=extra)

    def files(self) -> dict[str, bytes]:
        """Everything in the store but its lock."""
        return files(self.home / "store")

    def has(self, *made: Written) -> bool:
        """Say whether the store has these artifacts and no others, the one that the loader prefers first."""
        places = [place.rpartition("/")[2] for place in Store(str(self.home)).artifacts()]
        return places == [directory_of(one) for one in made]


def directory_of(made: Written) -> str:
    """The name of an artifact's directory in a store."""
    return f"{made.identifier}-{made.sha256[:16]}"


def payload(home: Path) -> Path:
    """The blobs of the one artifact of a store."""
    (pack,) = home.glob("store/artifacts/*/pack")
    return pack


def _begun(folder: Path, kind: str, old: Written, signing: Signing | None) -> Path:
    """Make a directory as it may be before: none, an empty registry, one with a release, a copy of one's files."""
    root = folder / "start"
    if kind == "empty":
        DirectoryRegistry(str(root)).create(private=False)
    elif kind != "none":
        put(root, old, tag="v1.0.0", signing=signing)
    if kind == "copy":
        for name in ("indexes", "tags"):
            shutil.rmtree(root / name)
    return root


def check_kills(
    folder: Path, kind: str, steps: Sequence[tuple[Any, str]] = RENAMES, signing: Signing | None = None
) -> int:
    """Kill publishing before each of its steps in turn; return how many there are.

    The state before stays readable and whole until the new one takes its place, and publishing again brings all to
    where it was to be. What is signed counts in each of these states.
    """
    old, third, new = make(folder), make(folder, "sm_90"), make(folder, build=1)
    root = _begun(folder, kind, old, signing)
    before = expected(old) if kind in ("release", "copy") else {}
    outcomes, killed = [], True
    while killed:
        place = folder / f"root-{len(outcomes)}"
        if root.exists():
            shutil.copytree(root, place)
        killed = killed_at(
            len(outcomes), lambda place=place: put(place, new, third, tag="v1.1.0", signing=signing), steps
        )  # type: ignore[misc]
        registry = DirectoryRegistry(str(place))
        try:
            outcomes.append(listed(registry))
        except RepositoryMissingError:
            assert kind == "none"
            outcomes.append({})
        if signing and outcomes[-1]:
            all_signed(registry, folder / "home")
        if kind == "release":
            assert listed(registry, "v1.0.0") == before
            if signing:
                all_signed(registry, folder / "home", "v1.0.0")
        put(place, new, third, tag="v1.1.0", signing=signing)
        if signing:
            all_signed(registry, folder / "home")
        assert listed(registry) == listed(registry, "v1.1.0") == expected(new, third)
        assert not [*place.rglob(".tmp-*")]
        shutil.rmtree(place)
        assert len(outcomes) < 300, "it never came to its end"
    changed = outcomes.index(expected(new, third))
    assert outcomes == [before] * changed + [expected(new, third)] * (len(outcomes) - changed)
    assert 1 < changed < len(outcomes) - 1
    return len(outcomes) - 1

"""Make artifacts of shards: byte for byte what one build of the whole would have written.

Needs neither Triton nor the provider nor the build cache: everything is in the shards, which are not trusted before
they are verified. All is checked before anything is written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, NoReturn

import zstandard

from gdn_aot.artifact import archive
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.verify import open_shard
from gdn_aot.errors import Problem, ShardError, VerificationError
from gdn_aot.records.numerics import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeVar

    from gdn_aot.artifact.verify import Artifact

    _T = TypeVar("_T")

_SHOWN = 12
"""Missing shards that a message names."""
_WIDTH = 100
"""Characters of a value in a message."""
_APART = ("kernels", "not_covered", "numerics", "blobs", "build", "shard")
"""Fields of a manifest that may differ between the shards of one build; parts of them are compared on their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """One artifact that was made of shards."""

    manifest: m.Manifest
    path: Path
    shards: int


def merge(paths: Sequence[Path], output: Path) -> list[Merged]:
    """Write the artifact of each identifier that the shards are of, sorted by identifier.

    Args:
        paths: Shard files, in any order: all shards of each build.
        output: Directory for the artifacts.

    Raises:
        NotWritableError: An artifact cannot be written.
        ShardError: A shard is missing, there twice or of another build, or a file is an artifact.
        UsageError: A file cannot be read, or SOURCE_DATE_EPOCH is no time.
        VerificationError: A file is damaged, or two shards have different binaries for one launch.
    """
    shards = sorted((_Part(open_shard(path)) for path in paths), key=lambda part: part.place)
    groups = [list(group) for _, group in groupby(shards, key=lambda part: part.manifest.identifier)]
    whole = [(united(group), group) for group in groups]
    made = []
    for manifest, group in whole:
        blobs = dict(blob for part in group for blob in part.artifact.iter_blobs())
        path = output / m.file_name(manifest.identifier)
        archive.write_artifact(manifest, blobs, path)
        made.append(Merged(manifest=manifest, path=path, shards=len(group)))
    return made


class _Part:
    """One verified shard."""

    def __init__(self, artifact: Artifact) -> None:
        shard = artifact.manifest.shard
        assert shard is not None  # noqa: S101 - what open_shard promises
        self.artifact, self.manifest, self.shard = artifact, artifact.manifest, shard

    @property
    def place(self) -> tuple[str, int, str]:
        """What to sort by."""
        return self.manifest.identifier, self.shard.number, str(self.artifact.path)

    def __str__(self) -> str:
        return str(self.artifact.path)


def united(parts: Sequence[_Part]) -> m.Manifest:
    """Return the manifest of the artifact that shards of one identifier, sorted by number, are parts of.

    Raises:
        ShardError: They are not all shards of one build.
        VerificationError: Two contradict each other.
    """
    _check_same(parts)
    _check_complete(parts)
    first = parts[0].manifest
    return replace(
        first,
        kernels=_kernels(parts),
        not_covered=_not_covered(parts),
        numerics=_numerics(parts),
        blobs=(),
        build=replace(first.build, epoch=_epoch(parts), zstd=".".join(map(str, zstandard.ZSTD_VERSION))),
        shard=None,
    )


def _check_same(parts: Sequence[_Part]) -> None:
    """Refuse shards of different builds, naming the first thing that differs."""
    first = parts[0]
    for part in parts[1:]:
        for what, ours, theirs in _differences(first, part):
            raise ShardError(
                f"{part} is of another build than {first}: {what} is {_short(theirs)}, there {_short(ours)}",
                hint="build all shards at one commit with the same options, records and versions",
            )


def _differences(first: _Part, other: _Part) -> Iterator[tuple[str, object, object]]:
    yield from _unequal("the number of shards", first.shard.of, other.shard.of)
    build, theirs = first.manifest.build, other.manifest.build
    for name in ("tool", "commit", "dirty"):
        yield from _unequal(f"build.{name}", getattr(build, name), getattr(theirs, name))
    for field in fields(m.Manifest):
        if field.name not in _APART:
            yield from _unequal(field.name, getattr(first.manifest, field.name), getattr(other.manifest, field.name))
    yield from _unequal("--candidates", first.shard.candidates, other.shard.candidates)
    for name, what in _INPUTS.items():
        yield from _unequal(
            f"the digest of {what}", getattr(first.shard.inputs, name), getattr(other.shard.inputs, name)
        )
    yield from _unequal("the number of autotune keys", first.shard.all_keys, other.shard.all_keys)
    yield from _unequal("what the numeric check says", *map(_said, (first, other)))


_INPUTS = {
    "code": "the code of the provider and of the tracer",
    "tuning": "the tuning records",
    "numerics": "the record of the numeric check",
    "trace": "the trace",
}


def _said(part: _Part) -> object:
    checked = part.shard.checked
    return part.manifest.numerics if checked is None else checked.where


def _unequal(what: str, ours: object, theirs: object) -> Iterator[tuple[str, object, object]]:
    if ours != theirs:
        yield what, ours, theirs


def _check_complete(parts: Sequence[_Part]) -> None:
    """Refuse shards that are there twice or missing."""
    first = parts[0]
    by_number: dict[int, _Part] = {}
    for part in parts:
        before = by_number.setdefault(part.shard.number, part)
        if before is not part:
            raise ShardError(
                f"{before} and {part} are both {part.shard} of {first.manifest.identifier}",
                hint="name each shard once",
            )
    of = first.shard.of
    if len(by_number) < of:
        missing = (number for number in range(1, of + 1) if number not in by_number)
        named = ", ".join(map(str, islice(missing, _SHOWN)))
        more = of - len(by_number) - _SHOWN
        raise ShardError(
            f"of the {of} shards of {first.manifest.identifier} {of - len(by_number)} are missing: "
            f"{named}{f' and {more} more' if more > 0 else ''}",
            hint="build what is missing with gdn-aot build --shard K/N, or name it too",
        )
    found = sum(part.shard.keys for part in parts)
    if found != first.shard.all_keys:
        _contradict(f"they have {found} autotune keys, and the trace has {first.shard.all_keys}", parts)


def _kernels(parts: Sequence[_Part]) -> tuple[m.Kernel, ...]:
    by_name: dict[tuple[str, str], list[tuple[_Part, int, m.Kernel]]] = {}
    for part in parts:
        for index, kernel in enumerate(part.manifest.kernels):
            by_name.setdefault((kernel.module, kernel.qualname), []).append((part, index, kernel))
    return tuple(_kernel(found) for _, found in sorted(by_name.items()))


def _kernel(found: Sequence[tuple[_Part, int, m.Kernel]]) -> m.Kernel:
    identities = [(part, replace(kernel, choices=(), binaries=())) for part, _, kernel in found]
    name = f"{found[0][2].module}:{found[0][2].qualname}"
    whole = _only(identities, lambda _: 0, f"kernel {name}")
    choices = _only_each(
        ((part, choice) for part, _, kernel in found for choice in kernel.choices),
        lambda choice: choice.key,
        f"the choice for an autotune key of {name}",
    )
    return replace(
        whole[0],
        choices=tuple(sorted(choices, key=lambda choice: str(choice.key))),
        binaries=tuple(sorted(_binaries(found, name), key=lambda binary: binary.launch_key)),
    )


def _binaries(found: Sequence[tuple[_Part, int, m.Kernel]], name: str) -> list[m.Binary]:
    """Return each binary once, with everybody whose calls launch it: as for one build, spare ones count only alone."""
    used: dict[str, list[m.Binary]] = {}
    spare: dict[str, list[m.Binary]] = {}
    plain = []
    for part, outer, kernel in found:
        without = {inner for at, inner in part.shard.spare if at == outer}
        for inner, binary in enumerate(kernel.binaries):
            (spare if inner in without else used).setdefault(binary.launch_key, []).append(binary)
            plain.append((part, replace(binary, models=(), workloads=())))
    return [
        replace(
            binary,
            models=_union(other.models for other in used.get(binary.launch_key) or spare[binary.launch_key]),
            workloads=_union(other.workloads for other in used.get(binary.launch_key) or spare[binary.launch_key]),
        )
        for binary in _only(plain, lambda binary: binary.launch_key, f"the binary of a launch of {name}")
    ]


def _union(indices: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({index for some in indices for index in some}))


def _only(items: Iterable[tuple[_Part, _T]], key: Callable[[_T], Hashable], what: str) -> list[_T]:
    """Return one item for each key, which is the same in every shard that has it."""
    seen: dict[Hashable, tuple[_Part, _T]] = {}
    for part, item in items:
        before, known = seen.setdefault(key(item), (part, item))
        if known != item:
            _contradict(f"{what} differs: {_short(key(item))}", [before, part])
    return [item for _, item in seen.values()]


def _only_each(items: Iterable[tuple[_Part, _T]], key: Callable[[_T], Hashable], what: str) -> list[_T]:
    """Return all items, of which no two have one key."""
    seen: dict[Hashable, tuple[_Part, _T]] = {}
    for part, item in items:
        before, known = seen.setdefault(key(item), (part, item))
        if known is not item:
            _contradict(f"{what} is there twice: {_short(key(item))}", [before, part])
    return [item for _, item in seen.values()]


def _contradict(what: str, parts: Sequence[_Part]) -> NoReturn:
    named = ", ".join(str(part) for part in parts[:_SHOWN])
    raise VerificationError(
        f"shards contradict each other: {what}",
        [Problem(named, what)],
        hint="build these shards again, from an empty build cache",
    )


def _not_covered(parts: Sequence[_Part]) -> tuple[m.NotCovered, ...]:
    keys: dict[tuple[str, str], list[m.Key]] = {}
    for part in parts:
        for gap in part.manifest.not_covered:
            keys.setdefault((gap.kernel, gap.reason), []).extend(gap.keys)
    return tuple(
        m.NotCovered(kernel=kernel, reason=reason, keys=tuple(sorted(found, key=str)))
        for (kernel, reason), found in sorted(keys.items())
    )


def _numerics(parts: Sequence[_Part]) -> m.Numerics:
    checked = [part.shard.checked for part in parts if part.shard.checked is not None]
    if not checked:
        return parts[0].manifest.numerics
    packed = {digest for item in checked for digest in item.packed}
    good = {digest for item in checked for digest in item.good}
    return counted(checked[0].where, len(packed), len(packed & good))


def _epoch(parts: Sequence[_Part]) -> int:
    """Return the time of the artifact's members: ``SOURCE_DATE_EPOCH`` where it is set here, else the shards' own."""
    found = sorted({part.manifest.build.epoch for part in parts})
    if "SOURCE_DATE_EPOCH" in os.environ:
        return archive.epoch_from_environment()
    if len(found) > 1:
        raise ShardError(
            f"the shards of {parts[0].manifest.identifier} were built with different times: {_short(found)}",
            hint="set SOURCE_DATE_EPOCH to the time that the artifact is to have",
        )
    return found[0]


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."

"""What the manifest of a shard says beyond that of an artifact: which part it is, and of what.

A shard is a file like an artifact, with a part of the choices and binaries and one more key in its manifest. All shards
of one build together have what the artifact has; `gdn_aot.building.merge` makes it of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from gdn_aot.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.artifact.reader import JsonObject

MOST = 999_999
"""Shards of one build."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What the choices and binaries were made from, as SHA-256; the same in all shards of one build."""

    code: str
    """The provider's Python files, and ours that decide what is traced."""
    trace: str
    tuning: str
    """The tuning records that choices may come from."""
    numerics: str
    """The record of the numeric check of the target; empty if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """Which choices of a shard a numeric check has seen: a manifest says of how many of all it is so."""

    where: str
    """On what the check ran, and when."""
    packed: tuple[str, ...]
    """A digest of each choice and of each launch without one, sorted; see `gdn_aot.records.numerics`."""
    good: tuple[str, ...]
    """Those of them that the check found right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Which part of a build a file is."""

    number: int
    """From 1."""
    of: int
    """Shards of the build."""
    keys: int
    """Autotune keys in this shard."""
    all_keys: int
    """Autotune keys in the trace."""
    candidates: str
    """``chosen`` or ``all``: what is compiled."""
    inputs: Inputs
    checked: Checked | None
    """None if `Manifest.numerics` does not depend on the choices."""
    spare: tuple[tuple[int, int], ...]
    """(kernel, binary) of each binary that no choice of this shard leads to, sorted."""

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"


def file_name(identifier: str, number: int, of: int) -> str:
    """Return the name that a shard file has."""
    return f"gdn-aot-{identifier}-shard-{number}-of-{of}.tar.zst"


def read_shard(o: JsonObject) -> Shard:
    """Read the ``shard`` of a manifest; problems are noted."""
    return Shard(
        number=o.integer("number"),
        of=o.integer("of"),
        keys=o.integer("keys"),
        all_keys=o.integer("all_keys"),
        candidates=o.one_of("candidates", ("chosen", "all")),
        inputs=o.child("inputs", Inputs, _inputs),
        checked=o.optional("checked", lambda name: o.child(name, Checked, _checked)),
        spare=tuple(_pair(o, path, item) for path, item in o.items("spare")),
    )


def _inputs(o: JsonObject) -> Inputs:
    return Inputs(code=o.text("code"), trace=o.text("trace"), tuning=o.text("tuning"), numerics=o.text("numerics"))


def _checked(o: JsonObject) -> Checked:
    return Checked(where=o.text("where"), packed=o.texts("packed"), good=o.texts("good"))


def _pair(o: JsonObject, path: str, value: object) -> tuple[int, int]:
    numbers = [o.scalar(item, f"{path}[{index}]", "int") for index, item in enumerate(o.sequence(value, path, 2))]
    first, second = numbers or (0, 0)
    return (first, second) if isinstance(first, int) and isinstance(second, int) else (0, 0)


def check_shard(manifest: Manifest, shard: Shard) -> Iterator[Problem]:
    """Yield what is inconsistent in the shard of a manifest, with its path."""
    if not 1 <= shard.number <= shard.of <= MOST:
        yield Problem("shard.number", f"expected 1 to shard.of, and that at most {MOST}")
    listed = sum(len(kernel.choices) for kernel in manifest.kernels)
    listed += sum(len(gap.keys) for gap in manifest.not_covered)
    if listed != shard.keys:
        yield Problem("shard.keys", f"is not the {listed} keys that are chosen for or not covered")
    if shard.keys > shard.all_keys:
        yield Problem("shard.all_keys", "is less than shard.keys")
    for name in ("code", "trace", "tuning", "numerics"):
        value = getattr(shard.inputs, name)
        if not _DIGEST.fullmatch(value) and not (name == "numerics" and not value):
            yield Problem(f"shard.inputs.{name}", "expected 64 lower-case hexadecimal digits")
    yield from _check_spare(shard, [len(kernel.binaries) for kernel in manifest.kernels])
    if shard.checked is not None:
        yield from _check_checked(shard.checked)


def _check_spare(shard: Shard, binaries: Sequence[int]) -> Iterator[Problem]:
    if shard.spare and shard.candidates != "all":
        yield Problem("shard.spare", "is for builds of all candidates")
    if not _rising(shard.spare):
        yield Problem("shard.spare", "expected pairs in rising order, each once")
    for number, (kernel, binary) in enumerate(shard.spare):
        if not (0 <= kernel < len(binaries) and 0 <= binary < binaries[kernel]):
            yield Problem(f"shard.spare[{number}]", "is no binary of this manifest")


def _check_checked(checked: Checked) -> Iterator[Problem]:
    for name, digests in (("packed", checked.packed), ("good", checked.good)):
        if not _rising(digests):
            yield Problem(f"shard.checked.{name}", "expected texts in rising order, each once")
    if not set(checked.good) <= set(checked.packed):
        yield Problem("shard.checked.good", "has what shard.checked.packed has not")


def _rising(items: Sequence[str] | Sequence[tuple[int, int]]) -> bool:
    return all(left < right for left, right in pairwise(items))  # type: ignore[operator]

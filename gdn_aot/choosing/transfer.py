"""Choices for targets that nobody measured, from the nearest one that somebody did.

The rule, for a target and an autotune key (``docs/adr/0009-transferred-choices.md``, ``0027-choices-by-proxy.md``):

1. The records that have the very kernel, by the digest of its source (`gdn_aot.launches.Kernel.digest`), are asked in
   three groups, whatever release of the distribution they are of: the target's own; those of targets whose ``tl.dot``
   becomes the same instruction; the others. Within a group the nearest target is first: one with a matrix unit like it,
   of the same major compute capability, then by distance of the capability's number (89 for 8.9), then the lower one;
   and of one target what its own card measured, then what another card did by proxy; then the nearest release. A record
   without digests has the very kernel if it is of the same version, or of one that is known to have the same source.
2. In each group the first record that has the key answers; a key that differs only in the 16-bit number type is taken
   for the same if the record lacks the exact one, because targets without bf16 arithmetic are built for fp16. What the
   target's own record has for the very key counts as what it is, and is no transfer. If none has the key, they are
   asked for a key that differs in one part only, a size or a number type, or in several sizes by one factor, as those
   of a model that is divided among cards do: the nearest by that factor first.
3. Of that record the candidates that are eligible at every token count are ranked by its objective: its choice first,
   then those within the bound, by score. Those that the provider does not offer go from one key to another of the
   target's own record, never to another target.
4. Those that the provider does not offer for this target are left out: so its restrictions, on shared memory or on
   Blackwell, hold here too. The build takes the first of the rest that compiles and fits, else its default.

5. Where none of them has an answer, records of another form of the kernel are asked by the same rules, those of the
   same release first, then of the nearest, and of two as near of the later one. What they say is a transfer, of the
   provider's own candidates alone.

A record that is asked and is broken, or of another format, is an error; one that nobody asks is not read. The target's
own are always asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from gdn_aot.catalogue.providers import nearest_releases, same_source
from gdn_aot.catalogue.targets import all_targets
from gdn_aot.records import objective
from gdn_aot.records import tuning as records
from gdn_aot.records.tuning import TunedChoice
from gdn_aot.records.verdict import samples_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import Config, KernelKey, Key
    from gdn_aot.records.tuning import MeasuredChoice, MeasuredKernel, TuningRecord

OTHER_FORM = ", of another form of the kernel"
"""Ends what notes say of a record that has the name of a release, and not its kernel."""
_NO_MATRIX_UNIT = "fma"
_SIXTEEN_BIT = ("torch.bfloat16", "torch.float16")


def nearness(target: Target, other: Target) -> tuple[bool | int, ...]:
    """Return what to sort targets by to have those nearest to ``target`` first."""
    return (
        other.dot != target.dot,
        (other.dot == _NO_MATRIX_UNIT) != (target.dot == _NO_MATRIX_UNIT),
        other.capability[0] != target.capability[0],
        abs(other.arch_number - target.arch_number),
        other.arch_number,
    )


def ranked(
    kernel: MeasuredKernel, choice: MeasuredChoice, goal: objective.Objective, *, derived: bool = False
) -> list[Config]:
    """Return the candidates that are eligible for a key, best first: the choice, then by objective.

    The choice is first even where another one's score is lower: it was made between times that differ by less than
    their noise. With ``derived`` those are among them that the provider does not offer.
    """
    count = len(kernel.candidates) if derived else kernel.offered
    verdict = objective.choose(samples_of(choice, count), [()] * count, goal)
    if verdict is None:
        return []
    order = sorted(verdict.ranking, key=lambda index: index != choice.chosen)
    return [kernel.candidates[index] for index in order]


class _Source:
    def __init__(self, record: TuningRecord, *, own: bool) -> None:
        self.record, self.own = record, own
        self.digests = {kernel.kernel: kernel.digest or "" for kernel in record.kernels}
        self._names = {digest: name for name, digest in self.digests.items() if digest}
        self.exact = {
            (kernel.kernel, choice.key): (kernel, choice)
            for kernel in record.kernels
            for choice in kernel.choices
            if records.is_usable(choice, record.objective)
        }
        self.alike: dict[KernelKey, tuple[MeasuredKernel, MeasuredChoice]] = {}
        """By keys in which both 16-bit number types are the same."""
        for (kernel, key), found in self.exact.items():
            self.alike.setdefault((kernel, _without_type(key)), found)

    def name(self, kernel: str, digest: str) -> str | None:
        """Return the name under which the very kernel is here, another one if it has moved; None if it is not here."""
        here = self.digests.get(kernel)
        if not digest or here == "":
            return kernel if self.own else None
        return kernel if here == digest else self._names.get(digest)

    def form(self, kernel: str) -> str:
        """Return the name under which a form of a kernel is here, another one if it has moved."""
        own = kernel.partition(":")[2]
        moved = [name for name in self.digests if name.partition(":")[2] == own]
        return moved[0] if len(moved) == 1 and kernel not in self.digests else kernel

    def near(self, name: str, key: Key) -> tuple[MeasuredKernel, MeasuredChoice] | None:
        """Return the nearest key that differs in one part only, or in sizes by one factor."""
        ranked = [
            (distance, place, found)
            for place, ((kernel, other), found) in enumerate(self.exact.items())
            if kernel == name and (distance := _distance(key, other)) is not None
        ]
        return min(ranked, key=lambda item: item[:2])[2] if ranked else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the records say of a key: one that they have, or the nearest."""

    record: TuningRecord
    kernel: MeasuredKernel
    choice: MeasuredChoice
    same: bool
    """It is the very kernel, by its source."""
    own: bool
    """It is that, and the target's own."""
    exact: bool
    """It has the very key."""
    difference: str
    """In what the key differs from the one that was asked for, as notes say it; empty if in nothing."""


class Transfer:
    """Finds choices for one target in the records of others below ``root``.

    Notes say if a record was measured with another Triton or release than those that build.
    """

    def __init__(
        self, root: Path | None, target: Target, distribution: str, version: str, triton: str | None = None
    ) -> None:
        self._target, self._triton = target, triton
        nearest = sorted(all_targets(), key=lambda other: nearness(target, other))
        self._groups = [
            [other.name for other in nearest if other == target],
            [other.name for other in nearest if other != target and other.dot == target.dot],
            [other.name for other in nearest if other.dot != target.dot],
        ]
        self._root = root
        self._distribution, self._version = distribution, version
        self._alike = (version, *same_source(distribution, version))
        """Versions of which a record without digests counts as the version's own."""
        self._releases = list(dict.fromkeys([*self._alike, *nearest_releases(distribution, version)]))
        self._read: dict[Path, _Source | None] = {}

    def own(self) -> list[TuningRecord]:
        """Return the records of the target itself and of this version, those of its own cards first.

        Raises:
            UsageError: One is refused.
        """
        return [source.record for source in self._sources(self._groups[0], self._alike)]

    def table(self) -> records.TuningTable:
        """Return the choices of the target's own records, of a key that several have that of the first.

        They are by digest of the kernel in place of its name, whatever release a record is of; by name where a record
        has no digests and is of this version.

        Raises:
            UsageError: A record is refused.
        """
        found: records.TuningTable = {}
        for source in reversed(list(self._sources(self._groups[0], self._releases))):
            for (name, key), choice in records.table(source.record, self._triton, self._version).items():
                if place := source.digests[name] or (name if source.own else ""):
                    found[place, key] = choice
        return found

    def suggest(
        self,
        kernel: str,
        key: Key,
        offered: Collection[Config],
        others: Collection[Config] = (),
        digest: str = "",
    ) -> list[TunedChoice]:
        """Return choices for a key among the candidates given, best first; often none.

        ``offered`` are the provider's own; ``others`` count for what the target's own record says. Without the
        kernel's ``digest`` its source is taken to be that of its version.

        Raises:
            UsageError: A record that had to be read is refused.
        """
        found = self.find(kernel, key, digest)
        return list(self._choices(found, offered, others)) if found else []

    def find(self, kernel: str, key: Key, digest: str = "") -> Found | None:
        """Return what `suggest` goes by: what the first record that answers for a key has of it.

        Raises:
            UsageError: A record that had to be read is refused.
        """
        for versions, names in product([self._releases, *((one,) for one in self._releases)], self._groups):
            same = versions is self._releases
            for source, name in self._named(names, versions, kernel, digest, same=same):
                found = source.exact.get((name, key))
                note = ""
                if found is None:
                    found = source.alike.get((name, _without_type(key)))
                    note = f", for {_types(found[1].key)}" if found else ""
                if found is not None:
                    return self._found(source, *found, key, note, same=same)
            for source, name in self._named(names, versions, kernel, digest, same=same):
                if near := source.near(name, key):
                    return self._found(source, *near, key, _difference(key, near[1].key), same=same)
        return None

    def _named(
        self, names: Sequence[str], versions: Sequence[str], kernel: str, digest: str, *, same: bool
    ) -> Iterator[tuple[_Source, str]]:
        """Yield the records that have the very kernel, or with ``same`` false those that do not, and its name there."""
        for source in self._sources(names, versions):
            name = source.name(kernel, digest)
            if (name is not None) == same:
                yield source, name or source.form(kernel)

    def _found(
        self, source: _Source, kernel: MeasuredKernel, choice: MeasuredChoice, key: Key, difference: str, *, same: bool
    ) -> Found:
        return Found(
            record=source.record,
            kernel=kernel,
            choice=choice,
            same=same,
            own=same and source.record.target == self._target.name,
            exact=choice.key == key,
            difference=difference,
        )

    def _sources(self, names: Sequence[str], versions: Sequence[str]) -> Iterator[_Source]:
        """Yield the records of these targets, read when first asked for; of one target those of its own cards first."""
        roots = (self._root, self._root / records.SECOND, self._root / records.PROXY) if self._root else ()
        for name, root, version in product(names, roots, versions):
            path = records.record_path(root, name, self._distribution, version)
            if path not in self._read:
                record = records.load(path, target=name, distribution=self._distribution, version=version)
                self._read[path] = _Source(record, own=version in self._alike) if record else None
            if source := self._read[path]:
                yield source

    def _choices(self, found: Found, offered: Collection[Config], others: Collection[Config]) -> Iterator[TunedChoice]:
        kernel, choice, record, own = found.kernel, found.choice, found.record, found.own
        order = ranked(kernel, choice, record.objective, derived=own)
        of_this = found.same and not (own and found.exact)
        origin = records.origin(record, self._triton, None if of_this else self._version)
        if not found.same and record.provider.version == self._version:
            origin += OTHER_FORM
        where = f"on {origin}" if own and found.exact else f"from {record.target} ({origin})"
        provenance = records.provenance(record) if own and found.exact else "transferred"
        for place, config in enumerate(order):
            if config not in offered and not (own and config in others):
                continue
            what = "its choice, " if config == kernel.candidates[choice.chosen] else ""
            yield TunedChoice(
                config=config,
                provenance=provenance,
                note=f"{where}: {what}rank {place + 1} of {len(order)} there{found.difference}",
            )


def origin(note: str) -> str:
    """Return the part of a choice's note that says where it was measured; empty if it says nothing.

    Notes start with ``on DEVICE: `` (measured) or ``from TARGET (DEVICE): `` (transferred).
    """
    where, colon, _ = note.partition(": ")
    return where if colon and where.startswith(("on ", "from ")) else ""


def _without_type(key: Key) -> Key:
    return tuple("16 bits" if part in _SIXTEEN_BIT else part for part in key)


def _distance(key: Key, other: Key) -> tuple[int, float] | None:
    """Return how far two keys are apart that differ in one part, or in sizes by one factor; None for any others.

    One size is nearest, then sizes by one factor, then a number type.
    """
    if len(key) != len(other):
        return None
    differ = [(one, two) for one, two in zip(key, other, strict=True) if one != two or type(one) is not type(two)]
    if not differ:
        return None
    if all(type(part) is int and part > 0 for pair in differ for part in pair):
        factors = {math.log2(one / two) for one, two in differ}  # type: ignore[operator]
        return (len(differ) > 1, abs(factors.pop())) if len(factors) == 1 else None
    one, two = differ[0]
    return (2, 0.0) if len(differ) == 1 and isinstance(one, str) and isinstance(two, str) else None


def _difference(key: Key, other: Key) -> str:
    """Say in which parts a key differs from the measured one."""
    pairs = [(one, two) for one, two in zip(key, other, strict=True) if one != two]
    here, there = ("/".join(str(pair[place]) for pair in pairs) for place in (0, 1))
    return f", for {there} instead of {here}".replace("torch.", "")


def _types(key: Key) -> str:
    """Return the 16-bit number types of a key, as ``bfloat16``."""
    return " and ".join(kind.removeprefix("torch.") for kind in _SIXTEEN_BIT if kind in key)

"""What changed between two artifacts, or between two tuning records, and whether that is faster or slower."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from gdn_aot.artifact.cost import cost_of
from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import UsageError
from gdn_aot.launches import comparable
from gdn_aot.records.objective import alike
from gdn_aot.records.tuning import TuningRecord
from gdn_aot.records.verdict import samples_of
from gdn_aot.reporting import choices, facts
from gdn_aot.reporting.html import Html, e, table
from gdn_aot.reporting.keys import key_text
from gdn_aot.reporting.pool import MOST, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gdn_aot.artifact.manifest import Manifest, PackedKernel
    from gdn_aot.launches import Config, Key
    from gdn_aot.records.objective import Objective, Sample
    from gdn_aot.records.tuning import MeasuredChoice, MeasuredKernel
    from gdn_aot.reporting.artifacts import Places
    from gdn_aot.reporting.html import Content
    from gdn_aot.reporting.inputs import Named
    from gdn_aot.reporting.pool import Pool

FASTER, SLOWER, ALIKE, SAME, UNKNOWN, FIRST, SECOND = range(7)
WORDS = ("faster", "slower", "within noise", "same configuration", "no common times", "only in A", "only in B")
"""What became of a key, by these numbers."""
_T = TypeVar("_T")
_Judge: TypeAlias = "Callable[[_Side | None, _Side | None], _Verdict]"
_HINT = "name two artifacts, or two tuning records, and leave --compare out to see other files"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    """What one of the two files has of a key."""

    kernel: str
    """Its own name, ``module:qualname``."""
    key: Key
    config: Config
    times: dict[int, Sample] = field(default_factory=dict)
    """By tokens; of an artifact there are none, see `_Shipped`."""
    timing: int | None = None
    """Number of the times of all candidates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    word: int
    ratio: float | None = None
    """Time in B / time in A, weighted over the lengths."""
    ratios: dict[int, float] = field(default_factory=dict)
    """The same by tokens."""
    timings: tuple[int | None, ...] = ()
    """Numbers of what the key's times are."""


@dataclass(kw_only=True, slots=True)
class _Kernel:
    name: str
    rows: list[list[Any]] = field(default_factory=list)
    """As the script lists them."""
    counts: Counter[int] = field(default_factory=Counter)
    changed: int = 0
    """Keys of both with another configuration."""
    ratios: list[float] = field(default_factory=list)
    """Of keys that have one."""

    def add(self, first: _Side | None, second: _Side | None, verdict: _Verdict, pool: Pool) -> None:
        """Add a key, which one of the two has at least."""
        shown = next(side for side in (first, second) if side)
        configs = [pool.text(side.config) if side else None for side in (first, second)]
        self.counts[verdict.word] += 1
        self.changed += bool(first and second and first.config != second.config)
        if verdict.ratio is not None:
            self.ratios.append(verdict.ratio)
        whole = None if verdict.ratio is None else parts([verdict.ratio])[0]
        lengths, ratios = list(verdict.ratios), parts(list(verdict.ratios.values()))
        timings = [*filter(lambda number: number is not None, verdict.timings)]
        self.rows.append(
            [pool.text(key_text(shown.kernel, shown.key)), *configs, verdict.word, whole, lengths, ratios, timings]
        )


_Sides: TypeAlias = "dict[str, dict[str, _Side]]"
"""By kernel and comparable key."""


def section(pair: list[Named], pool: Pool, places: Places) -> Html:
    """Return what changed from the first of two files to the second.

    Raises:
        UsageError: They are not two of a kind that can be compared.
    """
    if len(pair) != 2:  # noqa: PLR2004
        raise UsageError(f"--compare takes two files, and {len(pair)} were named", hint=_HINT)
    one, two = (named.held for named in pair)
    if isinstance(one, Artifact) and isinstance(two, Artifact):
        heads = table("Properties", ("Property", "A", "B", "A and B"), _heads(one, two))
        judge: _Judge = _Shipped((one.manifest, two.manifest), places, pool)
        kernels = _kernels(_of_artifact(one.manifest), _of_artifact(two.manifest), judge, pool)
        what = "If the configurations of a key differ, its times are those of one tuning record that has both."
        rest = _binaries(one.manifest, two.manifest)
    elif isinstance(one, TuningRecord) and isinstance(two, TuningRecord):
        heads = table("Properties", ("Property", "A", "B", "A and B"), _record_heads(one, two))
        judge = partial(_measured, one.objective)
        kernels = _kernels(_of_record(one, pool), _of_record(two, pool), judge, pool)
        what = "Times are those that each record has of its own choice."
        rest = Html("")
    else:
        raise UsageError("only two artifacts, or two tuning records, can be compared", hint=_HINT)
    named = choices.ids([kernel.name for kernel in kernels], "compared")
    listed = [_listed(kernel, pool, named[kernel.name]) for kernel in kernels]
    said = e(
        "p", f"{what} Ratios are B / A, weighted over the lengths as the objective weights them: below 1 is faster."
    )
    inner = (heads, said, _summary(kernels), Html("".join(listed)), rest)
    return e("section", e("h2", "What changed from A to B", id="compare-title"), *inner,
             id="compare", aria_labelledby="compare-title")  # fmt: skip


def _differs(rows: Iterable[tuple[str, object, object]]) -> list[tuple[str, str, str, str]]:
    return [(name, str(one), str(two), "same" if one == two else "differ") for name, one, two in rows]


def _heads(one: Artifact, two: Artifact) -> list[tuple[str, str, str, str]]:
    before, after = _head(one), _head(two)
    models = [{f"{row.name} TP {row.tp} {row.dtype}" for row in side.manifest.models} for side in (one, two)]
    shown = ("Models and shapes", _models(*models), _models(*models[::-1]))
    return _differs([*((name, before[name], after[name]) for name in before), shown])


def _models(mine: set[str], other: set[str]) -> str:
    """Return how many models and shapes one has, and those that the other lacks."""
    only = ", ".join(sorted(mine - other))
    return f"{len(mine)}{'; the other lacks ' * bool(only)}{only}{'; the same ones' * (mine == other)}"


def _head(artifact: Artifact) -> Mapping[str, object]:
    manifest, sizes = artifact.manifest, facts.sizes(artifact)
    cost, build = cost_of(manifest), manifest.build
    return {
        "Identifier": manifest.identifier,
        "SHA-256": artifact.sha256[:16],
        "Target": manifest.target.name,
        "Provider": f"{manifest.provider.distribution} {manifest.provider.version}",
        "Triton": f"{manifest.triton.version}, ptxas {manifest.triton.ptxas}",
        "Mode": manifest.mode,
        "Most tokens": f"{manifest.max_tokens:,}",
        "Most sequences": manifest.max_batch,
        "Workloads": ", ".join(manifest.workloads),
        "File": f"{sizes['file']:,} bytes",
        "Code": f"{cost.code:,} bytes",
        "Binaries": sum(len(kernel.binaries) for kernel in manifest.kernels),
        "Most local memory": f"{cost.local} bytes per thread",
        "Numerics": f"{manifest.numerics.status} {manifest.numerics.detail}".rstrip(),
        "Not covered": ", ".join(f"{gap.kernel}: {gap.reason}" for gap in manifest.not_covered) or "nothing",
        "Built by": f"{build.tool}, commit {build.commit or 'unknown'}{' with changes' * build.dirty}",
    }


def _record_heads(one: TuningRecord, two: TuningRecord) -> list[tuple[str, str, str, str]]:
    return _differs((
        ("Target", one.target, two.target),
        ("Provider", one.provider, two.provider),
        ("Triton", f"{one.triton}, ptxas {one.ptxas}", f"{two.triton}, ptxas {two.ptxas}"),
        ("Card", f"{one.device.name}, driver {one.device.driver}", f"{two.device.name}, driver {two.device.driver}"),
        ("By proxy", _proxy(one), _proxy(two)),
        ("Rounds", one.method.rounds, two.method.rounds),
        ("Objective", _goal(one.objective), _goal(two.objective)),
        ("Keys", _keys(one), _keys(two)),
        ("Measured by", one.tool, two.tool),
    ))  # fmt: skip


def _keys(record: TuningRecord) -> int:
    return sum(len(kernel.choices) for kernel in record.kernels)


def _proxy(record: TuningRecord) -> str:
    return f"PTX of {record.proxy.code} on {record.proxy.card}" if record.proxy else "no"


def _goal(goal: Objective) -> str:
    return ", ".join(f"{tokens}: {weight:g}" for tokens, weight in goal.weights.items()) + f"; bound {goal.bound:g}"


def _of_record(record: TuningRecord, pool: Pool) -> _Sides:
    found: _Sides = {}
    for kernel in record.kernels:
        for choice in kernel.choices:
            side = _Side(
                kernel=kernel.kernel,
                key=choice.key,
                config=kernel.candidates[choice.chosen],
                times=_line(kernel, choice, choice.chosen),
                timing=pool.timing(record, kernel, choice).number,
            )
            found.setdefault(kernel.kernel, {})[comparable(choice.key)] = side
    return found


def _of_artifact(manifest: Manifest) -> _Sides:
    return {
        kernel.name: {
            comparable(one.key): _Side(kernel=kernel.name, key=one.key, config=one.config) for one in kernel.choices
        }
        for kernel in manifest.kernels
    }


def _aligned(one: Mapping[str, _T], two: Mapping[str, _T]) -> dict[str, _T]:
    """Return the kernels of the second by the names of the first: another release may have them in another module."""
    own = [{name: name.partition(":")[2] for name in side} for side in (one, two)]
    counts = [Counter(names.values()) for names in own]
    first = {short: name for name, short in own[0].items() if counts[0][short] == counts[1][short] == 1}
    return {name if name in one else first.get(own[1][name], name): kernel for name, kernel in two.items()}


def _kernels(one: _Sides, two: _Sides, judge: _Judge, pool: Pool) -> list[_Kernel]:
    found, two = [], _aligned(one, two)
    for name in sorted(one.keys() | two.keys()):
        keys, kernel = (one.get(name, {}), two.get(name, {})), _Kernel(name=name)
        for key in dict.fromkeys([*keys[0], *keys[1]]):
            first, second = (side.get(key) for side in keys)
            kernel.add(first, second, judge(first, second), pool)
        found += [kernel] * bool(kernel.rows)
    return found


def _measured(goal: Objective, first: _Side | None, second: _Side | None) -> _Verdict:
    """Compare what two records measured of their own choices."""
    timings = tuple(side.timing for side in (first, second) if side)
    if first is None or second is None:
        return _Verdict(word=SECOND if first is None else FIRST, timings=timings)
    return _judged(first.times, second.times, goal, timings)


class _Shipped:
    """Compares the configurations of two artifacts by the times of one record that has both."""

    def __init__(self, manifests: tuple[Manifest, Manifest], places: Places, pool: Pool) -> None:
        self._transfers = [places.transfer(manifest) for manifest in manifests]
        self._digests = [{kernel.name: kernel.digest for kernel in manifest.kernels} for manifest in manifests]
        self._pool = pool

    def __call__(self, first: _Side | None, second: _Side | None) -> _Verdict:
        side, number = second or first, 1 if second else 0
        transfer, digests = self._transfers[number], self._digests[number]
        found = transfer.find(side.kernel, side.key, digests[side.kernel]) if transfer and side else None
        timings = (self._pool.timing(found.record, found.kernel, found.choice).number,) if found else ()
        if first is None or second is None:
            return _Verdict(word=SECOND if first is None else FIRST, timings=timings)
        if first.config == second.config:
            return _Verdict(word=SAME, timings=timings)
        if (
            found is None
            or not (found.own and found.exact)
            or not {first.config, second.config} <= set(found.kernel.candidates)
        ):
            return _Verdict(word=UNKNOWN, timings=timings)
        before, after = (
            _line(found.kernel, found.choice, found.kernel.candidates.index(side.config)) for side in (first, second)
        )
        return _judged(before, after, found.record.objective, timings)


def _line(kernel: MeasuredKernel, choice: MeasuredChoice, index: int) -> dict[int, Sample]:
    """Return the times of one candidate by tokens."""
    rows = samples_of(choice, len(kernel.candidates))
    return {tokens: sample for tokens, row in rows.items() if (sample := row[index]) is not None and sample.valid}


def _judged(
    one: Mapping[int, Sample], two: Mapping[int, Sample], goal: Objective, timings: tuple[int | None, ...]
) -> _Verdict:
    """Say whether the second is faster than the first, beyond what their noise explains."""
    tokens = sorted(one.keys() & two.keys())
    if not tokens:
        return _Verdict(word=UNKNOWN, timings=timings)
    shares = goal.shares(tokens)
    ratios = {count: min(two[count].us / one[count].us, MOST) for count in tokens}
    ratio = math.fsum(shares[count] * part for count, part in ratios.items())
    noise = math.hypot(*(
        shares[count] * part * math.hypot(one[count].noise / one[count].us, two[count].noise / two[count].us)
        for count, part in ratios.items()
    ))  # fmt: skip
    word = ALIKE if alike(max(ratio, 1), noise, min(ratio, 1), 0) else FASTER if ratio < 1 else SLOWER
    return _Verdict(word=word, ratio=ratio, ratios=ratios, timings=timings)


def _summary(kernels: list[_Kernel]) -> Html:
    words = [word for word in range(len(WORDS)) if any(kernel.counts[word] for kernel in kernels)]
    timed = any(kernel.ratios for kernel in kernels)
    rows: list[tuple[Content, ...]] = [
        (e("span", kernel.name.partition(":")[2], title=kernel.name), kernel.counts.total(), kernel.changed,
         *(kernel.counts[word] for word in words), *(_spread(kernel.ratios) if timed else ()))
        for kernel in kernels
    ]  # fmt: skip
    names = (WORDS[word][0].upper() + WORDS[word][1:] for word in words)
    ratios = ("Median ratio", "Minimum", "Maximum") if timed else ()
    headers = ("Kernel", "Keys", "Other configuration", *names, *ratios)
    shown = table("Keys by kernel", headers, rows, numeric=range(1, len(headers)))
    return shown if rows else e("p", "Neither has a choice.")


def _spread(ratios: list[float]) -> tuple[str, str, str]:
    if not ratios:
        return ("", "", "")
    return (f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f}", f"{max(ratios):.3f}")


def _listed(kernel: _Kernel, pool: Pool, name_of_link: str) -> Html:
    group = pool.group("compare", of=pool.text(kernel.name), rows=kernel.rows)
    said = ", ".join(f"{kernel.counts[word]} {WORDS[word]}" for word in range(len(WORDS)) if kernel.counts[word])
    module, _, name = kernel.name.partition(":")
    head = e("summary", e("h3", name, e("span", module, class_="module")), e("span", said, class_="count"))
    return e("details", head, e("div", class_="drawn"), class_="kernel", id=name_of_link, data_group=group)


def _binaries(one: Manifest, two: Manifest) -> Html:
    """Return how the binaries of each kernel changed."""
    sides = [{kernel.name: (kernel, manifest) for kernel in manifest.kernels} for manifest in (one, two)]
    sides[1] = _aligned(*sides)
    rows: list[tuple[Content, ...]] = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        first, second = (side.get(name) for side in sides)
        same = first and second and first[0].source_sha256 == second[0].source_sha256
        where = ("same" if same else "differs") if first and second else "only in A" if first else "only in B"
        cells = zip(_measures(first), _measures(second), strict=True)
        rows.append((e("span", name.partition(":")[2], title=name), where, *chain.from_iterable(cells)))
    names = ("Binaries", "Cubin bytes", "Most registers", "Most local bytes")
    headers = ("Kernel", "Source", *(f"{name}, {side}" for name in names for side in "AB"))
    return table("Binaries by kernel", headers, rows, numeric=range(2, len(headers)))


def _measures(side: tuple[PackedKernel, Manifest] | None) -> tuple[str, ...]:
    """Return binaries, bytes, registers and local memory of a kernel; nothing for one that is not there."""
    if side is None:
        return ("",) * 4
    kernel, manifest = side
    registers, local = (
        max((getattr(binary.resources, name) for binary in kernel.binaries), default=0)
        for name in ("registers", "local")
    )
    size = facts.cubin_bytes(kernel, manifest)
    return (str(len(kernel.binaries)), f"{size:,}", str(registers), str(local))

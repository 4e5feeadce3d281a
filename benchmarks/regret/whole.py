"""What a choice for each length could gain of whole calls of Kimi Delta Attention: prompts, and passes of training.

A trace of the installed provider says which autotuned kernels a call launches, and how often; tuning records say how
long each takes. Kernels that are not autotuned are in no record, and in no sum.
"""

from __future__ import annotations

import statistics
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, NamedTuple

from gdn_aot.catalogue.models import KDA, all_models, distinct, select_shapes
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import all_targets, get_target
from gdn_aot.machine import installed
from gdn_aot.records import tuning
from gdn_aot.records.verdict import derives
from regret.figures import entries, ships, times_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from gdn_aot.launches import KernelKey
    from gdn_aot.providers.workload import Call
    from gdn_aot.records.tuning import TuningRecord

LENGTHS = (512, 2048, 8192, 32768)
SIZES = (1, 2, 4, 8, 16, 32)
"""Of tensor parallelism."""
WORKLOADS = {
    "fla": ("transformers-kda-prefill", "transformers-kda-train", "layer-kda-prefill", "layer-kda-train"),
    "vllm": ("prefill",),
    "sglang": ("prefill",),
}
"""Whose calls are whole, of each provider."""
_USUAL = ((), ("gate",))
"""What FLA's calls have otherwise than ``kimi_linear``, of models that are known: nothing, or the type of the decay."""
_LACKING = 1
"""Kernels of a call that may be without a time."""


class Timed(NamedTuple):
    """Microseconds of one launch: of the choice, of the best that a build ships, of the best of all."""

    choice: float
    shipped: float
    all: float
    device: str


@dataclass(frozen=True)
class Traced:
    """What calls of one workload launch, of one shape and length."""

    workload: str
    model: str
    tp: int
    heads: int
    tokens: int
    calls: tuple[dict[KernelKey, int], ...]
    """How often each launches which key; those alike once."""


def tokens_of(call: Call) -> int:
    """Return the tokens of all prompts of a call."""
    given: dict[str, Any] = dict(call.arguments)
    if "groups" in given:
        return sum(requests * tokens for requests, _, tokens, *_ in given["groups"])
    return sum(given["packed"]) if given["packed"] else given["batch"] * given["tokens"]


def is_usual(call: Call) -> bool:
    """Say whether models of the catalogue make a call as it is."""
    given: dict[str, Any] = dict(call.arguments)
    return given.get("l2norm", True) and given.get("other", ()) in _USUAL


def traced(provider: str, target: str, models: Sequence[str], sizes: Sequence[int]) -> list[Traced]:
    """Return what the calls of models launch on a target, what is alike once; needs a process of its own."""
    from gdn_aot import providers, triton_internals
    from gdn_aot.tracing import stub
    from gdn_aot.triton_internals import interception

    stub.activate(get_target(target))
    module = providers.load(provider)
    launched: list[KernelKey] = []

    def on_autotune(tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(tuner.configs) == 1:
            return triton_internals.run_config(tuner, args, kwargs, tuner.configs[0])
        launched.append(triton_internals.looked_up(tuner, args, kwargs))
        return None

    shapes = distinct(select_shapes(models, sizes).shapes, paged=get_provider(provider).paged)
    shapes = tuple(shape for shape in shapes if not providers.lacking(module, shape))
    found, known = [], set()
    for name in WORKLOADS[provider]:
        workload = module.WORKLOADS[name]()
        for shape in (shape for shape in shapes if providers.makes(provider, workload, shape)):
            for tokens in LENGTHS:
                calls = []
                for call in workload.tune(shape, tokens, Limits(max_tokens=tokens, max_batch=1)):
                    if tokens_of(call) != tokens or not is_usual(call):
                        continue
                    launched.clear()
                    with interception.intercept(on_autotune, lambda *_: None):
                        workload.run(shape, call)
                    counted = Counter(launched)
                    if (place := (name, tokens, frozenset(counted.items()))) not in known:
                        known.add(place)
                        calls.append(dict(counted))
                found.append(Traced(name, shape.name, shape.tp, shape.heads, tokens, tuple(calls)))
    return found


def timing(records: Iterable[TuningRecord]) -> Callable[[KernelKey, int], Timed | None]:
    """Return what says how long a launch of a key takes at a length; None without a time of the choice that is shipped.

    That is the choice of the first of the records; the times are of the last that has them.
    """
    known: dict[KernelKey, list[Any]] = {}
    for record in records:
        for kernel, choice in entries(record):
            known.setdefault((kernel.kernel, choice.key), []).append((kernel, choice, record.device.name))

    @cache
    def timed(place: KernelKey, tokens: int) -> Timed | None:
        found = known.get(place, [])
        if not found or derives(found[0][1]):
            return None
        config = found[0][0].candidates[found[0][1].chosen]
        for kernel, choice, device in reversed(found):
            row = times_of(kernel, choice).get(tokens, {})
            if config in row:
                shipped = [us for one, us in row.items() if one == config or ships(kernel, choice, one)]
                return Timed(row[config], min(shipped), min(row.values()), device)
        return None

    return timed


def sums(steps: Sequence[Traced], timed: Callable[[KernelKey, int], Timed | None], device: str) -> list[dict[str, Any]]:
    """Return for each workload, shape and length how many times the best sum that of the choices is, in the worst call.

    Some keys do not have the heads, so that all shapes share the times of the one that was measured: ``shipped``
    (against the best that builds ship) and ``all`` (against the best of all) are the larger of two, with these times in
    full, and in proportion to the heads. ``lacks`` names the kernel that has no time at this length, if there is one,
    ``elsewhere`` those with times of another device.
    """
    counted: dict[tuple[int, frozenset[str]], list[dict[KernelKey, int]]] = {}
    most: dict[tuple[KernelKey, int], int] = {}
    for number, step in enumerate(steps):
        for call in step.calls:
            lacks = frozenset(_function(place) for place in call if timed(place, step.tokens) is None)
            if len(lacks) <= _LACKING:
                counted.setdefault((number, lacks), []).append(call)
                for place in call:
                    most[place, step.tokens] = max(most.get((place, step.tokens), 0), step.heads)
    found = []
    for (number, lacks), calls in counted.items():
        step, worst, elsewhere = steps[number], dict.fromkeys(("shipped", "all"), 0.0), set()
        for call in calls:
            parts = [
                (place, count, step.heads / most[place, step.tokens], us)
                for place, count in call.items()
                if (us := timed(place, step.tokens)) is not None
            ]
            elsewhere |= {_function(place) for place, *_, us in parts if us.device != device}
            for name, power in product(worst, (0, 1)):
                taken, best = (
                    sum(n * part**power * getattr(us, of) for _, n, part, us in parts) for of in ("choice", name)
                )
                worst[name] = max(worst[name], taken / best)
        row = {
            "workload": step.workload,
            "model": step.model,
            "tp": step.tp,
            "heads": step.heads,
            "tokens": step.tokens,
        }
        row |= {"lacks": sorted(lacks), "elsewhere": sorted(elsewhere), "calls": len(calls)}
        found.append(row | {name: round(value, 4) for name, value in worst.items()})
    return found


def _function(place: KernelKey) -> str:
    return place[0].partition(":")[2]


def measure(root: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sums of all records of installed releases that have keys of KDA, and ``earlier`` ones of others."""
    found = dict(earlier)
    models = [model.name for model in all_models() if model.family == KDA]
    for name in WORKLOADS:
        provider = get_provider(name)
        version = installed.version(provider.distribution)
        for target in all_targets() if version else ():
            folders = (root, root / tuning.SECOND, root / tuning.PROXY)
            paths = (tuning.record_path(folder, target.name, provider.distribution, version) for folder in folders)
            records = [record for path in paths if (record := tuning.load(path)) is not None]
            if any("kda" in kernel.kernel for record in records for kernel in record.kernels):
                found[f"{name} {version} {target}"] = of_records(records, models, SIZES)
    return found


def of_records(records: Sequence[TuningRecord], models: Sequence[str], sizes: Sequence[int]) -> dict[str, Any]:
    """Return what identifies the records of a target, in the order in which builds ask them, and the sums of calls."""
    last = records[-1]
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        steps = process.submit(traced, last.provider.name, last.target, models, sizes).result()
    return {
        "provider": str(last.provider),
        "target": last.target,
        "own": tuning.provenance(last),
        "devices": [record.device.name for record in records],
        "rows": sums(steps, timing(records), last.device.name),
    }


def table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a table: record, calls, models, what lacks, and the figures at each length."""
    found = []
    for one in results.values():
        groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in one["rows"]:
            groups.setdefault((row["workload"], *row["lacks"]), []).append(row)
        record = f"{one['provider']}, {one['target']}{' by proxy' if one['own'] == 'proxy' else ''}"
        for (workload, *lacks), rows in groups.items():
            words = "".join(f"without `{name}`" for name in lacks)
            cells = (_cell([row for row in rows if row["tokens"] == tokens]) for tokens in LENGTHS)
            found.append([record, f"`{workload}`", words, _shapes(rows), *cells])
    return found


def _shapes(rows: Collection[Mapping[str, Any]]) -> str:
    sizes: dict[str, dict[int, None]] = {}
    for row in rows:
        sizes.setdefault(row["model"], {})[row["tp"]] = None
    return "; ".join(f"{model} TP {', '.join(map(str, sorted(each)))}" for model, each in sizes.items())


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    shipped = [row["shipped"] for row in rows]
    return f"{statistics.median(shipped):.3f} / {max(shipped):.3f} / {max(row['all'] for row in rows):.3f}"

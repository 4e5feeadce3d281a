"""The regret of choices, computed from tuning records.

It is the time of a choice / the best time - 1, at a token count, among the candidates of its key that the record has a
time of at every token count.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.catalogue.models import GDN, all_models
from gdn_aot.catalogue.targets import all_targets, get_target
from gdn_aot.choosing.transfer import Transfer
from gdn_aot.records import tuning
from gdn_aot.records.objective import Sample, choose
from gdn_aot.records.verdict import is_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from gdn_aot.launches import Config
    from gdn_aot.records.tuning import MeasuredChoice, MeasuredKernel, TuningRecord

WARM = 64
"""Tokens of the call that autotuners are warmed by, as in vLLM."""
SHORTEST = 512
"""Tokens from which on prompts count in what is expected of a provenance: launching takes longer than shorter ones."""
FORWARD: Mapping[str, Mapping[str, Callable[[int, int, int, int], tuple[int, ...]]]] = {
    "fla": {
        "cumsum:chunk_local_cumsum_scalar_kernel": lambda h, hv, k, v: (1, hv),  # noqa: ARG005
        "chunk_fwd:chunk_gated_delta_rule_fwd_kkt_solve_kernel": lambda h, hv, k, v: (h, hv, k),  # noqa: ARG005
        "wy_fast:recompute_w_u_fwd_kernel": lambda h, hv, k, v: (h, hv, k, v),
        "chunk_delta_h:chunk_gated_delta_rule_fwd_kernel_h_blockdim64": lambda h, hv, k, v: (h, hv, k, v),
        "chunk_o:chunk_fwd_kernel_o": lambda h, hv, k, v: (h, hv, k, v),
    },
    "sglang": {  # the only one that it tunes
        "chunk_fwd:chunk_gated_delta_rule_fwd_kkt_solve_kernel": lambda h, hv, k, v: (hv, h, k),  # noqa: ARG005
    },
    "vllm": {
        "cumsum:chunk_local_cumsum_scalar_kernel": lambda h, hv, k, v: (1, hv),  # noqa: ARG005
        "chunk_scaled_dot_kkt:chunk_scaled_dot_kkt_fwd_kernel": lambda h, hv, k, v: (hv, k),  # noqa: ARG005
        "solve_tril:merge_16x16_to_64x64_inverse_kernel": lambda h, hv, k, v: (hv,),  # noqa: ARG005
        "wy_fast:recompute_w_u_fwd_kernel": lambda h, hv, k, v: (hv, k, v),  # noqa: ARG005
        "chunk_delta_h:chunk_gated_delta_rule_fwd_kernel_h_blockdim64": lambda h, hv, k, v: (hv, k, v),  # noqa: ARG005
        "chunk_o:chunk_fwd_kernel_o": lambda h, hv, k, v: (hv, k, v),  # noqa: ARG005
    },
}
"""By provider the autotuned kernels that one prompt launches, each with the last part of its module, as one of KDA may
have the same name, and how their autotune keys begin, from key heads, value heads and the dimensions of both."""
_CALLS = ("transformers-prefill(", "prefill(")
"""How the calls of a prompt begin; the provider's own layer, which no model of the catalogue has, calls otherwise."""
ALL = "all"

Times = dict[int, dict["Config", float]]
"""Tokens -> microseconds of the candidates that are eligible at every token count."""
Regrets = dict[int, list[float]]


def times_of(kernel: MeasuredKernel, choice: MeasuredChoice) -> Times:
    """Return the times of the eligible candidates of a key, in the order of the candidates."""
    rejected = {item.candidate for item in choice.rejected}
    timed = [index for index in range(len(kernel.candidates)) if all(row.us[index] is not None for row in choice.times)]
    return {
        row.tokens: {
            kernel.candidates[index]: us
            for index in timed
            if index not in rejected and (us := row.us[index]) is not None
        }
        for row in choice.times
    }


def entries(record: TuningRecord) -> Iterator[tuple[MeasuredKernel, MeasuredChoice]]:
    """Yield the kernels and choices of a record that a build would use."""
    for kernel in record.kernels:
        for choice in kernel.choices:
            if tuning.is_usable(choice, record.objective):
                yield kernel, choice


def regret(times: Times, config: Config | None) -> dict[int, float]:
    """Return the regret of a candidate at each token count; nothing if it is none of them."""
    return {tokens: row[config] / min(row.values()) - 1 for tokens, row in times.items() if config in row}


def ships(kernel: MeasuredKernel, choice: MeasuredChoice, config: Config) -> bool:
    """Say whether a build would take a candidate for what it spills."""
    return is_sound(choice.resources[kernel.candidates.index(config)] if choice.resources else None)


def chosen_by_default(kernel: MeasuredKernel, choice: MeasuredChoice, times: Times) -> Config | None:
    """Return the first candidate that is eligible and sound: of the provider's, else of the others; None if none is."""
    eligible = next(iter(times.values()))
    left = (config for config in kernel.candidates if config in eligible)
    return next((config for config in left if ships(kernel, choice, config)), None)


def chosen_at(kernel: MeasuredKernel, times: Times, tokens: int) -> Config | None:
    """Return the provider's candidate that is fastest at one token count; None if that was not measured."""
    own = [config for config in kernel.candidates[: kernel.offered] if config in times.get(tokens, {})]
    return min(own, key=lambda config: times[tokens][config]) if own else None


def transferred(transfer: Transfer, kernel: MeasuredKernel, choice: MeasuredChoice, times: Times) -> Config | None:
    """Return the first transferred choice that is eligible here and sound; None if nothing is known of the key."""
    eligible, count = next(iter(times.values())), kernel.offered
    offered, others = kernel.candidates[:count], kernel.candidates[count:]
    found = transfer.suggest(kernel.kernel, choice.key, offered, others, kernel.digest or "")
    configs = (one.config for one in found if one.config in eligible)
    return next((config for config in configs if ships(kernel, choice, config)), None)


def choosers(record: TuningRecord, others: Path, own: str) -> dict[str, Callable[..., Config | None]]:
    """Return, by provenance, what chooses for (kernel, choice, times) of a record.

    ``others`` has the measured records of other targets. Where nothing can be transferred, a build takes the default.
    """
    provider = record.provider
    transfer = Transfer(others, get_target(record.target), provider.distribution, provider.version)
    found: dict[str, Callable[..., Config | None]] = {
        own: lambda kernel, choice, _: kernel.candidates[choice.chosen],
        "transferred": lambda kernel, choice, times: (
            transferred(transfer, kernel, choice, times) or chosen_by_default(kernel, choice, times)
        ),
        "default": chosen_by_default,
        f"{WARM} tokens": lambda kernel, _, times: chosen_at(kernel, times, WARM),
    }
    if not any(others.iterdir()):
        del found["transferred"]
    return found


def summary(regrets: Regrets) -> dict[str, dict[str, float]]:
    """Return median, 90th percentile and maximum of regrets at each token count, and over all."""
    rows = {str(tokens): values for tokens, values in sorted(regrets.items()) if values}
    rows[ALL] = [value for values in rows.values() for value in values]
    return {
        name: {
            "count": len(values),
            "median": round(statistics.median(values), 4),
            "p90": round(sorted(values)[int(0.9 * (len(values) - 1) + 0.5)], 4),
            "max": round(max(values), 4),
        }
        for name, values in rows.items()
        if values
    }


def collect(rows: Iterable[Mapping[int, float]]) -> Regrets:
    """Return the values of several keys by token count."""
    found: Regrets = {}
    for row in rows:
        for tokens, value in row.items():
            found.setdefault(tokens, []).append(value)
    return found


def prompt_keys(record: TuningRecord, sizes: tuple[int, int, int, int]) -> list[tuple[MeasuredKernel, MeasuredChoice]]:
    """Return the keys of one dense prompt without a state, one for each kernel; none if one is lacking."""
    found = []
    for name, begins in FORWARD[record.provider.name].items():
        prefix = begins(*sizes)
        alike = [
            (kernel, choice)
            for kernel, choice in entries(record)
            if kernel.kernel.rpartition(".")[2] == name and choice.key[: len(prefix)] == prefix
        ]
        if not alike:
            return []
        found.append(min(alike, key=lambda pair: _unlike_a_prompt(pair[1])))
    return found


def _unlike_a_prompt(choice: MeasuredChoice) -> tuple[bool, int, int, str]:
    """Return what sorts keys: those of the models' own calls, without indices of packed prompts, without states."""
    indices = sum(part in ("torch.int32", "torch.int64") for part in choice.key)
    return not choice.call.startswith(_CALLS), indices, len(choice.key), repr(choice.key)


def models() -> dict[tuple[int, int, int, int], list[str]]:
    """Return the models of the catalogue with Gated Delta Net at tensor-parallel size 1, by what their kernels see."""
    found: dict[tuple[int, int, int, int], list[str]] = {}
    for model in (model for model in all_models() if model.family == GDN):
        found.setdefault((model.heads, model.v_heads, model.k_dim, model.v_dim), []).append(model.name)
    return found


def forward(record: TuningRecord, choose_by: Mapping[str, Callable[..., Config | None]]) -> dict[str, Any]:
    """Return by model, provenance and token count how much longer all kernels of one prompt take than the best ones."""
    found: dict[str, Any] = {}
    for sizes, names in models().items():
        keys = [(kernel, choice, times_of(kernel, choice)) for kernel, choice in prompt_keys(record, sizes)]
        if not keys:
            continue
        lengths = sorted(set.intersection(*(set(times) for _, _, times in keys)))
        best = {tokens: sum(min(times[tokens].values()) for _, _, times in keys) for tokens in lengths}
        rows: dict[str, Any] = {}
        for provenance, chosen in choose_by.items():
            configs = [chosen(*key) for key in keys]
            if all(
                config in times[tokens]
                for config, (_, _, times) in zip(configs, keys, strict=True)
                for tokens in lengths
            ):
                taken = {
                    tokens: sum(times[tokens][config] for config, (_, _, times) in zip(configs, keys, strict=True))
                    for tokens in lengths
                }
                rows[provenance] = {str(tokens): round(taken[tokens] / best[tokens] - 1, 4) for tokens in lengths}
        found[" ".join(map(str, sizes))] = {
            "models": names,
            "best_us": {str(tokens): round(best[tokens], 1) for tokens in lengths},
            "regret": rows,
        }
    return found


def of_target(record: TuningRecord, own: str, measured: Sequence[TuningRecord]) -> dict[str, Any]:
    """Return what each provenance costs on the target of a record; ``measured`` are the records of cards."""
    alike = (record.provider.distribution, record.provider.version)
    others = [one for one in measured if one.target != record.target]
    with tempfile.TemporaryDirectory(prefix="gdn-aot-regret-") as folder:
        for one in others:
            if (one.provider.distribution, one.provider.version) == alike:
                tuning.save(one, tuning.record_path(Path(folder), one.target, *alike))
        choose_by = choosers(record, Path(folder), own)
        rows: dict[str, list[dict[int, float]]] = {name: [] for name in choose_by}
        for kernel, choice in entries(record):
            times = times_of(kernel, choice)
            for name, chosen in choose_by.items():
                rows[name].append(regret(times, chosen(kernel, choice, times)))
        return {
            "provider": record.provider.name,
            "target": record.target,
            "own": own,
            "choices": {name: summary(collect(found)) for name, found in rows.items()},
            "forward": forward(record, choose_by),
        }


def held_out(record: TuningRecord) -> dict[str, Any]:
    """Return what is lost where one model's keys are transferred from those of the others in the same record."""
    rows, asked, known = [], 0, 0
    version = (record.provider.distribution, record.provider.version)
    kernels = FORWARD[record.provider.name]
    for sizes in models():
        prefixes = {name: begins(*sizes) for name, begins in kernels.items()}
        out = [
            (kernel, choice)
            for kernel, choice in entries(record)
            if (prefix := prefixes.get(kernel.kernel.rpartition(".")[2])) and choice.key[: len(prefix)] == prefix
        ]
        if not out:
            continue
        rest = tuning.without(record, {(kernel.kernel, choice.key) for kernel, choice in out})
        with tempfile.TemporaryDirectory(prefix="gdn-aot-regret-") as folder:
            tuning.save(rest, tuning.record_path(Path(folder), record.target, *version))
            transfer = Transfer(Path(folder), get_target(record.target), *version)
            for kernel, choice in out:
                times = times_of(kernel, choice)
                found = transferred(transfer, kernel, choice, times)
                asked, known = asked + 1, known + (found is not None)
                rows.append(regret(times, found or chosen_by_default(kernel, choice, times)))
    return {"keys": asked, "known": known, "regret": summary(collect(rows))}


def compare(choosing: TuningRecord, scoring: TuningRecord) -> dict[str, Any]:
    """Return what the choices of one record cost by the times of another, among keys and candidates of both."""
    theirs = {(kernel.kernel, choice.key): times_of(kernel, choice) for kernel, choice in entries(scoring)}
    rows = []
    for kernel, choice in entries(choosing):
        mine, other = times_of(kernel, choice), theirs.get((kernel.kernel, choice.key), {})
        lengths = [tokens for tokens in mine if tokens in other]
        if not lengths:
            continue
        common = [config for config in mine[lengths[0]] if config in other[lengths[0]]]
        if len(common) < 2:  # there is nothing to choose
            continue
        samples = {tokens: [Sample(mine[tokens][config], 0.0) for config in common] for tokens in lengths}
        verdict = choose(samples, [()] * len(common), choosing.objective)
        assert verdict is not None  # noqa: S101 - all have a time
        scored = {tokens: {config: other[tokens][config] for config in common} for tokens in lengths}
        rows.append(regret(scored, common[verdict.chosen]))
    return {"keys": len(rows), "regret": summary(collect(rows))}


def expected(targets: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what a prompt of `SHORTEST` tokens or more takes longer by each provenance, over targets and models."""
    found: dict[str, list[float]] = {}
    for target in targets:
        for model in target["forward"].values():
            for provenance, row in model["regret"].items():
                found.setdefault(provenance, []).extend(row[name] for name in row if int(name) >= SHORTEST)
    return {
        name: {
            "targets": len({one["target"] for one in targets if name in one["choices"]}),
            **summary({0: values})[ALL],
        }
        for name, values in found.items()
        if values
    }


def described(record: TuningRecord, own: str) -> dict[str, Any]:
    """Return what a figure is of."""
    return {
        "target": record.target,
        "provenance": own,
        "provider": str(record.provider),
        "device": record.device.name,
        "driver": record.device.driver,
        "triton": record.triton,
        "tool": record.tool,
    }


def read(root: Path) -> dict[str, list[TuningRecord]]:
    """Return the records below a root but those of second GPUs, by provenance, in the order of targets."""
    places = {"measured": root, "proxy": root / tuning.PROXY}
    return {
        own: [
            record
            for target in all_targets()
            for path in sorted((place / target.name).glob("*.json"))
            if (record := tuning.load(path, target=target.name)) is not None
        ]
        for own, place in places.items()
    }


def shipped(root: Path, judge: TuningRecord) -> dict[str, Any]:
    """Return what a build's choices for the target of another record cost by its times, against the provider's own.

    ``own`` are keys that the target's records below the root have, ``near`` those that take the choice of the nearest;
    ``untimed`` counts those whose choice the judge has no time of, as those of a wide search.
    """
    provider = judge.provider
    transfer = Transfer(root, get_target(judge.target), provider.distribution, provider.version)
    known = {(kernel.kernel, choice.key) for record in transfer.own() for kernel, choice in entries(record)}
    derived = {one.kernel: one.candidates[one.offered :] for record in transfer.own() for one in record.kernels}
    rows: dict[str, list[dict[int, float]]] = {"own": [], "near": []}
    untimed = dict.fromkeys(rows, 0)
    for kernel, choice in entries(judge):
        times = times_of(kernel, choice)
        offered = kernel.candidates[: kernel.offered]
        own = {tokens: {one: us for one, us in row.items() if one in offered} for tokens, row in times.items()}
        others = derived.get(kernel.kernel, ())
        found = transfer.suggest(kernel.kernel, choice.key, offered, others, kernel.digest or "")
        kind = "own" if (kernel.kernel, choice.key) in known else "near"
        if found and found[0].config in next(iter(own.values())):
            rows[kind].append(regret(own, found[0].config))
        else:
            untimed[kind] += 1
    return {
        kind: {"keys": len(found), "untimed": untimed[kind], "regret": summary(collect(found))}
        for kind, found in rows.items()
    }


def measure(root: Path, pairs: Sequence[tuple[str, Path, Path]] = (), judge: Path | None = None) -> dict[str, Any]:
    """Return all figures of the records below a root, and of pairs of records with what each is.

    ``judge`` is a record of a card that says what the choices below the root cost on it.
    """
    found = read(root)
    each = [(record, own) for own, records in found.items() for record in records]
    compared = []
    for label, *paths in pairs:
        one, two = (tuning.FORM.parse(path.read_bytes(), name=str(path)) for path in paths)
        sides = [{**described(a, ""), **compare(a, b)} for a, b in ((one, two), (two, one))]
        compared.append({"label": label, "sides": sides})
    targets = [of_target(record, own, found["measured"]) for record, own in each]
    return {
        "records": [described(record, own) for record, own in each],
        "expected": expected(targets),
        "targets": targets,
        "held_out": [{**described(record, own), **held_out(record)} for record, own in each],
        "pairs": compared,
        "shipped": shipped(root, tuning.FORM.parse(judge.read_bytes(), name=str(judge))) if judge else {},
    }

"""From the records of processes to a summary, and to what was to be reached."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.records.tuning import TuningRecord

Records = dict[str, dict[str, Any]]
GDN_START_SECONDS = 0.3
TUNED_KERNELS = 6
"""Autotuned kernels of a prefill."""


def summarize(records: Records) -> dict[str, dict[str, Any]]:
    """Return the figures of each case."""
    return {name: _summary(record) for name, record in records.items()}


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    process = record.get("process", {})
    firsts = {row["tokens"]: row["first_token"] for row in reversed(record["requests"]) if row["number"] == 0}
    steady: dict[int, list[float]] = {}
    for row in record["requests"]:
        if row["number"]:
            steady.setdefault(row["tokens"], []).append(row["first_token"])
    return {
        "error": record["error"],
        "ready_seconds": record.get("ready"),
        "warm_up_seconds": record.get("warm_up"),
        "gdn_compiled": process.get("compiled_gdn"),
        "gdn_benchmarks": process.get("benchmarks_gdn"),
        "other_compiled": process.get("compiled_other"),
        "other_compiled_after_start": sum(row["compiled_other"] for row in record["requests"]),
        "kv_bytes": record.get("kv_bytes"),
        "kv_blocks": record.get("kv_blocks"),
        "free_ready_mib": _mib(record.get("free_ready")),
        "free_after_mib": _mib(record.get("free_after")),
        "first_token_ms": {tokens: 1e3 * seconds for tokens, seconds in firsts.items()},
        "steady_ms": {tokens: 1e3 * statistics.median(found) for tokens, found in steady.items()},
        "tuned_us_per_layer": {tokens: found["tuned"] for tokens, found in record["prefill"].items()},
        "gdn_us_per_layer": {tokens: found["gdn"] for tokens, found in record["prefill"].items()},
        "by_record": record.get("by_record"),
    }


def _mib(value: int | None) -> float | None:
    return None if value is None else round(value / (1 << 20), 1)


def by_record(choices: dict[str, list[dict[str, Any]]], tuning: TuningRecord, tokens: int = 8192) -> dict[str, Any]:
    """Return what a tuning record says of the configurations that a process used.

    Args:
        choices: Of each autotuned kernel, the keys and the configurations that it has for them.
        tuning: The record.
        tokens: The length of the prompt.

    Returns:
        The record's device; how many of the kernels are in it; and the sums of their microseconds, with these
        configurations and with the best one of each. Nothing if none of them is in it.
    """
    from gdn_aot.tracing.recorder import triton_config

    rows = {
        (row.kernel.rpartition(":")[2], choice.key): (row, choice) for row in tuning.kernels for choice in row.choices
    }
    chosen, best = [], []
    for name, used in ((name, one) for name, ones in choices.items() for one in ones):
        row, choice = rows.get((name, tuple(used["key"])), (None, None))
        if row is None or choice is None:
            continue
        (us,) = (times.us for times in choice.times if times.tokens == tokens)
        mine = dict(zip(map(str, map(triton_config, row.candidates)), us, strict=True)).get(used["config"])
        if mine is not None:
            chosen.append(mine)
            best.append(min(filter(None, us)))
    if not chosen:
        return {}
    return {"device": tuning.device.name, "kernels": len(chosen), "chosen_us": sum(chosen), "best_us": sum(best)}


def goals(records: Records) -> list[dict[str, Any]]:
    """Return what was to be reached and whether it was; None where a case is missing."""
    found = summarize(records)
    return [
        *(
            {"what": what, "met": _met(test, [found.get(name) for name in cases.split()])}
            for what, cases, test in GOALS
        ),
        {"what": "all cases that ran answer alike", "met": _same_tokens(records)},
    ]


GOALS: list[tuple[str, str, Callable[..., bool]]] = [
    ("no GDN kernel is compiled in (d)", "d", lambda d: d["gdn_compiled"] == 0),
    ("no GDN kernel is benchmarked in (d)", "d", lambda d: d["gdn_benchmarks"] == 0),
    (
        f"GDN takes at most {GDN_START_SECONDS} s of the start of (d)",
        "d",
        lambda d: d["warm_up_seconds"] <= GDN_START_SECONDS,
    ),
    (
        "the autotuned kernels are at least 1.2 times faster at 8192 tokens in (d) than in (b)",
        "b d",
        lambda b, d: b["tuned_us_per_layer"]["8192"] >= 1.2 * d["tuned_us_per_layer"]["8192"],
    ),
    (
        "and their times together within 2 % of the best of each together, by the tuning record of this card",
        "d",
        lambda d: (
            d["by_record"]["kernels"] == TUNED_KERNELS
            and d["by_record"]["chosen_us"] <= 1.02 * d["by_record"]["best_us"]
        ),
    ),
    ("the KV cache of (d) is not smaller than that of (c)", "c d", lambda c, d: d["kv_bytes"] >= c["kv_bytes"]),
    (
        "the first prompt of (a), 20 tokens, fails for lack of memory",
        "a",
        lambda a: a["ready_seconds"] > 0 and not a["first_token_ms"] and _is_out_of_memory(str(a["error"])),
    ),
    (
        "20 and 46 tokens are answered in (d-tight)",
        "d-tight",
        lambda d: d["error"] is None and set(d["first_token_ms"]) == {20, 46},
    ),
    (
        "no kernel is compiled after the start of (e), and no GDN kernel at all",
        "e",
        lambda e: e["other_compiled_after_start"] + e["gdn_compiled"] == 0,
    ),
    (
        "the first request of (e), 50 tokens, takes at most 1.5 times a later one",
        "e",
        lambda e: e["first_token_ms"][50] <= 1.5 * e["steady_ms"][50],
    ),
]
"""What was to be reached, of which cases, and how it is told from their summaries."""


def _is_out_of_memory(error: str) -> bool:
    """Say whether PyTorch (``OutOfMemoryError``) or Triton (``Triton Error [CUDA]: out of memory``) had no memory."""
    return "outofmemory" in error.lower().replace(" ", "")


def _met(test: Callable[..., bool], rows: list[dict[str, Any] | None]) -> bool | None:
    if any(row is None for row in rows):
        return None
    try:
        return bool(test(*rows))
    except (KeyError, TypeError):  # the case ended before it came to that
        return False


def _same_tokens(records: Records) -> bool | None:
    """Say whether prompts that several cases had were answered alike; None if there is none.

    Prompts are drawn in order, so that only cases with the same lengths before a request have the same one.
    """
    answers: dict[tuple[tuple[int, int], ...], set[tuple[int, ...]]] = {}
    counted = 0
    for record in records.values():
        history: tuple[tuple[int, int], ...] = ()
        for row in record["requests"]:
            history += ((row["tokens"], row["number"]),)
            known = answers.setdefault(history, set())
            counted += bool(known)
            known.add(tuple(row["output"]))
    return all(len(known) == 1 for known in answers.values()) if counted else None


def table(records: Records, says: dict[str, str]) -> str:
    """Return the summary as text."""
    lines = []
    for name, row in summarize(records).items():
        lines.append(f"({name}) {says.get(name, '')}" + (f": {row['error']}" if row["error"] else ""))
        lines += [
            f"    {key}: {_shown(value)}" for key, value in row.items() if key != "error" and value not in (None, {})
        ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def goals_text(found: list[dict[str, Any]]) -> str:
    words = {True: "met", False: "MISSED", None: "not run"}
    return "\n".join(f"{words[goal['met']]:>8}  {goal['what']}" for goal in found)

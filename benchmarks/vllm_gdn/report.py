"""From the records of processes to a summary, and to what was to be reached."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from harness import goal, summary_text

from vllm_gdn.plan import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

Records = dict[str, dict[str, Any]]
GDN_START_SECONDS = 0.3


def summarize(records: Records) -> dict[str, dict[str, Any]]:
    """Return the figures of each case."""
    return {name: _summary(record) for name, record in records.items()}


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    process = record.get("process", {})
    taken: dict[int, list[float]] = {}
    for row in record["requests"]:
        taken.setdefault(row["tokens"], []).append(1e3 * row["first_token"])
    return {
        "error": record["error"],
        "artifacts": [f"{one['identifier']} {one['sha256'][:16]}" for one in record.get("artifacts", ())],
        "ready_seconds": record.get("ready"),
        "answered_first_seconds": record.get("answered_first"),
        "warm_up_seconds": record.get("warm_up"),
        "gdn_compiled": process.get("compiled_gdn"),
        "gdn_benchmarks": process.get("benchmarks_gdn"),
        "other_compiled": process.get("compiled_other"),
        "compile_seconds": process.get("compile_seconds"),
        "other_compiled_after_start": sum(row["compiled_other"] for row in record["requests"]),
        "kv_bytes": record.get("kv_bytes"),
        "kv_blocks": record.get("kv_blocks"),
        "free_ready_mib": _mib(record.get("free_ready")),
        "free_after_mib": _mib(record.get("free_after")),
        "first_token_ms": {tokens: found[0] for tokens, found in taken.items()},
        "steady_ms": {tokens: statistics.median(found[1:]) for tokens, found in taken.items() if found[1:]},
        "tuned_us_per_layer": {tokens: found["tuned"] for tokens, found in record["prefill"].items()},
        "gdn_us_per_layer": {tokens: found["gdn"] for tokens, found in record["prefill"].items()},
    }


def _mib(value: int | None) -> float | None:
    return None if value is None else round(value / (1 << 20), 1)


def _compiles_nothing(row: dict[str, Any]) -> bool:
    return row["error"] is None and bool(row["gdn_compiled"] + row["other_compiled"] == 0)


def _deployed(case: str, warm: str, start: float, first: float) -> tuple[tuple[str, str, Callable[..., bool]], ...]:
    """Return what a start with a deployment's artifact is to reach, beside a warm one of vLLM alone."""
    return (
        (
            f"({case}) is ready within {start} times the seconds of ({warm})",
            f"{case} {warm}",
            lambda it, other: it["ready_seconds"] <= start * other["ready_seconds"],
        ),
        (f"no kernel is compiled in ({case})", case, _compiles_nothing),
        (
            f"the first request of ({case}), 50 tokens, takes at most {first:.0f} times a later one",
            case,
            lambda it: it["first_token_ms"][50] <= first * it["steady_ms"][50],
        ),
        (
            f"the KV cache of ({case}) has no fewer blocks than that of ({warm})",
            f"{case} {warm}",
            lambda it, other: it["kv_blocks"] >= other["kv_blocks"],
        ),
    )


GOALS: tuple[tuple[str, str, Callable[..., bool]], ...] = (
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
    *_deployed("f", "warm", 1.15, 2),
    *_deployed("e-graphs", "warm-graphs", 1.3, 5),
    *_deployed("e-graphs-packed", "warm-graphs", 1.3, 5),
    *((f"no kernel is compiled in (f-{kind})", f"f-{kind}", _compiles_nothing) for kind in KINDS),
)
"""What was to be reached, of which cases, and how it is told from their summaries."""


def goals(records: Records) -> list[dict[str, Any]]:
    """Return what was to be reached and whether it was; None where a case is missing."""
    found = summarize(records)
    judged = [goal(what, cases, _met(test, [found.get(name) for name in cases.split()])) for what, cases, test in GOALS]
    return [*judged, goal("all cases that ran answer alike", " ".join(records), _same_tokens(records))]


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

    Prompts are drawn in order, so that only cases with the same lengths before a request have the same one. With CUDA
    graphs Inductor's kernels compute some of what others do in eager mode, so that these are compared by themselves.
    Deployments of other kinds are compared with nothing.
    """
    answers: dict[tuple[tuple[int, int], ...], list[list[int]]] = {}
    kinds = {f"f-{kind}" for kind in KINDS}
    for record in (record for name, record in records.items() if name not in kinds):
        history: tuple[tuple[int, int], ...] = ((record.get("graphs", False), 0),)
        for row in record["requests"]:
            history += ((row["tokens"], row["number"]),)
            answers.setdefault(history, []).append(row["output"])
    several = [known for known in answers.values() if len(known) > 1]
    return all(one == known[0] for known in several for one in known) if several else None


def table(records: Records, says: dict[str, str]) -> str:
    """Return the summary as text."""
    return summary_text(summarize(records), says)

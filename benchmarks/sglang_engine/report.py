"""From the records of processes to a summary, and to what was to be reached."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness import goal, summary_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Records = dict[str, dict[str, Any]]
_WORK = ("compiled", "benchmarked")
REFERENCE = "plain"
"""The case with whose answers the others are compared."""
_STATES = re.compile(r"max_mamba_cache_size: (\d+)")
_LOADED = re.compile(r"gdn-aot: (loaded \d.*)")
_TOKENS = re.compile(r"max_total_num_tokens=(\d+)")


def read(record: dict[str, Any], counts: Path, log: str) -> None:
    """Add to a record what its processes counted, at the start and in each request, and what the log says.

    That is the size of the pools, and what gdn-aot loaded before them.
    """
    events, processes = [], sorted(counts.glob("*.jsonl"))
    for path in processes:
        events += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    begins = [row["begun"] for row in record["requests"]]
    record["counting_processes"] = len(processes)
    for number, row in enumerate([record, *record["requests"]]):
        after, before = ([float("-inf"), *begins][number], [*begins, float("inf")][number])
        row["counts"] = _counts([event for event in events if after <= event["at"] < before])
    looks = [json.loads(line) for path in counts.glob("*.looks") for line in path.read_text().splitlines()]
    if looks:
        record["profile"] = profile(record["requests"], looks)
    for name, pattern in (("pool_states", _STATES), ("pool_tokens", _TOKENS)):
        if record.get(name) is None and (said := pattern.search(log)):
            record[name] = int(said[1])
    record["loaded"] = _LOADED.findall(log)


_WHOSE = (
    ("torch.compile", ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx", "torch._subclasses")),
    ("Triton", ("triton",)),
    ("gdn-aot", ("gdn_aot",)),
    ("imports", ("importlib", "_frozen_importlib", "_frozen_importlib_external")),
    ("SGLang and PyTorch", ("sglang",)),
)
"""In whose code a look finds a thread: whose module has the innermost frame that is of any of them."""
_SHOWN = 0.005
"""Seconds from which on a place is named."""


def profile(requests: list[dict[str, Any]], looks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return where a scheduler was in the requests of each sample.

    Returns:
        By the name of the sample the number of its ``requests``, their ``seconds`` together, and of these the seconds
        in whose code (``in``) and ``at`` which line: that of SGLang, and the innermost one.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({row["sample"] for row in requests} - {""}):
        rows = [row for row in requests if row["sample"] == name]
        whose: Counter[str] = Counter()
        at: Counter[str] = Counter()
        for look in looks:
            if any(row["begun"] <= look["at"] < row["begun"] + row["seconds"] for row in rows):
                whose[_whose(look["stack"])] += look["seconds"]
                at[_line(look["stack"])] += look["seconds"]
        found[name] = {
            "requests": len(rows),
            "seconds": sum(row["seconds"] for row in rows),
            "in": dict(whose.most_common()),
            "at": {place: seconds for place, seconds in at.most_common() if seconds >= _SHOWN},
        }
    return found


def _whose(stack: list[str]) -> str:
    for frame in reversed(stack):
        for name, modules in _WHOSE:
            if frame.startswith(tuple(f"{module}{end}" for module in modules for end in ".:")):
                return name
    return "other"


def _line(stack: list[str]) -> str:
    engine = [frame for frame in stack if frame.startswith("sglang.")]
    return " > ".join(dict.fromkeys(engine[-1:] + stack[-1:]))


def _counts(events: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = Counter(f"{event['kind']}_{'gdn' if event['gdn'] else 'other'}" for event in events)
    names = sorted({event["kernel"] for event in events if event["kind"] == "compiled"})
    return {**kinds, "compile_seconds": sum(event["ms"] for event in events) / 1e3, "names": names}


def summarize(records: Records) -> dict[str, dict[str, Any]]:
    """Return the figures of each case."""
    return {name: _summary(record, records.get(REFERENCE)) for name, record in records.items()}


def _summary(record: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, Any]:
    start, later = record["counts"], [row["counts"] for row in record["requests"]]
    kinds = (*_WORK, "built", "found")
    taken: dict[str, dict[int, list[float]]] = {"": {}, "of_8_": {}}
    """For one new token and for eight, by the length of a prompt that was sent alone."""
    for row in filter(_alone, record["requests"]):
        if row.get("sample") == "answers":  # looking takes time
            continue
        taken["of_8_" if row["new"] > 1 else ""].setdefault(row["lengths"][0], []).append(1e3 * row["seconds"])
    times: dict[str, dict[int, float]] = {}
    for name, lengths in taken.items():
        times[f"first_{name}ms"] = {length: found[0] for length, found in lengths.items()}
        times[f"steady_{name}ms"] = {n: statistics.median(found[1:]) for n, found in lengths.items() if found[1:]}
    ready, yards = record.get("ready_at"), [row["yard_ms"] for row in record["requests"] if "yard_ms" in row]
    return {
        "error": record["error"],
        "ready_seconds": ready and ready - record["started"],
        **{f"{kind}_at_start": _sum([start], kind) for kind in kinds},
        **{f"{kind}_later": _sum(later, kind) for kind in kinds},
        **{f"gdn_{kind}": _sum([start, *later], kind, ("gdn",)) for kind in _WORK},
        "compile_seconds": sum(counts["compile_seconds"] for counts in (start, *later)),
        "pool_tokens": record.get("pool_tokens"),
        "pool_states": record.get("pool_states"),
        **times,
        "yard_ms": statistics.median(yards) if yards else None,
        "answers_alike": alike(record, reference),
    }


def _alone(row: dict[str, Any]) -> bool:
    """Say whether it was one prompt whose answer is not drawn: those are timed, and compared."""
    return len(row["lengths"]) == 1 and not row.get("temperature")


def _sum(rows: list[dict[str, Any]], kind: str, kernels: tuple[str, ...] = ("gdn", "other")) -> int:
    return sum(row.get(f"{kind}_{one}", 0) for row in rows for one in kernels)


def alike(record: dict[str, Any], reference: dict[str, Any] | None) -> bool | None:
    """Say whether prompts that were sent alone are answered as in the reference; None if there is none to compare.

    Prompts that are sent together are answered in batches that follow from when each came, so they are left out, and
    so are answers that are drawn.
    """
    answers = [
        {(row["lengths"][0], row["number"], row["new"]): row["output"] for row in filter(_alone, one["requests"])}
        for one in (record, reference or {"requests": []})
    ]
    both = answers[0].keys() & answers[1].keys()
    return all(answers[0][key] == answers[1][key] for key in both) if both else None


GOALS: tuple[tuple[str, str, Callable[..., bool]], ...] = (
    (
        "no GDN kernel is compiled or benchmarked in (aot)",
        "aot",
        lambda it: it["gdn_compiled"] + it["gdn_benchmarked"] == 0,
    ),
    (
        "no kernel at all is compiled or benchmarked in (captured)",
        "captured",
        lambda it: not any(it[f"{kind}_{when}"] for kind in _WORK for when in ("at_start", "later")),
    ),
    (
        "the first request of (captured), 50 tokens, takes at most 2 times a later one",
        "captured",
        lambda it: it["first_ms"][50] <= 2 * it["steady_ms"][50],
    ),
    *(
        (f"({name}) answers what ({REFERENCE}) does", name, lambda it: it["answers_alike"] is True)
        for name in ("aot", "warm", "captured")
    ),
)
"""What was to be reached, of which case, and how it is told from its summary."""


def goals(records: Records) -> list[dict[str, Any]]:
    """Return what was to be reached and whether it was; None where the case is missing."""
    found = summarize(records)
    return [goal(what, case, _met(test, found[case]) if case in found else None) for what, case, test in GOALS]


def _met(test: Callable[..., bool], row: dict[str, Any]) -> bool:
    try:
        return not row["error"] and bool(test(row))
    except (KeyError, TypeError):  # the case ended before it came to that
        return False


def table(records: Records, says: dict[str, str]) -> str:
    """Return the summary as text."""
    return summary_text(summarize(records), says)

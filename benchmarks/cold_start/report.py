"""From records to medians, to the goals that they meet or miss, and to a table."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from harness import goal

from cold_start import pairs
from cold_start.plan import CALLS, PAIRS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TITLES = {
    "a-first": "(a) empty Triton cache",
    "b": "(b) warm Triton cache, as FLA leaves it",
    "c-first": "(c) FLA_CACHE_MODE=strict, empty Triton cache",
    "c": "(c) FLA_CACHE_MODE=strict, next start",
    "d-first": "(d) gdn-aot seed, first start",
    "d": "(d) gdn-aot seed, next start",
    "e": "(e) gdn-aot loader",
    "nocc": "(e) gdn-aot loader, no C compiler",
    "preload": "(e) gdn-aot loader, after preload",
    "preload-pool": "(e) after preload(tokens=4096)",
    "f": "(f) floor",
    "e-torch": "(e) gdn-aot loader, after PyTorch's own work",
    "f-torch": "(f) floor, after PyTorch's own work",
}
"""State -> what the table calls it, in the table's order."""
_NAMES = {"fla": "FLA", "sglang": "SGLang", "vllm": "vLLM"}
COLUMNS = {
    "second_ms": "2nd, ms",
    "steady_ms": "steady, ms",
    "compiled": "compiled",
    "found": "from cache",
    "benchmarked": "benchmarked",
    "built": "C builds",
    "modules": "modules",
    "torch_peak_mib": "PyTorch peak, MiB",
    "device_outside_torch_mib": "other device, MiB",
    "host_growth_mib": "host, MiB",
}
"""Measurements of the table, beside the first calls."""
_SHARE, _TWICE = 0.05, 2.0
"""Part of (b) that (e) may take; times a steady call that a first one may take after preload."""
_SLOWER = 1.05
"""Times the time of (c), which is plain Triton with the same configurations, that a steady call of (e) may take."""


def derived(document: dict[str, Any]) -> dict[str, Any]:
    """Return ``summary``, ``pairs`` and ``goals``, which follow from the other fields of a document."""
    summary = summarize(document["records"])
    made = {"summary": summary, "pairs": pairs.compared(document["records"], CALLS)}
    return {**made, "goals": goals({**document, **made})}


def joined(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one document of several runs, the first of which says what was called, with what, on which machine.

    ``runs`` has machine, artifact and steps of each, and its ``run``, which its records have too. Goals are those of
    each run: the states of one are not compared with those of another.

    Raises:
        ValueError: They are of different versions, providers or targets.
    """
    if len(found := {document["artifact"]["identifier"] for document in documents}) > 1:
        raise ValueError(f"results of different artifacts are not put together: {', '.join(sorted(found))}")
    records, runs, judged = [], [], []
    for number, document in enumerate(documents):
        run = document["records"][0].get("run") or f"{document['machine']['date']}, {number + 1}"
        of_run = {"run": run, **{name: document.get(name) for name in ("machine", "artifact", "steps")}}
        runs += document.get("runs", [of_run])
        records += [{"run": run, **record} for record in document["records"]]
        judged += document["goals"] if "runs" in document else derived(document)["goals"]
    used = next((document["used"] for document in documents if "used" in document), {})
    one = {**{name: documents[0][name] for name in ("machine", "provider", "artifact")}, "used": used}
    document = {**one, "runs": runs, "records": records}
    return {**document, **derived(document), "goals": judged}


def summarize(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return state -> call -> measurement -> median, least and greatest, and the number of processes.

    The second call of a process that makes both (``a-first`` ...) is found under ``then``: its kernels that the first
    shares were warm. ``small`` always comes after another call.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {case: {} for case in TITLES}
    for record in records:
        if record["ok"] and record["case"] in TITLES:
            extra = {"preload_ms": record["preload"]["ms"]} if "preload" in record else {}
            for call in (*CALLS, "small"):
                if call in record:
                    name = call if call in (record["call"], "small") else "then"
                    found[record["case"]].setdefault(name, []).append({**record[call], **extra})
    return {
        case: {call: _statistics(rows) for call, rows in by_call.items()} for case, by_call in found.items() if by_call
    }


def _statistics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = {name for row in rows for name, value in row.items() if isinstance(value, (int, float))}
    result: dict[str, Any] = {"processes": len(rows)}
    for name in sorted(numbers):
        values = [row[name] for row in rows if name in row]
        several = {"median": statistics.median(values), "low": min(values), "high": max(values)}
        result[name] = {what: round(value, 3) for what, value in several.items()}
    result["digests"] = sorted({row["digest"]["output"]["sha256"][:16] for row in rows})
    return result


def goals(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for, what was found, and whether it is met. What was not measured is left out."""
    return [one for call in (*CALLS, "small") for one in _goals(document, call)]


def _goals(document: dict[str, Any], call: str) -> Iterator[dict[str, Any]]:
    rows = {case: calls[call] for case, calls in document["summary"].items() if call in calls}

    def compare(text: str, ours: tuple[str, str], theirs: tuple[str, str], most: Callable[[float], float]) -> Any:
        """Yield whether one median is at most what follows from another; nothing where one was not measured."""
        found = [rows.get(case, {}).get(name) for case, name in (ours, theirs)]
        if all(found):
            first, second = (float(one["median"]) for one in found)
            shown = f"{first:.3g} ms against {second:.3g} ms: {first / second:.3g} times"
            yield goal(f"{call}: {text}", shown, first <= most(second))

    first, steady = "first_ms", "steady_ms"
    yield from pairs.goals(document, call)
    of_fla = document.get("provider", "fla") == "fla"
    plain = "c" if of_fla else "b"
    text = f"(e) at most {_SLOWER} times ({plain}) when steady"
    yield from compare(text, ("e", steady), (plain, steady), _SLOWER.__mul__)
    if call == "dense" and of_fla:
        yield from compare(f"(e) at most {_SHARE} of (b)", ("e", first), ("b", first), _SHARE.__mul__)
    for case in ("preload", "preload-pool"):
        for name, when in ((steady, ""), ("rested_ms", " after a pause")):
            text = f"({case}) at most twice a steady call{when}"
            yield from compare(text, (case, first), (case, name), _TWICE.__mul__)
    yield from _facts(document, call, rows)


def _facts(document: dict[str, Any], call: str, rows: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the goals that are no times."""
    for case in ("e", "nocc", "e-torch"):
        if case in rows:
            counts = {name: int(rows[case][name]["high"]) for name in ("compiled", "benchmarked", "built")}
            yield goal(f"{call}: ({case}) compiles, benchmarks and builds nothing", counts, not any(counts.values()))
    for ours, floor in PAIRS:
        if ours in rows and floor in rows:
            digests = [rows[case]["digests"] for case in (ours, floor)]
            yield goal(f"{call}: ({floor}) computes what ({ours}) does", digests, digests[0] == digests[1])
    if "e" in rows and (used := document.get("used", {}).get(call)):
        modules = rows["e"]["modules"]["median"]
        text = f"{modules:.0f} modules, {used['kernels']} kernels, {used['binaries']} binaries"
        yield goal(f"{call}: (e) loads no module but those used", text, modules <= used["binaries"])


def table(document: dict[str, Any]) -> str:
    """Return the table in Markdown: medians, and the range of the first calls where it was repeated."""
    heads = ["state", "first dense, ms", "first varlen, ms", *COLUMNS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for case, calls in document["summary"].items():
        dense, varlen, then = (calls.get(name, {}) for name in (*CALLS, "then"))
        shown = [call for call in (dense, varlen or then) if call]
        more = "+ " if then and not varlen else ""
        first = [_time(dense.get("first_ms")), more + _time((varlen or then).get("first_ms"))]
        title = TITLES[case].replace("FLA leaves", f"{_NAMES[document.get('provider', 'fla')]} leaves")
        cells = [title, *first, *(_both(shown, name) for name in COLUMNS)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _time(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    text = _number(value["median"])
    if value["low"] == value["high"]:
        return text
    return f"{text} ({_number(value['low'])} to {_number(value['high'])})"


def _both(calls: list[dict[str, Any]], name: str) -> str:
    """Return the medians of the dense and the varlen call, once if they read the same."""
    values = [_number(call[name]["median"]) for call in calls if name in call]
    return " / ".join(dict.fromkeys(values)) or "-"

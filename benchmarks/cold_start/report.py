"""From records to medians, to the goals that they meet or miss, and to a table."""

from __future__ import annotations

import statistics
from typing import Any

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
}
"""State -> what the table calls it, in the table's order."""

CALLS = ("dense", "varlen")
_COUNTS = ("compiled", "found", "benchmarked", "built", "modules")
_SHARE = 20
"""Part of (b) that (e) may take."""
_ABOVE_FLOOR = 10.0
"""Milliseconds that (e) may take above (f)."""
_INSTALL, _IMPORT = 15.0, 20.0
"""Milliseconds that ``install()`` and ``import gdn_aot`` may take."""


def summarize(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return state -> call -> measurement -> median, least and greatest, and the number of processes.

    The second call of a process that makes both (``a-first`` ...) is found under ``then``: its kernels that the first
    shares were warm.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for record in records:
        if not record["ok"] or record["case"] not in TITLES:
            continue
        for call in CALLS:
            if isinstance(record.get(call), dict):
                name = call if call == record["call"] else "then"
                extra = {"preload_ms": record["preload"]["ms"]} if "preload" in record else {}
                found.setdefault(record["case"], {}).setdefault(name, []).append({**record[call], **extra})
    return {
        case: {call: _statistics(rows) for call, rows in by_call.items()}
        for case, by_call in sorted(found.items(), key=lambda item: list(TITLES).index(item[0]))
    }


def _statistics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = {name for row in rows for name, value in row.items() if isinstance(value, (int, float))}
    result: dict[str, Any] = {"processes": len(rows)}
    for name in sorted(numbers):
        values = [row[name] for row in rows if name in row]
        result[name] = {
            "median": round(statistics.median(values), 3),
            "low": round(min(values), 3),
            "high": round(max(values), 3),
        }
    result["digests"] = sorted({row["digest"]["output"]["sha256"][:16] for row in rows})
    return result


def _median(summary: dict[str, Any], case: str, call: str, name: str) -> float | None:
    value = summary.get(case, {}).get(call, {}).get(name)
    return None if value is None else float(value["median"])


def goals(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for, what was found, and whether it is met; None where a part was not measured."""
    summary = document["summary"]
    checks: list[dict[str, Any]] = []

    def check(goal: str, found: Any, met: bool | None) -> None:
        checks.append({"goal": goal, "found": found, "met": met})

    _check_share(summary, check)
    for call in CALLS:
        _check_floor(summary, call, check)
        _check_counts(document, call, check)
        _check_preloaded(summary, call, check)
    _check_start(document["records"], check)
    _check_steady(document["records"], check)
    return checks


def _check_share(summary: dict[str, Any], check: Any) -> None:
    plain, loader = (_median(summary, case, "dense", "first_ms") for case in ("b", "e"))
    if plain is not None and loader is not None:
        share = plain / loader
        text = f"{loader:.1f} ms against {plain:.1f} ms: 1/{share:.1f}"
        check(f"first dense prefill: (e) at most 1/{_SHARE} of (b)", text, share >= _SHARE)


def _check_floor(summary: dict[str, Any], call: str, check: Any) -> None:
    loader, floor = (_median(summary, case, call, "first_ms") for case in ("e", "f"))
    if loader is None or floor is None:
        return
    goal = f"first {call} prefill: (e) at most {_ABOVE_FLOOR:.0f} ms above (f)"
    check(goal, f"{loader:.1f} ms against {floor:.1f} ms", loader - floor <= _ABOVE_FLOOR)
    digests = [summary[case][call]["digests"] for case in ("e", "f")]
    check(f"{call}: (f) computes what (e) does", digests, digests[0] == digests[1])


def _check_counts(document: dict[str, Any], call: str, check: Any) -> None:
    summary = document["summary"]
    for case in ("e", "nocc"):
        rows = summary.get(case, {}).get(call)
        if rows:
            counts = {name: int(rows[name]["high"]) for name in ("compiled", "benchmarked", "built")}
            check(f"{call}: ({case}) compiles, benchmarks and builds nothing", counts, not any(counts.values()))
    used, modules = document.get("used", {}).get(call), _median(summary, "e", call, "modules")
    if used and modules is not None:
        text = f"{modules:.0f} modules, {used['kernels']} kernels, {used['binaries']} binaries"
        check(f"{call}: (e) loads no module but those used", text, modules <= used["binaries"])


def _check_preloaded(summary: dict[str, Any], call: str, check: Any) -> None:
    for case in ("preload", "preload-pool"):
        first, steady = (_median(summary, case, call, name) for name in ("first_ms", "steady_ms"))
        if first is not None and steady is not None:
            goal = f"first {call} prefill: ({case}) at most twice a steady one"
            check(goal, f"{first:.2f} ms against {steady:.2f} ms", first <= 2 * steady)
        rested = _median(summary, case, call, "rested_ms")
        if first is not None and rested is not None:
            goal = f"first {call} prefill: ({case}) at most twice a steady one after a pause"
            check(goal, f"{first:.2f} ms against {rested:.2f} ms", first <= 2 * rested)


def _check_start(records: list[dict[str, Any]], check: Any) -> None:
    rows = [record for record in records if record["case"] == "install" and record["ok"]]
    for way in dict.fromkeys(row["call"] for row in rows):
        found = [row for row in rows if row["call"] == way]
        for name, limit in (("import_gdn_aot_ms", _IMPORT), ("install_ms", _INSTALL)):
            value = statistics.median(row[name] for row in found)
            check(f"{name} ({way}) below {limit:.0f}", f"{value:.1f}", value < limit)
        if way in ("store", "file"):
            loaded = sorted({name for row in found for name in row["loaded"]})
            check(
                f"import and install ({way}) load neither torch nor triton", loaded, not {"torch", "triton"} & {*loaded}
            )


def _check_steady(records: list[dict[str, Any]], check: Any) -> None:
    for record in records:
        if record["case"] == "steady" and record["ok"]:
            for name in ("small", *CALLS):
                ratio = record[name]["ratio"]
                text = f"{record[name]['loader_ms']:.4f} ms against {record[name]['plain_ms']:.4f} ms: {ratio:.4f}"
                check(f"steady {name} call: loader at most 1 % above plain Triton", text, ratio <= 1.01)


def table(document: dict[str, Any]) -> str:
    """Return the table in Markdown: medians, and the range of the first calls where it was repeated."""
    heads = [
        "state",
        "first dense, ms",
        "first varlen, ms",
        "2nd, ms",
        "steady, ms",
        "compiled",
        "from cache",
        "benchmarked",
        "C builds",
        "modules",
        "PyTorch peak, MiB",
        "other device, MiB",
        "host, MiB",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for case, calls in document["summary"].items():
        dense, varlen = calls.get("dense", {}), calls.get("varlen", {})
        then = calls.get("then")
        shown = [call for call in (dense, varlen or then) if call]
        cells = [
            TITLES[case],
            _time(dense.get("first_ms")),
            f"+ {_time(then['first_ms'])}" if then and not varlen else _time(varlen.get("first_ms")),
            _both(shown, "second_ms"),
            _both(shown, "steady_ms"),
            *(_both(shown, name) for name in _COUNTS),
            _both(shown, "torch_peak_mib", 0),
            _both(shown, "device_outside_torch_mib", 0),
            _both(shown, "host_growth_mib", 0),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float, digits: int | None = None) -> str:
    if digits is None:
        digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _time(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    text = _number(value["median"])
    if value["low"] == value["high"]:
        return text
    return f"{text} ({_number(value['low'])} to {_number(value['high'])})"


def _both(calls: list[dict[str, Any]], name: str, digits: int | None = None) -> str:
    """Return the medians of the dense and the varlen call, once if they read the same."""
    values = [_number(call[name]["median"], digits) for call in calls if name in call]
    return " / ".join(dict.fromkeys(values)) or "-"


def goals_text(checks: list[dict[str, Any]]) -> str:
    """Return the goals as lines of Markdown."""
    return "\n".join(f"- {'met' if one['met'] else 'MISSED'}: {one['goal']}: {one['found']}" for one in checks)

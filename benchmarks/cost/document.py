"""``docs/explanation/cost.md``, made of ``benchmarks/results/cost.json`` so that its figures are those of one run."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from cost.layouts import MATRIX, RUNNER, Row, matrix, read_row
from gdn_aot.matrix import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SHOWN = 8
"""Kernels in the table."""
_WIDTH = 120
_HOUR, _MINUTE = 3600, 60


def page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    rows = [read_row(row) for row in results["rows"]]
    found = results["matrix"]
    parts = [
        "# What the matrix costs",
        "<!-- Made by `python benchmarks/cost.py page` of benchmarks/results/cost.json; not edited by hand. -->",
        *_how(results, rows),
        "## One artifact",
        _rows(results),
        "## One compile",
        *_kernels(rows),
        "## The whole matrix",
        *_matrix(rows, found),
        "## How far from ideal",
        *_ideal(found),
        "## What limits it",
        _limits(rows, results),
    ]
    return "\n\n".join(parts) + "\n"


def _text(*sentences: str) -> str:
    """Return a paragraph."""
    return "\n".join(textwrap.wrap(" ".join(sentences), _WIDTH, break_long_words=False, break_on_hyphens=False))


def _table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines).replace("| --- ", "|---")


def _how(results: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    machine, given = results["machine"], results["environment"]
    parts = " or ".join(map(str, sorted({row.copies for row in rows})))
    return [
        _text(
            f"Measured on {machine['cores']} cores of {machine['cpu']}, Triton {machine['triton']}, with",
            f"{results['jobs']} compile workers. {results['note']}".rstrip(),
        ),
        _text(
            "Seconds are CPU seconds, those of the assembler included, unless wall time is said: other work on the",
            "machine matters less to them. All models are built at tensor-parallel sizes 1, 2, 4 and 8. Of each",
            f"artifact shard 1 of {parts} was built, which has its share of the keys of each kernel, and what was",
            "found is multiplied. That is a little high: a kernel with fewer keys than there are shards counts too",
            "much, and launches that have the same IR and are in two shards count twice, but are compiled once in a",
            "whole build.",
        ),
        _text(
            f"The environment of a job takes {given['seconds']:.0f} s of wall time",
            f"({'measured' if given['measured'] else 'assumed, not measured'}).",
        ),
    ]


def _rows(results: Mapping[str, Any]) -> str:
    lines = []
    for data in results["rows"]:
        row = read_row(data)
        kernel, longest = row.longest
        lines.append(
            (
                row.identifier,
                data["keys"]["all"],
                row.copies * len(row.tasks),
                f"{row.seconds:.0f}",
                f"{row.bytes / 1e6:.0f}",
                f"{row.start:.1f}",
                f"{row.trace:.1f}",
                f"{longest:.1f} `{kernel}`",
                row.copies * len(row.chains),
            )
        )
    headers = (
        "artifact,keys,compiles,compile (s),cubins (MB),start (s),trace (s),longest compile (s),"
        "keys with a second candidate"
    )
    return _table(headers.split(","), lines)


def _kernels(rows: Sequence[Row]) -> list[str]:
    seconds: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, list[int]] = defaultdict(list)
    total: dict[str, float] = defaultdict(float)
    for row in rows:
        for kernel, spent, size in row.tasks:
            name = row.kernels[kernel]
            seconds[name].append(spent)
            total[name] += row.copies * spent
            sizes[name] += [size] if size else []
    every = sum(total.values())
    shown = sorted(total, key=lambda name: (-total[name], name))[:_SHOWN]
    lines = [
        (
            f"`{name}`",
            f"{total[name] / every:.0%}",
            f"{statistics.median(seconds[name]):.2f}",
            f"{max(seconds[name]):.2f}",
            f"{statistics.median(sizes[name]):.0f}" if sizes[name] else "-",
        )
        for name in shown
    ]
    flat = [size for found in sizes.values() for size in found]
    return [
        "The kernels that take most, over all artifacts above:",
        _table(("kernel", "share of compiling", "median (s)", "longest (s)", "median bytes of a cubin"), lines),
        f"A cubin of any kernel has {statistics.median(flat):.0f} bytes in the median, {max(flat)} at most.",
    ]


def _matrix(rows: Sequence[Row], found: Mapping[str, Any]) -> list[str]:
    own = {(row.provider, row.target) for row in rows}
    missing = sorted({(provider, target) for provider, target, _ in matrix(rows)} - own)
    by_provider: dict[str, list[str]] = defaultdict(list)
    for provider, target in missing:
        by_provider[provider].append(target)
    named = "; ".join(f"{provider} {', '.join(targets)}" for provider, targets in by_provider.items())
    environments = Counter(row.environment.name for row in load(MATRIX).rows)
    taken = f"Not measured, and taken to cost what the nearest measured row does: {named}." if missing else ""
    lines = []
    for cores, row in found["cores"].items():
        shards = row["shards"]
        times = f"{_time(shards['seconds'])}, N = {shards['of']}" if shards else "-"
        cluster = _time(row["cluster_own_first"])
        lines.append((cores, _time(row["jobs"]), times, _time(row["in_turn"]), cluster, _time(row["bound"])))
    headers = f"cores,a job of {RUNNER} cores per artifact,a job per shard,one cluster,all at once,bound".split(",")
    size = sum(row.bytes for _, _, row in matrix(rows))
    return [
        _text(
            f"{found['artifacts']} artifacts, which is what `artifacts/matrix.toml` lists:",
            ", ".join(f"{count} targets in {name}" for name, count in environments.items()) + ".",
            f"Traces and compiles are {found['cpu_seconds'] / _HOUR:.1f} CPU hours, and make {size / 1e9:.1f} GB of",
            "cubins before those alike are stored once and packed.",
            taken,
            "Environments of one provider are taken to cost the same.",
        ),
        "Wall time from nothing to the last artifact, environments and packing included:",
        _table(headers, lines),
        _text(
            "The bound has neither environments nor packing: it is all traces and compiles and one start per artifact,",
            "spread evenly over the cores, or the longest chain of a start, a trace and compiles that wait for each",
            "other, whichever is longer. N is the best of 2, 4, 8, 16 and 32, all artifacts alike. One cluster is what",
            "`gdn-aot build --executor ray` does: an environment after the other, since all nodes need its versions,",
            "and in each a target after the other, the next one traced meanwhile on a machine that is not counted. All",
            "at once is what no command does: every artifact on one cluster at the same time; a core stays with one,",
            "and starts for another if what waits there would take the cores that are there longer than a start.",
        ),
    ]


def _ideal(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for cores, row in found["cores"].items():
        seconds = [row["jobs"], row["jobs_longest_first"], row["shards"]["seconds"] if row["shards"] else None]
        seconds += [row["in_turn"], row["cluster_own_first"], row["cluster"], row["cluster_longest_first"]]
        lines.append((cores, *("-" if each is None else f"{each / row['bound']:.2f}" for each in seconds)))
    worst = max(row["asked"] / row["bound"] for row in found["one_job"].values())
    gain = max(row["asked"] / row["longest_first"] for row in found["one_job"].values())
    return [
        _text(
            "Wall time over the bound. In a job, tasks are taken as the pool does, in the order in which they were",
            "asked for; or the longest of those that wait, which one would have to know before. All at once, a core",
            "takes those of its own artifact first, as above; or whatever was asked for first, of any artifact; or the",
            "longest of any, and starts again and again.",
        ),
        _table(
            ["cores", "jobs", "jobs longest first", "shards", "cluster", "all at once", "asked first", "longest first"],
            lines,
        ),
        _text(
            f"Inside one job with {RUNNER} cores the pool is at most {worst - 1:.1%} above that job's own bound, and",
            f"longest first would make the slowest gain {gain - 1:.1%} at most.",
        ),
    ]


def _limits(rows: Sequence[Row], results: Mapping[str, Any]) -> str:
    found = results["matrix"]
    longest = max(rows, key=lambda row: row.longest[1])
    slowest, least = (pick(rows, key=lambda row: row.seconds) for pick in (max, min))
    most = list(found["cores"])[-1]
    points = [
        (
            f"**The largest artifact, if each is one job.** {slowest.identifier} takes",
            f"{slowest.seconds / least.seconds:.1f} times as long to compile as {least.identifier}. With {most} cores",
            f"and a job per artifact the matrix takes {_time(found['cores'][most]['jobs'])}, however many more there",
            "are. Shards are for this.",
        ),
        (
            f"**The trace.** It is one process per artifact, {max(row.trace for row in rows):.0f} s at most, and each",
            "shard makes it again: more shards shorten nothing but the compiling.",
        ),
        (
            f"**The longest compile.** {longest.longest[1]:.1f} s, `{longest.longest[0]}` for {longest.identifier}.",
            "No number of cores makes an artifact faster than its trace and this.",
        ),
        ("**Candidates that wait for each other.**", _waits(rows)),
        (
            f"**The environment.** {results['environment']['seconds']:.0f} s for each job; and then",
            f"{max(row.start for row in rows):.0f} s at most to import Triton, PyTorch and the provider, which in a",
            "cluster every core does for every artifact that it works on.",
        ),
    ]
    wrap = textwrap.TextWrapper(
        _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrap.fill(" ".join(point)) for point in points)


def _waits(rows: Sequence[Row]) -> str:
    chains = [
        (len(steps), sum(max(row.tasks[task][1] for task in step) for step in steps), row.identifier)
        for row in rows
        for steps in row.chains
    ]
    if not chains:
        return "A candidate is compiled when the one before it does not fit; here every first one fitted."
    _, seconds, identifier = max(chains, key=lambda chain: chain[1])
    return (
        "A candidate is compiled when the one before it does not fit. Keys went through up to "
        f"{max(chain[0] for chain in chains)} of them; the longest chain is {seconds:.1f} s ({identifier})."
    )


def _time(seconds: float) -> str:
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:.1f} h"
    return f"{seconds / _MINUTE:.1f} min" if seconds >= _MINUTE else f"{seconds:.0f} s"

"""The whole matrix in three layouts: a job for each artifact, several jobs for each in shards, one cluster.

A measured row stands for its artifact, and for those of the same provider and target with another version of Triton or
of the provider. Of each row a part was compiled, one key in so many of every kernel; it stands for the others.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cost.simulate import Plan, bound, schedule
from gdn_aot.catalogue.targets import all_targets
from gdn_aot.matrix import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cost.simulate import Order

MATRIX = Path(__file__).resolve().parents[2] / "artifacts/matrix.toml"
"""What the project publishes."""
RUNNER = 2
"""Cores of the machine that one job of CI gets here; those of hosted runners are 2 to 4."""
CORES = (2, 64, 1000)
ENVIRONMENT = 60.0
"""Seconds in which a job makes its environment, where that was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one artifact costs; seconds are CPU seconds."""

    identifier: str
    provider: str
    target: str
    copies: int
    """One in so many keys was compiled."""
    start: float
    trace: float
    pack: float
    kernels: tuple[str, ...]
    tasks: tuple[tuple[int, float, int], ...]
    """Kernel, seconds, bytes of the binary (0 if the candidate did not fit) of each compile."""
    chains: tuple[tuple[tuple[int, ...], ...], ...]
    """Steps of the keys whose first candidate did not fit."""

    @property
    def seconds(self) -> float:
        """All compiles of the whole artifact."""
        return self.copies * sum(seconds for _, seconds, _ in self.tasks)

    @property
    def bytes(self) -> int:
        """All cubins of the whole artifact, those alike counted each time."""
        return self.copies * sum(size for _, _, size in self.tasks)

    @property
    def longest(self) -> tuple[str, float]:
        """The longest compile and its kernel."""
        kernel, seconds, _ = max(self.tasks, key=lambda task: task[1])
        return self.kernels[kernel], seconds


def read_row(data: Mapping[str, Any]) -> Row:
    """Read a row of ``results/cost.json``."""
    return Row(
        identifier=data["identifier"],
        provider=data["provider"],
        target=data["target"],
        copies=data["part"][1],
        start=data["start"],
        trace=data["trace"],
        pack=data["pack"],
        kernels=tuple(data["kernels"]),
        tasks=tuple((kernel, seconds, size) for kernel, seconds, size in data["tasks"]),
        chains=tuple(tuple(map(tuple, steps)) for steps in data["chains"]),
    )


def matrix(rows: Sequence[Row]) -> list[tuple[str, str, Row]]:
    """Return (provider, target, row that stands for it) of every artifact of the matrix."""
    every = ((row.environment.provider, row.target) for row in load(MATRIX).rows)
    return [(provider, target, stand_in(rows, provider, target)) for provider, target in every]


def stand_in(rows: Sequence[Row], provider: str, target: str) -> Row:
    """Return the measured row nearest to an artifact: first the provider counts, then bf16 arithmetic, then the target.

    Targets without bf16 arithmetic are those whose tensor cores Triton does not use, which is what makes code long.
    """
    known = {item.name: item for item in all_targets()}

    def distance(row: Row) -> tuple[bool, bool, int]:
        ours, theirs = known[target], known[row.target]
        return row.provider != provider, ours.bf16 != theirs.bf16, abs(ours.arch_number - theirs.arch_number)

    return min(rows, key=distance)


def row_plan(row: Row, copies: int) -> Plan:
    """Return the compiles of ``copies`` times what was measured, by workers forked from the one that has started."""
    return replace(joined([(row, copies)], traces=False), kinds=(), start=0.0)


def joined(rows: Sequence[tuple[Row, int]], *, traces: bool) -> Plan:
    """Return one plan of several artifacts.

    Args:
        rows: Each with how many times its measured part is taken.
        traces: The trace of each is a task too, and comes first.
    """
    seconds: list[float] = []
    kinds: list[int] = []
    walks: list[tuple[tuple[int, ...], ...]] = []
    for kind, (row, copies) in enumerate(rows):
        first: tuple[tuple[int, ...], ...] = ()
        if traces:
            first = ((len(seconds),),)
            seconds.append(row.trace)
            kinds.append(kind)
        chained = {task for steps in row.chains for step in steps for task in step}
        alone = [task for task in range(len(row.tasks)) if task not in chained]
        for _ in range(copies):
            base = len(seconds)
            seconds += [task[1] for task in row.tasks]
            kinds += [kind] * len(row.tasks)
            walks += [(*first, (base + task,)) for task in alone]
            walks += [(*first, *(tuple(base + task for task in step) for step in steps)) for steps in row.chains]
    start = statistics.fmean(row.start for row, _ in rows)
    return Plan(seconds=tuple(seconds), walks=tuple(walks), kinds=tuple(kinds), start=start)


def job_seconds(row: Row, copies: int, environment: float, order: Order = "asked") -> float:
    """Return the wall seconds of one job of CI that builds so many parts of an artifact."""
    compiling = schedule(row_plan(row, copies), RUNNER, order)
    return environment + row.start + row.trace + compiling + row.pack


def jobs(seconds: Sequence[float], cores: int, order: Order = "asked") -> float:
    """Return when the last of so many jobs is done on machines of `RUNNER` cores."""
    plan = Plan(seconds=tuple(seconds), walks=tuple(((job,),) for job in range(len(seconds))))
    return schedule(plan, max(cores // RUNNER, 1), order)


def in_turn(environments: Sequence[Sequence[Row]], cores: int, environment: float) -> float:
    """Return the wall seconds of ``gdn-aot build --executor ray`` for one environment after the other.

    Targets are built in turn; while one compiles on all cores, the next is traced and its workers start.
    """
    known: dict[str, float] = {}
    total = 0.0
    for rows in environments:
        total += environment + rows[0].start + rows[0].trace + rows[-1].pack
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            if row.identifier not in known:
                known[row.identifier] = schedule(row_plan(row, row.copies), cores)
            total += max(known[row.identifier], following.start + following.trace if following else 0.0)
    return total


def shard_counts(rows: Sequence[Row]) -> list[int]:
    """Return the powers of two into which every artifact can be divided: parts of what was measured are not."""
    return [of for of in (2, 4, 8, 16, 32) if all(row.copies % of == 0 for row in rows)]


def compare(rows: Sequence[Row], environment: float) -> dict[str, Any]:
    """Return what each layout takes on each number of cores, and the bound that none can beat."""
    every = [row for _, _, row in matrix(rows)]
    plan = joined([(row, row.copies) for row in every], traces=True)
    environments: dict[str, list[Row]] = {}
    for published, row in zip(load(MATRIX).rows, every, strict=True):
        environments.setdefault(published.environment.name, []).append(row)
    pack = max(row.pack for row in every)
    per_job = _job_seconds(every, 1, environment)
    shards = {of: _job_seconds(every, of, environment) for of in shard_counts(every)}
    found: dict[str, Any] = {"artifacts": len(every), "cpu_seconds": round(sum(plan.seconds)), "cores": {}}
    for cores in CORES:
        best = min(shards, key=lambda of: (jobs(shards[of], cores), of), default=None)
        found["cores"][str(cores)] = {
            "bound": round(bound(plan, cores), 1),
            "jobs": round(jobs(per_job, cores), 1),
            "jobs_longest_first": round(jobs(per_job, cores, "longest"), 1),
            "shards": None if best is None else {"of": best, "seconds": round(jobs(shards[best], cores), 1)},
            "in_turn": round(in_turn(list(environments.values()), cores, environment), 1),
            "cluster": round(environment + schedule(plan, cores) + pack, 1),
            "cluster_longest_first": round(environment + schedule(plan, cores, "longest") + pack, 1),
            "cluster_own_first": round(environment + schedule(plan, cores, "own") + pack, 1),
        }
    alone = [(row, job_seconds(row, row.copies, 0.0), job_seconds(row, row.copies, 0.0, "longest")) for row in rows]
    found["one_job"] = {
        row.identifier: {
            "bound": round(bound(row_plan(row, row.copies), RUNNER) + row.start + row.trace + row.pack, 1),
            "asked": round(asked, 1),
            "longest_first": round(longest, 1),
        }
        for row, asked, longest in alone
    }
    return found


def _job_seconds(rows: Sequence[Row], of: int, environment: float) -> list[float]:
    """Return the seconds of every job if each artifact is built in so many; those alike are worked out once."""
    known: dict[str, float] = {}
    for row in rows:
        if row.identifier not in known:
            known[row.identifier] = job_seconds(row, row.copies // of, environment)
    return [known[row.identifier] for row in rows for _ in range(of)]

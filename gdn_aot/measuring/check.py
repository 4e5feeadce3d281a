"""Check the numbers of a target's kernels on the card that is here: the parent's side.

What a build would pack for the target is traced, chosen and compiled, and then run by `check_worker`: on a
card of the target as cubins, on a newer one as PTX, which the driver compiles for it. That says whether the code
computes what it should, not whether it runs well.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gdn_aot._version import __version__
from gdn_aot.building import pipeline
from gdn_aot.catalogue.targets import assembler_version
from gdn_aot.machine import installed, scratch
from gdn_aot.machine.child import Child, EndedError
from gdn_aot.measuring.process import CARD, START_SECONDS, Plan, PlannedBinary, PlannedKernel, begin
from gdn_aot.providers import module_name
from gdn_aot.records import numerics as records
from gdn_aot.records.files import RecordedDevice, RecordedProvider

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.building.pipeline import Built, Progress
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.machine.card import CardInfo

MODULE = "gdn_aot.measuring.check_worker"
MOST_RESTARTS = 25
"""Processes that one target may cost before the rest of it is given up."""
_FEATURED = "a"
"""Ending of the name of an architecture whose code runs on no other."""


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """What to check, for every target alike."""

    job: pipeline.Job
    output: Path
    """Directory of the records."""
    silence: float = 120.0
    """Seconds without any sign of life after which a worker is killed."""
    card: str = CARD
    module: str = ""
    """Module of the workloads, if it is another than the provider's."""


def prepare(task: CheckTask, target: Target, progress: Progress) -> Built:
    """Trace, choose and compile for a target, as a build does, and keep the PTX. Needs no card."""
    with contextlib.ExitStack() as stack:
        lazy = pipeline.LazyWorker(stack, task.job.wanted.provider, target)
        return pipeline.compile_target(task.job, target, lazy, progress)


def _plan(task: CheckTask, built: Built, *, native: bool) -> Plan:
    trace = built.trace
    kernels = [PlannedKernel(kernel.name) for kernel in trace.kernels]
    for chosen in built.choices.chosen:
        kernels[chosen.tuning.kernel].choices.append((chosen.tuning.key, chosen.config))
    for index, made in built.run.kept(built.choices).items():
        launch = trace.launches[index]
        specialization = msgspec.to_builtins(launch.specialization)
        kernels[launch.kernel].binaries[launch.key] = PlannedBinary(made.cubin, made.metadata, specialization)
    return Plan(str(task.job.cache.root.absolute()), kernels, native)


def obstacle(target: Target, card: Target) -> str | None:
    """Return why code of a target cannot run on a card, or None if it can."""
    if target == card:
        return None
    if target.capability > card.capability:
        return f"{target} is newer than the card, which is {card}"
    if target.assembler_arch.endswith(_FEATURED):
        return f"code for {target.assembler_arch} runs on {target} alone, and the card is {card}"
    return None


@dataclass
class Results:
    """What calls came to, put together as events arrive."""

    checks: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    """(workload, index of the shape) -> answers."""
    done: list[tuple[str, int, int]] = field(default_factory=list)
    failures: int = 0

    def take(self, event: Mapping[str, Any]) -> None:
        """Take what came of one call."""
        name, shape, number = event["place"]
        self.done.append((name, shape, number))
        self.checks.setdefault((name, shape), []).append(dict(event))
        self.failures += bool(event.get("wrong"))

    @property
    def made(self) -> int:
        """Calls that were compared."""
        return sum("skipped" not in answer for answers in self.checks.values() for answer in answers)

    def rows(self, shapes: Sequence[ModelShape]) -> tuple[records.Check, ...]:
        """Return one row for each workload and shape."""
        return tuple(_row(name, shapes[shape], answers) for (name, shape), answers in self.checks.items())

    def kernels(self) -> tuple[records.CheckedKernel, ...]:
        """Return one row for each kernel that was launched."""
        launches: dict[str, int] = {}
        keys: dict[str, set[str]] = {}
        choices: dict[str, set[str]] = {}
        bad: set[str] = set()
        for answer in (answer for answers in self.checks.values() for answer in answers):
            for name, (count, used, chosen) in answer["kernels"].items():
                launches[name] = launches.get(name, 0) + count
                keys.setdefault(name, set()).update(used)
                choices.setdefault(name, set()).update(chosen if "skipped" not in answer else ())
                bad |= {name} if answer.get("wrong") else set()
        return tuple(
            records.CheckedKernel(
                kernel=name,
                launches=count,
                binaries=len(keys[name]),
                ok=name not in bad,
                choices=tuple(sorted(choices[name])),
            )
            for name, count in sorted(launches.items())
        )


def _row(workload: str, shape: ModelShape, answers: Sequence[Mapping[str, Any]]) -> records.Check:
    worst: dict[str, tuple[float, records.Worst]] = {}
    for answer in answers:
        for name, error, limit, share in answer.get("off", ()):
            rank = float("inf") if share is None else share
            if name not in worst or rank > worst[name][0]:
                worst[name] = rank, records.Worst(call=answer["call"], result=name, error=error, limit=limit)
    problems = {
        what: tuple(
            records.CallProblem(call=answer["call"], why=answer[what]) for answer in answers if answer.get(what)
        )
        for what in ("wrong", "skipped")
    }
    return records.Check(
        workload=workload,
        model=shape.name,
        tp=shape.tp,
        dtype=shape.dtype,
        calls=sum("skipped" not in answer for answer in answers),
        worst=tuple(item for _, item in sorted(worst.values(), key=lambda pair: pair[1].result)),
        failed=problems["wrong"],
        skipped=problems["skipped"],
    )


def run(task: CheckTask, built: Built, *, native: bool, progress: Progress) -> Results:
    """Make every call in worker processes, whatever the calls do to them.

    Raises:
        UsageError: The worker cannot be started at all: no device, or a broken provider.
    """
    results = Results()
    plan = _plan(task, built, native=native).write(Path(scratch.make("plan")) / "plan.json")
    for _ in range(MOST_RESTARTS):
        if _session(task, built.target, plan, results, progress):
            return results
    results.failures += 1
    return results


def _session(task: CheckTask, target: Target, plan: str, results: Results, progress: Progress) -> bool:
    """Go on in one worker. Returns whether everything is done."""
    wanted = task.job.wanted
    shapes = wanted.distinct_for(target)
    with Child(MODULE, silence=START_SECONDS) as worker:
        module = task.module or module_name(wanted.provider.name)
        request = {"card": task.card, "options": {}, "target": target.name, "module": module}
        begin(worker, "checking process cannot start", request)
        worker.silence = task.silence
        worker.send(
            {
                "plan": plan,
                "provider": wanted.provider.name,
                "limits": asdict(wanted.limits),
                "shapes": [asdict(shape) for shape in shapes],
                "workloads": list(wanted.workloads),
                "done": results.done,
            }
        )
        coming: dict[str, Any] | None = None
        try:
            while (event := worker.receive())["event"] != "done":
                if event["event"] == "coming":
                    coming = event
                    name, shape, number = event["place"]
                    progress(number, event["of"], f"{target}: {name}, {shapes[shape].name} tp {shapes[shape].tp}")
                else:
                    results.take(event)
                    coming = None
        except EndedError as error:
            if coming is not None:
                kernel = ""  # the one that was noted last
                with contextlib.suppress(ValueError):
                    kernel = json.loads(error.note)[1]
                wrong = f"{error.reason}{f', in {kernel}' if kernel else ''}"
                results.take({**coming, "wrong": wrong, "off": [], "kernels": {}})
            return False
        return True


def make_record(task: CheckTask, target: Target, card: CardInfo, results: Results | str) -> records.NumericsRecord:
    """Return the record of a target from what the calls came to, or from why nothing was run."""
    provider = task.job.wanted.provider
    made = records.NumericsRecord(
        target=target.name,
        provider=RecordedProvider(
            name=provider.name, distribution=provider.distribution, version=installed.require(provider.name)
        ),
        triton=installed.version("triton") or "",
        ptxas=assembler_version(target) or "unknown",
        tool=f"gdn-aot {__version__}",
        status="not run",
        how=results if isinstance(results, str) else "cubin" if card.target == target else "ptx",
        device=None,
        date=None,
        models=(),
        checks=(),
        kernels=(),
    )
    if isinstance(results, str):
        return made
    shapes = task.job.wanted.distinct_for(target)
    return replace(
        made,
        status="failed" if results.failures or not results.made else "checked",
        device=RecordedDevice(name=card.name, driver=card.driver),
        date=dt.datetime.now(dt.timezone.utc).date().isoformat(),
        models=tuple(f"{shape.name} tp {shape.tp} {shape.dtype}" for shape in shapes),
        checks=results.rows(shapes),
        kernels=results.kernels(),
    )

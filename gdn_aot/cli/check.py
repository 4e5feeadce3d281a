"""``gdn-aot check``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from gdn_aot.cli import _options
from gdn_aot.cli._job import check_output, make_job, selected_shapes, selected_targets, tuning_root
from gdn_aot.cli._output import emit_json, note, out_path, rounded, times
from gdn_aot.cli._progress import Progress
from gdn_aot.errors import NothingSelectedError, Problem, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gdn_aot.building.pipeline import Built
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.measuring.check import CheckTask
    from gdn_aot.records.numerics import NumericsRecord

_NO_CARD = "check on a machine with an NVIDIA card; --prepare compiles without one"


@click.command("check", epilog=_options.other_checks("check"))
@_options.arch
@_options.models
@_options.mode
@_options.default("--max-tokens", 32768, "Largest number of tokens in one call.", type=click.IntRange(min=1))
@_options.max_batch
@_options.workloads
@_options.tuning
@_options.prepare
@_options.timeout
@_options.patience(120.0, "checking")
@_options.cache_dir
@_options.output("artifacts/numerics", "Directory of the records.")
@_options.as_json
def command(*, as_json: bool, prepare: bool, **options: Any) -> None:
    """Compare the results of a target's kernels with float64, on the GPU of this machine.

    The kernels are those that gdn-aot build would pack. For a target older than the GPU, the driver compiles the
    target's PTX; this tests the code, not its speed. The record says which kernels this GPU cannot run. What it says of
    other models and workloads stays if it was found on the same GPU with the same driver, Triton and assembler.
    --prepare compiles on another machine with the same Triton: carry its build cache here and name it with --cache-dir.
    """
    from gdn_aot.machine.installed import require_toolchain
    from gdn_aot.measuring import check

    require_toolchain("check")
    targets = selected_targets(options["arch"])
    task = _task({**options, "prepare": prepare}, targets)
    with Progress("check") as progress:
        if not prepare:
            finished = _check(task, targets, progress.update)
        else:
            made = []
            for target in targets:
                made.append(check.prepare(task, target, progress.update))
                note(_prepared_line(made[-1]))
            _tell_prepared(task, made, as_json=as_json)
            return
    _tell(finished, as_json=as_json)


def _prepared_line(made: Built) -> str:
    binaries = len(made.run.kept(made.choices))
    failures = f", {len(made.choices.failures)} compiles failed" if made.choices.failures else ""
    return f"{made.target}: {binaries} binaries, compiled {made.run.compiled}{failures} ({times(made.seconds)})"


def _tell_prepared(task: CheckTask, made: list[Built], *, as_json: bool) -> None:
    if not as_json:
        out_path(task.job.cache.root)
        return
    rows = [
        {
            "target": item.target.name,
            "choices": len(item.choices.chosen),
            "binaries": len(item.run.kept(item.choices)),
            "compiled": item.run.compiled,
            "failures": [failure.message for failure in item.choices.failures],
            "seconds": rounded(item.seconds),
        }
        for item in made
    ]
    emit_json({"cache": str(task.job.cache.root), "targets": rows})


def _task(options: dict[str, Any], targets: tuple[Target, ...]) -> CheckTask:
    from gdn_aot.building import pipeline
    from gdn_aot.catalogue.providers import Limits, get_provider
    from gdn_aot.measuring.check import CheckTask

    provider = get_provider(options["provider"])
    job = make_job(
        provider,
        selected_shapes(provider, options),
        Limits(max_tokens=options["max_tokens"], max_batch=options["max_batch"], mode=options["mode"]),
        options,
        tuning_root=tuning_root(options["tuning"]),
        keep_going=True,
        ptx=True,
    )
    pipeline.check_environment(job, targets)
    if not options["prepare"]:
        check_output(job.output)
    return CheckTask(job=job, output=job.output, silence=options["patience"])


def _check(
    task: CheckTask, targets: tuple[Target, ...], progress: Callable[[int, int, str], None]
) -> list[tuple[NumericsRecord, Path]]:
    from gdn_aot.machine import card as device
    from gdn_aot.measuring import check
    from gdn_aot.records import numerics as records

    try:
        card = device.probe()
    except UsageError as error:
        raise UsageError(error.message, hint=_NO_CARD) from error
    finished = []
    for target in targets:
        reason = check.obstacle(target, card.target)
        if reason is None:
            built = check.prepare(task, target, progress)
            results: check.Results | str = check.run(task, built, native=card.target == target, progress=progress)
        else:
            results = reason
        record = check.make_record(task, target, card, results)
        path = records.record_path(task.output, target.name, record.provider.distribution, record.provider.version)
        merged = records.merge(_earlier(path), record)
        records.save(merged, path)
        finished.append((record, path))
        note(_line(record))
        if merged.status != record.status:
            what = "other models or workloads, or more calls of these, went wrong in an earlier run"
            note(f"{path} says {merged.status}: {what}")
    return finished


def _earlier(path: Path) -> NumericsRecord | None:
    """Return the record that is there; one that cannot be read is replaced."""
    from gdn_aot.records import numerics as records

    with suppress(UsageError):
        return records.load(path)
    return None


def _line(record: NumericsRecord) -> str:
    if record.device is None:
        return f"{record.target}: not run: {record.how}"
    calls, skipped = sum(row.calls for row in record.checks), sum(len(row.skipped) for row in record.checks)
    failed = sum(len(row.failed) for row in record.checks)
    more = f", {skipped} not made" if skipped else ""
    return (
        f"{record.target}: {record.status} as {record.how} on {record.device.name}: "
        f"{calls} calls, {failed} wrong{more}; "
        f"{len(record.kernels)} kernels, {sum(kernel.binaries for kernel in record.kernels)} binaries"
    )


def _tell(finished: list[tuple[NumericsRecord, Path]], *, as_json: bool) -> None:
    problems = [
        Problem(f"{record.target}: {row.model} tp {row.tp}: {item.call}", item.why)
        for record, _ in finished
        for row in record.checks
        for item in row.failed
    ]
    failed = [record.target for record, _ in finished if record.status == "failed"]
    if failed:
        raise VerificationError(
            f"the kernels of {', '.join(failed)} disagree with float64",
            problems[:50],
            hint="the records say which calls; report them with the device and the driver",
        )
    if all(record.status == "not run" for record, _ in finished):
        raise NothingSelectedError(
            f"nothing was run: {finished[0][0].how}",
            hint="sm_90 and newer run on a card of their own only; see gdn-aot check --help",
        )
    if as_json:
        rows = [
            {
                "target": record.target,
                "status": record.status,
                "how": record.how,
                "record": str(path),
                "calls": sum(row.calls for row in record.checks),
                "kernels": len(record.kernels),
            }
            for record, path in finished
        ]
        emit_json({"checks": rows})
        return
    for _, path in finished:
        out_path(path)

"""``gdn-aot build``."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from gdn_aot._files import file_sha256
from gdn_aot._text import plural
from gdn_aot.cli import _executor, _options
from gdn_aot.cli._deployment import selected_cache, selected_deployment
from gdn_aot.cli._job import (
    captured_archs,
    check_output,
    make_job,
    selected_captures,
    selected_shapes,
    selected_targets,
    tuning_root,
    usual_records,
)
from gdn_aot.cli._output import emit_json, note, out_path, rounded, times
from gdn_aot.cli._progress import Progress
from gdn_aot.errors import CompileFailedError, Problem, SpillsError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.building.pipeline import Built, Job
    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Failure
    from gdn_aot.matrix import Matrix, MatrixRow

_SHOWN_FAILURES = 20
_SAID_BY_ROW = (
    "arch", "model", "tp", "shape", "dtype", "provider", "mode", "max_tokens", "max_batch", "workload",
    "exclude_workload", "package", "capture", "deployment", "compile_cache", "candidates",
)  # fmt: skip
"""Parameters of build that decide what is in the artifact."""


@click.command("build")
@click.option(
    "--only", metavar="IDENTIFIER",
    help="Build this row of the matrix, which says what to build; see gdn-aot matrix.",
)  # fmt: skip
@_options.matrix
@_options.arch
@_options.models
@_options.mode
@_options.max_tokens
@_options.max_batch
@_options.workloads
@click.option(
    "--package", metavar="DIRECTORY", type=_options.path,
    help="Build for the copy of the provider in this folder: a kernel of the Hub, a checkout.",
)  # fmt: skip
@_options.many(
    "--capture", None, "Also build every launch of this file of gdn-aot capture; repeatable.", type=_options.path
)
@click.option(
    "--deployment", metavar="FILE|KEY=VALUE,...",
    help="Also build every kernel that the described engine launches: card=NAME, and options of the engine.",
)  # fmt: skip
@click.option(
    "--compile-cache", metavar="DIRECTORY", type=_options.path,
    help="Also pack what vLLM compiled for this deployment: its torch_compile_cache, which is code for the host.",
)  # fmt: skip
@_options.default(
    "--candidates", "chosen", "all also packs the candidates that were not chosen, for tuning.",
    type=click.Choice(["chosen", "all"]),
)  # fmt: skip
@_options.tuning
@_options.numerics
@_options.timeout
@_options.cluster
@click.option("--keep-going", is_flag=True, help="Pack the kernels that compile, and end with 0, if others do not.")
@click.option(
    "--allow-spills", is_flag=True,
    help="Pack kernels whose local memory takes over 256 MiB of the target's GPU; otherwise an error.",
)  # fmt: skip
@_options.cache_dir
@_options.output("artifacts/dist", "Directory for the artifacts.")
@_options.as_json
def command(*, as_json: bool, matrix: Path, keep_going: bool, allow_spills: bool, **options: Any) -> None:
    """Trace, compile, choose and pack one artifact per target. Needs no GPU."""
    from msgspec import to_builtins

    from gdn_aot.artifact import cost
    from gdn_aot.building import pipeline
    from gdn_aot.catalogue.models import longest_context
    from gdn_aot.catalogue.providers import Limits, get_provider
    from gdn_aot.machine.installed import require_toolchain

    start = time.monotonic()
    require_toolchain("build")
    if row := _only_row(options["only"], matrix):
        options |= {"arch": (row.target,), "provider": row.environment.provider, "model": row.table.models}
        options |= {"tp": ",".join(map(str, row.table.tp)), "max_tokens": row.table.max_tokens}
    named = _given(click.get_current_context(), "provider")
    captured = selected_captures(
        options["capture"], options["provider"] if named else None, alone=not (options["model"] or options["shape"])
    )
    provider = get_provider(captured.provider if captured else options["provider"])
    if options["package"]:
        provider = _copied(provider, options)
    deployment = None
    if options["deployment"]:
        deployment, changed = selected_deployment(provider, options)
        options |= changed
    targets = selected_targets(options["arch"] or (captured_archs(captured) if captured else ()))
    selection = selected_shapes(provider, options, captured=captured is not None)
    job = make_job(
        provider,
        selection,
        Limits(
            max_tokens=options["max_tokens"] or longest_context(selection.shapes),
            max_batch=options["max_batch"],
            mode=options["mode"],
        ),
        options,
        captured,
        deployment,
        tuning_root=tuning_root(options["tuning"], matrix.parent),
        all_candidates=options["candidates"] == "all",
        keep_going=keep_going,
        allow_spills=allow_spills,
        numerics_root=options["numerics"] or usual_records("numerics", matrix.parent),
        compile_cache=selected_cache(options["compile_cache"], provider, targets, captured, deployment),
    )
    pipeline.check_environment(job, targets)
    _note_fallbacks(job, targets)
    check_output(job.output)
    finished: list[Built] = []
    with Progress("build") as progress, _executor.executor(options["executor"], options["address"]) as work:
        for built in pipeline.build(replace(job, executor=work), targets, progress.update):
            finished.append(built)
            _report(built)
    _warn_of_defaults(job, finished)
    failures = [(built, failure) for built in finished for failure in built.choices.failures]
    if failures and not keep_going:
        lines = [f"  {built.target}: {_failed(failure)}" for built, failure in failures]
        raise CompileFailedError("\n".join([f"{len(failures)} kernels did not compile:", *lines]))
    if spilling := [Problem(built.target.name, what) for built in finished for what in built.spilling]:
        most = f"{cost.REFUSED / cost.MIB:.0f} MiB"
        message = f"not packed, as the driver would keep over {most} of the card for registers that spill"
        raise SpillsError(f"{', '.join(dict.fromkeys(item.where for item in spilling))}: {message}", spilling)
    if not as_json:
        for path in (built.path for built in finished if built.path is not None):
            out_path(path)
        return
    emit_json(
        {
            "artifacts": [
                _artifact(built.manifest, built.path, built) for built in finished if built.manifest and built.path
            ],
            "skipped": list(map(asdict, selection.skipped)),
            "left_out": to_builtins(captured.left_out if captured else ()),
            "failures": [{"arch": built.target.name, **asdict(failure)} for built, failure in failures],
            "seconds": round(time.monotonic() - start, 3),
        }
    )


def _copied(provider: ProviderInfo, options: dict[str, Any]) -> ProviderInfo:
    """Return a provider as the copy in the folder of ``--package`` has it.

    Raises:
        UsageError: There is no copy of it, or it cannot be built as the other options ask.
    """
    from gdn_aot.catalogue.providers import ProviderCopy
    from gdn_aot.machine.kernel_package import read_package

    if not provider.marker:
        raise UsageError(f"--package is not for provider {provider.name}", hint="leave --package out")
    if options["capture"]:
        why = "a capture names the kernels of what is installed"
        raise UsageError(f"--package cannot stand beside --capture: {why}", hint="leave --capture out")
    if options["executor"] != "local":
        raise UsageError("--package is built on this machine: other nodes do not have it", hint="leave --executor out")
    package = read_package(str(options["package"]), provider.marker)
    note(f"building for {package.distribution} {package.version}, imported as {package.module}")
    copy = ProviderCopy(
        folder=package.folder, module=package.module, version=package.version, licenses=package.licenses
    )
    return provider.of_copy(copy, package.distribution)


def _note_fallbacks(job: Job, targets: tuple[Target, ...]) -> None:
    for target in targets:
        if job.wanted.shapes_for(target) != job.wanted.shapes:
            note(f"{target} has no bf16 arithmetic: building for fp16; --dtype bf16 builds the emulation")


def _only_row(identifier: str | None, matrix: Path) -> MatrixRow | None:
    """Return the row that ``--only`` names, if it is given, checked against the other options and the environment.

    Raises:
        UsageError: An option stands beside it that says what to build, or another provider or Triton is installed.
        NothingSelectedError: The matrix has no such row.
        MatrixError: The file is malformed.
    """
    context = click.get_current_context()
    if identifier is None:
        if _given(context, "matrix"):
            raise UsageError("--matrix without --only means nothing", hint="--only IDENTIFIER; see gdn-aot matrix")
        return None
    if beside := [name for name in _SAID_BY_ROW if _given(context, name)]:
        option = f"--{beside[0].replace('_', '-')}"
        raise UsageError(
            f"{option} cannot stand beside --only, which says what is built by the row of the matrix",
            hint=f"leave {option} out, or say everything without --only",
        )
    from gdn_aot.matrix import load
    from gdn_aot.matrix.select import one

    found = load(matrix)
    row = one(found, identifier)
    _check_environment(found, row)
    return row


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


def _check_environment(matrix: Matrix, row: MatrixRow) -> None:
    from gdn_aot.machine import installed

    wanted = {row.environment.distribution: row.environment.version, "triton": row.environment.triton}
    there = {name: installed.version(name) for name in wanted}
    if there == wanted:
        return
    needs = " and ".join(f"{name} {version}" for name, version in wanted.items())
    has = " and ".join(f"{name} {version}" if version else f"no {name}" for name, version in there.items())
    where = f".venv-{row.environment.name}"
    pip = f"{where}/bin/pip install --no-deps"
    raise UsageError(
        f"{row.identifier} is built with {needs}, but here is {has}",
        hint=(
            f"make its environment: python{row.environment.python} -m venv {where} && "
            f"{pip} -r {os.path.relpath(matrix.requirements(row.environment))} && {pip} ."
        ),
    )


def _report(built: Built) -> None:
    if built.manifest is None or built.path is None:
        spilling = f"{plural(len(built.spilling), 'kernel')} with too much local memory"
        why = spilling if built.spilling else f"{len(built.choices.failures)} compiles failed"
        note(f"{built.target}: not packed, {why} ({times(built.seconds)})")
        return
    kernels = built.manifest.kernels
    found = _provenance(built.manifest)
    note(
        f"{built.target}: {plural(len(kernels), 'kernel')}, {plural(found.total(), 'choice')}"
        f"{' (' * bool(found)}{', '.join(f'{count} {name}' for name, count in found.items())}{')' * bool(found)}, "
        f"{plural(sum(len(k.binaries) for k in kernels), 'binary', 'binaries')} "
        f"in {built.path.stat().st_size / 1024:.0f} KiB; "
        f"compiled {built.run.compiled} ({times(built.seconds)})"
    )
    for failure in built.choices.failures[:_SHOWN_FAILURES]:
        note(f"  failed: {_failed(failure)}")
    for kernel, candidate, local in dict.fromkeys(built.choices.spills):
        note(f"  spills: {kernel} with {candidate}: {local} bytes of local memory per thread, nothing is sound")
    for gap in built.manifest.not_covered:
        note(f"  not covered: {gap.kernel}: {gap.reason}")


def _provenance(manifest: Manifest) -> Counter[str]:
    """Return how many choices come from where."""
    return Counter(choice.provenance for kernel in manifest.kernels for choice in kernel.choices)


def _warn_of_defaults(job: Job, finished: list[Built]) -> None:
    """Say that no choice was measured, as no tuning records were there to be asked."""
    if job.tuning_root is None and any(built.manifest and _provenance(built.manifest) for built in finished):
        note("Warning: there were no tuning records, so no choice was measured; --tuning names their directory")


def _failed(failure: Failure) -> str:
    return f"{failure.kernel} with {failure.candidate}: {failure.message}"


def _artifact(manifest: Manifest, path: Path, built: Built) -> dict[str, Any]:
    from gdn_aot.artifact.manifest import Provenance

    kernels = manifest.kernels
    provenance = _provenance(manifest)
    return {
        "path": str(path),
        "identifier": manifest.identifier,
        "arch": manifest.target.name,
        "size": path.stat().st_size,
        "sha256": file_sha256(path),
        "kernels": len(kernels),
        "choices": sum(len(kernel.choices) for kernel in kernels),
        "binaries": sum(len(kernel.binaries) for kernel in kernels),
        "provenance": {name: provenance.get(name, 0) for name in get_args(Provenance)},
        "derived": sum(choice.derived for kernel in kernels for choice in kernel.choices),
        "not_covered": [
            {"kernel": gap.kernel, "reason": gap.reason, "keys": len(gap.keys)} for gap in manifest.not_covered
        ],
        "rejected": [
            {"kernel": kernel, "candidate": candidate, "reason": reason}
            for kernel, candidate, reason in dict.fromkeys(built.choices.rejected)
        ],
        "spills": [
            {"kernel": kernel, "candidate": candidate, "local": local}
            for kernel, candidate, local in dict.fromkeys(built.choices.spills)
        ],
        "compiled": built.run.compiled,
        "compile_seconds": rounded(dict(built.run.spent.most_common())),
        "seconds": rounded(built.seconds),
    }

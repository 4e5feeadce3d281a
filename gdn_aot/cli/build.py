"""``gdn-aot build``."""

from __future__ import annotations

import fnmatch
import hashlib
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gdn_aot.cli import _executor, _options
from gdn_aot.cli._captured import captured_archs, selected_captures
from gdn_aot.cli._models import selected_shapes
from gdn_aot.cli._only import only_row
from gdn_aot.cli._output import Progress, emit_json, note, out
from gdn_aot.errors import CompileFailedError, NothingSelectedError, NotWritableError, UsageError

if TYPE_CHECKING:
    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.building.pipeline import Built
    from gdn_aot.catalogue.providers import ProviderInfo

RECORDS = Path("artifacts")
"""Where records of tuning and numerics lie, from the working directory."""
_SHOWN_FAILURES = 20


def select_workloads(
    provider: ProviderInfo, mode: str, wanted: tuple[str, ...], unwanted: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the provider's workloads for a mode that match ``wanted`` globs and no ``unwanted`` one.

    Raises:
        UsageError: A glob matches nothing.
        NothingSelectedError: No workload is left.
    """
    names = [name for name, belongs in provider.workloads if belongs == "inference" or mode == "train"]
    for pattern in (*wanted, *unwanted):
        if not fnmatch.filter(names, pattern):
            raise UsageError(
                f"no {mode} workload of {provider.name} matches {pattern!r}",
                hint=f"workloads are {', '.join(names)}",
            )
    left = tuple(
        name
        for name in names
        if any(fnmatch.fnmatch(name, pattern) for pattern in wanted or ("*",))
        and not any(fnmatch.fnmatch(name, pattern) for pattern in unwanted)
    )
    if not left:
        raise NothingSelectedError("every workload is excluded")
    return left


@click.command("build")
@_options.only
@_options.matrix
@_options.arch
@_options.model
@_options.tp
@_options.shape
@_options.dtype
@_options.provider
@_options.mode
@_options.max_tokens
@_options.max_batch
@_options.jobs
@_options.workload
@_options.exclude_workload
@click.option(
    "--capture",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also build every launch of this file of gdn-aot capture; repeatable.",
)
@click.option(
    "--candidates",
    type=click.Choice(["chosen", "all"]),
    default="chosen",
    show_default=True,
    help="all also packs the candidates that were not chosen, for tuning.",
)
@_options.tuning
@click.option(
    "--numerics",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory of the records of gdn-aot check.  [default: artifacts/numerics if it exists]",
)
@_options.timeout
@_options.cluster
@click.option("--keep-going", is_flag=True, help="Pack what compiles, and end with 0, when some kernels do not.")
@_options.cache_dir
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("artifacts/dist"), show_default=True,
    help="Directory for the artifacts.",
)  # fmt: skip
@_options.as_json
def command(
    only: str | None,
    matrix: Path,
    arch: tuple[str, ...],
    model: tuple[str, ...],
    tp: str,
    shape: tuple[str, ...],
    dtype: tuple[str, ...],
    provider: str,
    mode: str,
    max_tokens: int,
    max_batch: int,
    jobs: int,
    workload: tuple[str, ...],
    exclude_workload: tuple[str, ...],
    capture: tuple[Path, ...],
    candidates: str,
    tuning: Path | None,
    numerics: Path | None,
    timeout: float,
    executor: str,
    address: str | None,
    keep_going: bool,
    cache_dir: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Trace, compile, choose and pack one artifact per target. Needs no GPU."""
    import msgspec

    from gdn_aot.building import pipeline
    from gdn_aot.catalogue.providers import Limits, get_provider
    from gdn_aot.catalogue.targets import parse_archs
    from gdn_aot.compiling.cache import BuildCache, default_cache
    from gdn_aot.tracing.wanted import Wanted

    start = time.monotonic()
    if row := only_row(only, matrix):
        arch, provider, model = (row.target,), row.environment.provider, row.models
        tp, max_tokens = ",".join(map(str, row.tp)), row.max_tokens
    beside = matrix.parent
    source = click.get_current_context().get_parameter_source("provider")
    captured = selected_captures(
        capture, provider if source is not ParameterSource.DEFAULT else None, alone=not (model or shape)
    )
    chosen_provider = get_provider(captured.provider if captured else provider)
    arch = arch or (captured_archs(captured) if captured else ())
    if not arch:
        raise UsageError("no target given", hint="--arch sm_90, repeatable, or --arch all")
    targets = parse_archs(list(arch))
    selection = selected_shapes(chosen_provider, model, tp, shape, dtype, captured=captured is not None)
    wanted = Wanted(
        provider=chosen_provider,
        shapes=tuple(selection.shapes),
        fp16_fallback=not dtype and not shape,
        limits=Limits(max_tokens=max_tokens, max_batch=max_batch, mode=mode),
        workloads=select_workloads(chosen_provider, mode, workload, exclude_workload),
        capture=captured,
    )
    job = pipeline.Job(
        wanted=wanted,
        cache=BuildCache(cache_dir) if cache_dir else default_cache(),
        tuning_root=tuning_root(tuning, beside),
        jobs=jobs,
        timeout=timeout,
        all_candidates=candidates == "all",
        keep_going=keep_going,
        output=output,
        numerics_root=numerics or (usual if (usual := beside / "numerics").is_dir() else None),
    )
    pipeline.check_environment(job, targets)
    for target in targets:
        if job.wanted.shapes_for(target) != job.wanted.shapes:
            note(f"{target} has no bf16 arithmetic: building for fp16; --dtype bf16 builds the emulation")
    check_output(output)
    finished: list[Built] = []
    with Progress("build") as progress, _executor.executor(executor, address) as work:
        for built in pipeline.build(replace(job, executor=work), targets, progress.update):
            finished.append(built)
            report(built)
    failures = [(built, failure) for built in finished for failure in built.choices.failures]
    packed = [artifact_json(built) for built in finished if built.path]
    document = {
        "artifacts": packed,
        "skipped": [asdict(item) for item in selection.skipped],
        "left_out": msgspec.to_builtins(captured.left_out if captured else ()),
        "failures": [{"arch": built.target.name, **asdict(failure)} for built, failure in failures],
        "seconds": round(time.monotonic() - start, 3),
    }
    if failures and not keep_going:
        raise CompileFailedError(failure_text(failures))
    if as_json:
        emit_json(document)
    else:
        for built in finished:
            out(str(built.path))


def tuning_root(given: Path | None, beside: Path = RECORDS) -> Path | None:
    """Return the directory of tuning records: the one given, else ``tuning`` in ``beside`` if it is there.

    Raises:
        UsageError: The one given is no directory.
    """
    if given is not None and not given.is_dir():
        raise UsageError(f"--tuning {given} is not a directory", hint="leave it out to build with default choices")
    usual = beside / "tuning"
    return given or (usual if usual.is_dir() else None)


def check_output(directory: Path) -> None:
    """Create the output directory and check that it can be written, before anything is compiled.

    Raises:
        NotWritableError: It cannot.
    """
    probe = directory / ".gdn-aot-probe"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise NotWritableError(f"cannot write to {directory}: {error.strerror}") from error


def report(built: Built) -> None:
    """Say on stderr what became of one target."""
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in built.seconds.items())
    if built.manifest is None or built.path is None:
        note(f"{built.target}: not packed, {len(built.choices.failures)} compiles failed ({times})")
        return
    kernels = built.manifest.kernels
    note(
        f"{built.target}: {len(kernels)} kernels, {sum(len(k.choices) for k in kernels)} choices, "
        f"{sum(len(k.binaries) for k in kernels)} binaries in {built.path.stat().st_size / 1024:.0f} KiB; "
        f"compiled {built.run.compiled} ({times})"
    )
    for failure in built.choices.failures[:_SHOWN_FAILURES]:
        note(f"  failed: {failure.kernel} with {failure.candidate}: {failure.message}")
    for gap in built.manifest.not_covered:
        note(f"  not covered: {gap.kernel}: {gap.reason}")


def failure_text(failures: list[Any]) -> str:
    """Return one message with every failed compile."""
    lines = [
        f"  {built.target}: {failure.kernel} with {failure.candidate}: {failure.message}" for built, failure in failures
    ]
    return "\n".join([f"{len(failures)} kernels did not compile:", *lines])


def artifact_json(built: Built) -> dict[str, Any]:
    """Return the ``--json`` description of one artifact that was built."""
    assert built.manifest is not None  # noqa: S101
    assert built.path is not None  # noqa: S101
    return {
        **artifact_row(built.manifest, built.path),
        "rejected": [
            {"kernel": kernel, "candidate": candidate, "reason": reason}
            for kernel, candidate, reason in dict.fromkeys(built.choices.rejected)
        ],
        "compiled": built.run.compiled,
        "compile_seconds": {name: round(seconds, 3) for name, seconds in built.run.spent.most_common()},
        "seconds": {name: round(seconds, 3) for name, seconds in built.seconds.items()},
    }


def artifact_row(manifest: Manifest, path: Path) -> dict[str, Any]:
    """Return what ``--json`` says of a packed file, however it was made."""
    kernels = manifest.kernels
    data = path.read_bytes()
    provenance = Counter(choice.provenance for kernel in kernels for choice in kernel.choices)
    return {
        "path": str(path),
        "identifier": manifest.identifier,
        "arch": manifest.target.name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "kernels": len(kernels),
        "choices": sum(len(kernel.choices) for kernel in kernels),
        "binaries": sum(len(kernel.binaries) for kernel in kernels),
        "provenance": {name: provenance.get(name, 0) for name in ("measured", "captured", "transferred", "default")},
        "derived": sum(choice.derived for kernel in kernels for choice in kernel.choices),
        "not_covered": [
            {"kernel": gap.kernel, "reason": gap.reason, "keys": len(gap.keys)} for gap in manifest.not_covered
        ],
    }

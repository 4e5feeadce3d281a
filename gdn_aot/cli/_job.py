"""What the commands that build for models make of their options."""

from __future__ import annotations

import fnmatch
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot._files import is_folder
from gdn_aot.cli._output import note
from gdn_aot.errors import NothingSelectedError, NotWritableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.building.pipeline import Job
    from gdn_aot.capture.form import Capture
    from gdn_aot.catalogue.models import Selection
    from gdn_aot.catalogue.providers import Limits, ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.deployment import Deployment
    from gdn_aot.tracing.captured import CapturedKernels

_SHOWN = 12
"""Kernels of a capture left out that are named; ``--json`` has all."""
RECORDS = Path("artifacts")
"""Where records of tuning and numerics lie, from the working directory."""


def make_job(
    provider: ProviderInfo,
    selection: Selection,
    limits: Limits,
    options: Mapping[str, Any],
    capture: CapturedKernels | None = None,
    deployment: Deployment | None = None,
    **more: Any,
) -> Job:
    """Return the job that a command's options ask for; ``more`` are fields of it that commands do not share.

    Raises:
        UsageError: A glob of workloads matches nothing.
        NothingSelectedError: No workload is left, or none that is for one of the models.
    """
    from gdn_aot.building.pipeline import Job
    from gdn_aot.compiling.cache import BuildCache, default_cache
    from gdn_aot.tracing.wanted import Wanted

    workloads = select_workloads(provider, limits.mode, options["workload"], options["exclude_workload"])
    wanted = Wanted(
        provider=provider,
        shapes=selection.shapes,
        fp16_fallback=not options["dtype"] and not options["shape"],
        limits=limits,
        workloads=provider.for_families(workloads, {shape.family for shape in selection.shapes}),
        capture=capture,
        deployment=deployment,
    )
    cache = BuildCache(options["cache_dir"]) if options["cache_dir"] else default_cache()
    run = {name: options[name] for name in ("jobs", "timeout", "output")}
    return Job(wanted=wanted, cache=cache, **run, **more)


def selected_targets(archs: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets that ``--arch`` names.

    Raises:
        UsageError: One of them is unknown, or none is named.
    """
    from gdn_aot.catalogue.targets import parse_archs

    if not archs:
        raise UsageError("no target given", hint="--arch sm_90, repeatable, or --arch all")
    return parse_archs(archs)


def selected_shapes(provider: ProviderInfo, options: Mapping[str, Any], *, captured: bool | None = None) -> Selection:
    """Return the shapes that the options name, and say which sizes divide none.

    With a capture no shape need be named; ``captured`` is None if the command takes no captures.

    Raises:
        UsageError: One of them is wrong, the provider takes no ``--shape``, or none is named and none is captured.
        NothingSelectedError: None of the sizes divides any of the models.
    """
    from gdn_aot.catalogue.models import Selection, parse_tp, select_shapes

    models, shapes = options["model"], options["shape"]
    if shapes and provider.catalogue_only:
        raise UsageError(
            f"--shape is not for provider {provider.name}: {provider.catalogue_only}",
            hint=f"--model for what gdn-aot models lists; else record it: {provider.capture_hint}",
        )
    sizes = parse_tp(options["tp"])
    if not models and not shapes:
        if captured:
            return Selection(shapes=(), skipped=())
        ways = ["--model qwen3.5-9b", "--model all", *["--shape"] * (not provider.catalogue_only)]
        ways += ["--capture"] * (captured is not None)
        raise UsageError("no model given", hint=f"{', '.join(ways[:-1])} or {ways[-1]}; see gdn-aot models")
    selection = select_shapes(models, sizes, shapes, options["dtype"])
    for skipped in selection.skipped:
        note(f"skipped: {skipped.reason}")
    return selection


def select_workloads(
    provider: ProviderInfo, mode: str, wanted: tuple[str, ...], unwanted: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the provider's workloads for a mode that match ``wanted`` globs and no ``unwanted`` one.

    Without ``wanted`` those are its usual ones; what is built on request has to match.

    Raises:
        UsageError: A glob matches nothing.
        NothingSelectedError: No workload is left.
    """
    train = mode == "train"
    usual = provider.workloads + provider.training * train
    names = provider.inference + (provider.training + provider.training_on_request) * train
    for pattern in (*wanted, *unwanted):
        if not fnmatch.filter(names, pattern):
            raise UsageError(
                f"no {mode} workload of {provider.name} matches {pattern!r}", hint=f"workloads are {', '.join(names)}"
            )
    chosen = set[str]().union(*(fnmatch.filter(names, pattern) for pattern in wanted)) if wanted else set(usual)
    chosen.difference_update(*(fnmatch.filter(names, pattern) for pattern in unwanted))
    if not chosen:
        raise NothingSelectedError("every workload is excluded")
    return tuple(name for name in names if name in chosen)


def tuning_root(given: Path | None, beside: Path = RECORDS) -> Path | None:
    """Return the directory of tuning records: the one given, else ``tuning`` in ``beside``, else what a wheel brought.

    Raises:
        UsageError: The one given is no directory.
    """
    if given is not None and not is_folder(given):
        raise UsageError(f"--tuning {given} is not a directory", hint="leave it out to build with default choices")
    return given or usual_records("tuning", beside)


def usual_records(kind: str, beside: Path = RECORDS) -> Path | None:
    """Return the usual directory of records, ``tuning`` or ``numerics``: that in ``beside``, else that of the wheel."""
    places = beside / kind, Path(sysconfig.get_path("data")) / "share/gdn-aot" / kind
    return next(filter(is_folder, places), None)


def check_output(directory: Path) -> None:
    """Create the output directory and check that it can be written, before anything is compiled.

    Raises:
        NotWritableError: It cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise NotWritableError(f"cannot write to {directory}: {error.strerror}") from error


def selected_captures(paths: Sequence[Path], provider: str | None, *, alone: bool) -> CapturedKernels | None:
    """Read captures, take a provider's kernels, or the only one's, out of them, and say which others are left out.

    Raises:
        NothingSelectedError: There is nothing of this provider in them, and nothing else to build.
        UsageError: They are of other versions than those installed, or of several providers.
        VerificationError: A file is no capture.
    """
    if not paths:
        return None
    from gdn_aot.capture.form import load
    from gdn_aot.catalogue.providers import get_provider
    from gdn_aot.tracing.captured import select

    captures = [load(path) for path in paths]
    captured = select(captures, get_provider(provider or _owner(captures)))
    for item in captured.left_out[:_SHOWN]:
        note(f"left out: {item.what}: {item.reason}")
    if len(captured.left_out) > _SHOWN:
        note(f"left out: {len(captured.left_out) - _SHOWN} more; --json lists them")
    if alone and not captured.capture.launches:
        raise NothingSelectedError(
            f"the capture has no kernel of provider {captured.provider}",
            hint="see what was left out, or choose another --provider",
        )
    return captured if captured.capture.launches else None


def _owner(captures: Sequence[Capture]) -> str:
    from gdn_aot.tracing.captured import owners

    found = owners(captures)
    if len(found) > 1:
        raise UsageError(
            f"the capture has kernels of providers {' and '.join(found)}; an artifact holds one provider's",
            hint=f"--provider {found[0]}, then --provider {found[1]}",
        )
    if not found:
        raise NothingSelectedError(
            "no kernel of the capture is of a known provider", hint="gdn-aot providers lists them"
        )
    return found[0]


def captured_archs(captured: CapturedKernels) -> tuple[str, ...]:
    """Return the architectures that were recorded on and can be built for."""
    from gdn_aot.catalogue.targets import all_targets

    known = {target.name for target in all_targets()}
    return tuple(name for name in captured.capture.targets if name in known)

"""Builds as `gdn_aot.building.pipeline.Job`, for tests that take a build apart."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gdn_aot.building.pipeline import Job
from gdn_aot.catalogue.models import ModelShape, parse_shape
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.tracing.wanted import Wanted


def make_wanted(
    shapes: Iterable[ModelShape | str] = (),
    workloads: Iterable[str] = (),
    limits: Limits | None = None,
    *,
    fp16_fallback: bool = False,
) -> Wanted:
    """Return what is wanted of FLA; a shape may be what ``--shape`` takes."""
    return Wanted(
        provider=get_provider("fla"),
        shapes=tuple(parse_shape(shape).shape(1) if isinstance(shape, str) else shape for shape in shapes),
        fp16_fallback=fp16_fallback,
        limits=limits or Limits(),
        workloads=tuple(workloads),
    )


def make_job(
    cache: Path,
    output: Path,
    *,
    shapes: Iterable[ModelShape | str] = (),
    workloads: Iterable[str] = (),
    limits: Limits | None = None,
    fp16_fallback: bool = False,
    **options: Any,
) -> Job:
    """Return a build of FLA's kernels, with a build cache and into a directory; ``options`` are fields of the job."""
    wanted = make_wanted(shapes, workloads, limits, fp16_fallback=fp16_fallback)
    return Job(wanted=wanted, cache=BuildCache(cache), output=output, **{"jobs": 2, "timeout": 120, **options})

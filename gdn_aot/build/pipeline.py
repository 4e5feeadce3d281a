"""Build artifacts: trace, compile, choose, pack; one target after another, the next one importing meanwhile."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from gdn_aot.artifact import archive
from gdn_aot.artifact.manifest import file_name
from gdn_aot.artifact.shard import file_name as shard_name
from gdn_aot.build import pack, shard, sources, split
from gdn_aot.build.cache import digest
from gdn_aot.build.client import Worker
from gdn_aot.build.compilation import Compilation
from gdn_aot.build.records import Trace
from gdn_aot.errors import UnsupportedTargetError, UnsupportedTritonError
from gdn_aot.models import distinct
from gdn_aot.numerics import record as results
from gdn_aot.providers import require_installed
from gdn_aot.targets import assembler_version, check_assembler
from gdn_aot.triton_internals import check_version
from gdn_aot.tune import record
from gdn_aot.tune.transfer import Transfer

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.build.cache import BuildCache
    from gdn_aot.build.captured import CapturedKernels
    from gdn_aot.build.choose import Choices, Suggest
    from gdn_aot.build.client import Extras
    from gdn_aot.build.records import Config, Scalar
    from gdn_aot.build.split import Part
    from gdn_aot.models import ModelShape
    from gdn_aot.providers import Limits, ProviderInfo
    from gdn_aot.targets import Target


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to build, for every target alike."""

    provider: ProviderInfo
    shapes: tuple[ModelShape, ...]
    fp16_fallback: bool
    """Build for fp16 on targets without bf16 arithmetic: that is what such cards are run with."""
    limits: Limits
    workloads: tuple[str, ...]
    cache: BuildCache
    tuning_root: Path | None
    jobs: int
    timeout: float
    all_candidates: bool
    keep_going: bool
    output: Path
    ptx: bool = False
    """Keep the PTX of everything compiled in the build cache; what was compiled without is compiled again."""
    numerics_root: Path | None = None
    """Directory of the records of `gdn_aot.numerics`."""
    capture: CapturedKernels | None = None
    """Kernels of a capture that are built too."""
    part: Part | None = None
    """Build this shard of each artifact instead of the artifact."""

    def shapes_for(self, target: Target) -> tuple[ModelShape, ...]:
        """Return the shapes to build for a target."""
        if target.bf16 or not self.fp16_fallback:
            return self.shapes
        return tuple(dict.fromkeys(replace(shape, dtype="fp16") for shape in self.shapes))

    def distinct_for(self, target: Target) -> tuple[ModelShape, ...]:
        """Return one of each of these that the provider's kernels can tell apart."""
        return distinct(self.shapes_for(target), paged=self.provider.paged)


@dataclass(kw_only=True)
class Built:
    """One finished target."""

    target: Target
    manifest: Manifest | None
    path: Path | None
    choices: Choices
    compiled: int
    """Kernels that the compiler really ran for; the rest came from the cache."""
    spent: Counter[str]
    """CPU seconds of the compile workers per kernel."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds per step."""


def check_environment(job: Job, targets: Sequence[Target]) -> None:
    """Check what can be checked before any work.

    Raises:
        ProviderMissingError: The provider is not installed.
        UnsupportedTritonError: Triton is not installed, or of a version that is not supported.
        UnsupportedTargetError: The installed ptxas cannot assemble for a target.
    """
    require_installed(job.provider.name)
    triton = sources.installed("triton")
    if triton is None:
        raise UnsupportedTritonError("Triton is not installed", hint="pip install 'triton>=3.6,<3.10'")
    check_version(triton)
    for target in targets:
        reason = check_assembler(target)
        if reason is not None:
            raise UnsupportedTargetError(f"{target} cannot be built here: {reason}")


def build(job: Job, targets: Sequence[Target], progress: Callable[[int, int, str], None]) -> Iterator[Built]:
    """Build each target in turn and yield it.

    While one target compiles, the next one's worker imports the provider and the one before is packed.

    Raises:
        GdnAotError: Of the class that fits; see `gdn_aot.errors`.
    """
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(max_workers=1) as packer:
        lazy = [LazyWorker(stack, job.provider.name, target) for target in targets]
        packing: Future[Built] | None = None
        for position, target in enumerate(targets):
            following = lazy[position + 1] if position + 1 < len(targets) else None
            finish = _compile_target(job, target, lazy[position], following, progress)
            lazy[position].close()
            if packing is not None:
                yield packing.result()
            packing = packer.submit(finish)
        if packing is not None:
            progress(0, 0, "packing")
            yield packing.result()


class LazyWorker:
    """A worker that is started when first needed: an unchanged rebuild needs none."""

    def __init__(self, stack: contextlib.ExitStack, provider: str, target: Target) -> None:
        self._stack, self._provider, self._target = stack, provider, target
        self._worker: Worker | None = None
        self._own = contextlib.ExitStack()

    def get(self) -> Worker:
        """Return the worker, starting it if need be."""
        if self._worker is None:
            self._stack.push(self._own)
            self._worker = self._own.enter_context(Worker(self._provider, self._target))
        return self._worker

    def close(self) -> None:
        """End it."""
        self._own.close()


@dataclass(kw_only=True)
class Compiled:
    """One target, traced, chosen for and compiled."""

    whole: Trace
    """As it was traced first."""
    trace: Trace
    """As it was traced last; the part of it that was chosen for, in a shard."""
    choices: Choices
    run: Compilation
    seconds: dict[str, float]
    """Wall seconds per step."""


def compile_target(
    job: Job,
    target: Target,
    lazy: LazyWorker,
    following: LazyWorker | None,
    progress: Callable[[int, int, str], None],
) -> Compiled:
    """Trace, choose and compile one target. ``following`` is started when compiling starts."""
    start = time.monotonic()
    tuned = tuned_for(job, target)
    progress(0, 0, f"{target}: tracing")
    whole = traced(job, target, lazy.get, extras=tuned.extras)
    trace = split.take(whole, job.part) if job.part else whole
    marks = {"trace": time.monotonic() - start}
    run = Compilation(job, target, trace, lazy, following, progress)
    choices = run.choose(tuned)
    if any(key is not None for _, _, key in choices.uncovered):
        progress(0, 0, f"{target}: tracing smaller candidates")
        trace = traced(job, target, lazy.get, derive="smaller", extras=tuned.extras)
        trace = split.take(trace, job.part) if job.part else trace
        smaller = Compilation(job, target, trace, lazy, following, progress)
        smaller.compiled, smaller.spent, smaller.pool_started = run.compiled, run.spent, run.pool_started
        smaller.before = run
        run, choices = smaller, smaller.choose(tuned)
    marks["compile"] = time.monotonic() - start - marks["trace"]
    return Compiled(whole=whole, trace=trace, choices=choices, run=run, seconds=marks)


def _compile_target(
    job: Job,
    target: Target,
    lazy: LazyWorker,
    following: LazyWorker | None,
    progress: Callable[[int, int, str], None],
) -> Callable[[], Built]:
    """Trace, choose and compile one target. Returns what is left to do: packing."""
    done = compile_target(job, target, lazy, following, progress)
    built = Built(
        target=target,
        manifest=None,
        path=None,
        choices=done.choices,
        compiled=done.run.compiled,
        spent=done.run.spent,
        seconds=done.seconds,
    )
    if done.choices.failures and not job.keep_going:
        return lambda: built
    return partial(pack_target, job, done, built)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What records say for one target."""

    measured: record.TuningTable
    suggest: Suggest
    """Asked for the keys that ``measured`` lacks: what a capture has, then what is transferred."""
    extras: Extras
    """Configurations that only a wide search offers; see `gdn_aot.build.client.Worker.trace`."""


def tuned_for(job: Job, target: Target) -> Tuned:
    """Read the record of a target, and find those that it may be transferred from."""
    distribution, version = job.provider.distribution, require_installed(job.provider.name)
    triton = sources.installed("triton")
    own = None
    if job.tuning_root is not None:
        path = record.record_path(job.tuning_root, target.name, distribution, version)
        own = record.load(path, target=target.name, distribution=distribution, version=version)
    measured = record.table(own, triton)
    transfer = Transfer(job.tuning_root, target, distribution, version, triton)
    return Tuned(
        measured=measured,
        suggest=partial(_suggested, job.capture, target, transfer.suggest),
        extras=record.extras(measured),
    )


def _suggested(
    capture: CapturedKernels | None,
    target: Target,
    transferred: Suggest,
    kernel: str,
    key: tuple[Scalar, ...],
    own: Sequence[Config],
) -> Sequence[record.TunedChoice]:
    """Return choices that were not measured here, best first: that of the deployment, if it is on this very target."""
    rest = transferred(kernel, key, own)
    found = capture.choice(target, kernel, key) if capture is not None else None
    if found is None or found.config not in own:
        return rest
    return [found, *(choice for choice in rest if choice.config != found.config)]


def pack_target(job: Job, done: Compiled, built: Built) -> Built:
    """Write the artifact, or the shard of it, of a target that was compiled; say so in ``built`` and return that."""
    start = time.monotonic()
    trace = done.trace
    licenses = sources.license_texts(job.provider)
    manifest = pack.make_manifest(
        provider=job.provider,
        target=built.target,
        trace=trace,
        choices=built.choices,
        objects=done.run.kept(done.choices),
        shapes=job.shapes_for(built.target),
        workloads=trace.workloads,
        limits=job.limits,
        licenses=licenses,
        numerics=results.summary(job.numerics_root, job.provider, built.target, trace, built.choices),
    )
    if job.part is None:
        path = job.output / file_name(manifest.identifier)
    else:
        stated = shard.describe(job, built.target, job.part, done.whole, trace, built.choices, manifest)
        manifest = replace(manifest, shard=stated)
        path = job.output / shard_name(manifest.identifier, job.part.number, job.part.of)
    archive.write_artifact(manifest, pack.blobs(manifest, job.cache, licenses), path)
    built.manifest, built.path = manifest, path
    built.seconds["pack"] = time.monotonic() - start
    return built


def traced(
    job: Job,
    target: Target,
    worker: Callable[[], Worker],
    *,
    derive: str = "",
    extras: Extras | None = None,
    tokens: Sequence[int] = (),
) -> Trace:
    """Return the trace of a job for a target, from the cache if nothing that it depends on has changed.

    Args:
        job: What is built.
        target: For which target.
        worker: Starts the worker if it is needed.
        derive: As for `gdn_aot.build.client.Worker.trace`.
        extras: Likewise.
        tokens: Likewise.
    """
    shapes = job.distinct_for(target)
    named = {name: list(map(str, configs)) for name, configs in (extras or {}).items()}
    ptxas = assembler_version(target) or "unknown"
    # Tuning traces travel to the machine with the card, whose PyTorch may be another build: the tuner sees live what is
    # launched, and says if it was not traced.
    packages = ("triton", *(() if tokens else ("torch",)), job.provider.distribution)
    key = digest(
        sources.code_digest(job.provider),
        {name: sources.installed(name) for name in packages},
        ptxas,
        json.loads(json.dumps(asdict(target))),
        [asdict(shape) for shape in shapes],
        asdict(job.limits),
        job.workloads,
        derive,
        named,
        list(tokens),
        (job.capture.name, job.capture.plain) if job.capture else None,
    )
    stored = job.cache.trace(key)
    if stored is None:
        stored = worker().trace(
            shapes,
            job.limits,
            job.workloads,
            ptxas,
            derive=derive,
            extras=extras,
            tokens=tokens,
            capture=job.capture,
        )
        job.cache.put_trace(key, stored)
    return Trace.from_json(stored)

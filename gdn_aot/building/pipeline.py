"""Build artifacts: trace, compile, choose, pack; one target after another, the next one traced meanwhile."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from gdn_aot.artifact import archive
from gdn_aot.artifact.names import file_name
from gdn_aot.building import pack
from gdn_aot.catalogue.models import distinct
from gdn_aot.catalogue.targets import assembler_version, check_assembler
from gdn_aot.choosing.known import tuned_for
from gdn_aot.compiling.cache import digest
from gdn_aot.compiling.compilation import Compilation, compiler
from gdn_aot.errors import UnsupportedTargetError, UnsupportedTritonError
from gdn_aot.executors.base import Order
from gdn_aot.executors.local import LocalExecutor
from gdn_aot.machine import installed
from gdn_aot.records import numerics as results
from gdn_aot.tracing import sources
from gdn_aot.tracing.client import Worker
from gdn_aot.tracing.records import UNUSABLE, Trace
from gdn_aot.triton_internals import check_version

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits, ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Choices
    from gdn_aot.choosing.known import Tuned
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.executors.base import Executor
    from gdn_aot.tracing.captured import CapturedKernels
    from gdn_aot.tracing.client import Extras


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
    """Directory of the records of `gdn_aot.reference`."""
    capture: CapturedKernels | None = None
    """Kernels of a capture that are built too."""
    executor: Executor = field(default_factory=LocalExecutor)
    """Where kernels are compiled."""

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
    installed.require(job.provider.name)
    triton = installed.version("triton")
    if triton is None:
        raise UnsupportedTritonError("Triton is not installed", hint="pip install 'triton>=3.6,<3.10'")
    check_version(triton)
    for target in targets:
        reason = check_assembler(target)
        if reason is not None:
            raise UnsupportedTargetError(f"{target} cannot be built here: {reason}")


def build(job: Job, targets: Sequence[Target], progress: Callable[[int, int, str], None]) -> Iterator[Built]:
    """Build each target in turn and yield it.

    While one target compiles, the next one is traced and the one before is packed.

    Raises:
        GdnAotError: Of the class that fits; see `gdn_aot.errors`.
    """
    threads = ThreadPoolExecutor(max_workers=1), ThreadPoolExecutor(max_workers=1)
    with threads[0] as packer, threads[1] as tracer, contextlib.ExitStack() as stack:
        lazy = [LazyWorker(stack, job.provider.name, target) for target in targets]
        ahead: dict[int, Future[tuple[Tuned, Trace]]] = {}

        def begin(position: int) -> None:
            if position < len(targets):
                job.executor.expect(job.provider, targets[position : position + 1])
                worker = lazy[position].get()
                ahead[position] = tracer.submit(_first_trace, job, targets[position], lambda: worker)

        packing: Future[Built] | None = None
        for position, target in enumerate(targets):
            traced_before = ahead[position].result if position in ahead else None
            finish = _compile_target(
                job, target, lazy[position], progress, first=traced_before, busy=partial(begin, position + 1)
            )
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

    trace: Trace
    """As it was traced last."""
    choices: Choices
    run: Compilation
    seconds: dict[str, float]
    """Wall seconds per step."""


def compile_target(
    job: Job,
    target: Target,
    lazy: LazyWorker,
    progress: Callable[[int, int, str], None],
    *,
    first: Callable[[], tuple[Tuned, Trace]] | None = None,
    busy: Callable[[], None] | None = None,
) -> Compiled:
    """Trace, choose and compile one target.

    Args:
        job: What is built.
        target: For which target.
        lazy: Its worker.
        progress: Told what is going on.
        first: Waits for what records say and for the trace, where these were begun before.
        busy: Called when compile workers have something to do.
    """
    start = time.monotonic()
    progress(0, 0, f"{target}: tracing")
    tuned, trace = first() if first else _first_trace(job, target, expected(job, target, lazy))
    marks = {"trace": time.monotonic() - start}
    with job.executor.compiling(order(job, target, trace), lazy.get) as workers:
        run = Compilation(job, target, trace, workers, progress, busy)
        choices = run.choose(tuned)
        if any(key is not None for _, _, key in choices.uncovered):
            progress(0, 0, f"{target}: tracing smaller candidates")
            trace = traced(job, target, lazy.get, derive="smaller", extras=tuned.extras)
            smaller = Compilation(job, target, trace, workers, progress)
            smaller.compiled, smaller.spent = run.compiled, run.spent
            smaller.before = run
            run, choices = smaller, smaller.choose(tuned)
    marks["compile"] = time.monotonic() - start - marks["trace"]
    return Compiled(trace=trace, choices=choices, run=run, seconds=marks)


def order(job: Job, target: Target, trace: Trace) -> Order:
    """Return what compiling the launches of a trace takes."""
    return Order(
        provider=job.provider,
        target=target,
        compiler=compiler(target, trace),
        cache=job.cache,
        jobs=job.jobs,
        timeout=job.timeout,
    )


def expected(job: Job, target: Target, lazy: LazyWorker) -> Callable[[], Worker]:
    """Return what starts a target's worker, and has its compile workers start meanwhile."""

    def get() -> Worker:
        job.executor.expect(job.provider, [target])
        return lazy.get()

    return get


def _first_trace(job: Job, target: Target, worker: Callable[[], Worker]) -> tuple[Tuned, Trace]:
    tuned = tuned_for(job, target)
    return tuned, traced(job, target, worker, extras=tuned.extras)


def _compile_target(
    job: Job,
    target: Target,
    lazy: LazyWorker,
    progress: Callable[[int, int, str], None],
    *,
    first: Callable[[], tuple[Tuned, Trace]] | None,
    busy: Callable[[], None],
) -> Callable[[], Built]:
    """Trace, choose and compile one target. Returns what is left to do: packing."""
    done = compile_target(job, target, lazy, progress, first=first, busy=busy)
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


def pack_target(job: Job, done: Compiled, built: Built) -> Built:
    """Write the artifact of a target that was compiled; say so in ``built`` and return that."""
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
    path = job.output / file_name(manifest.identifier)
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

    One that lacks kernels because this environment cannot import them is not kept: what they need may be installed.

    Args:
        job: What is built.
        target: For which target.
        worker: Starts the worker if it is needed.
        derive: As for `gdn_aot.tracing.client.Worker.trace`.
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
        {name: installed.version(name) for name in packages},
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
    if stored is not None:
        return Trace.from_json(stored)
    made = worker().trace(
        shapes,
        job.limits,
        job.workloads,
        ptxas,
        derive=derive,
        extras=extras,
        tokens=tokens,
        capture=job.capture,
    )
    trace = Trace.from_json(made)
    if not any(reason.startswith(UNUSABLE) for _, reason in trace.left_out):
        job.cache.put_trace(key, made)
    return trace

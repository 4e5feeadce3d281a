"""Build artifacts: trace, compile, choose, pack; one target after another, the next one traced meanwhile."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from msgspec import to_builtins

from gdn_aot.artifact import archive, cost
from gdn_aot.artifact.names import file_name
from gdn_aot.building import pack
from gdn_aot.catalogue.targets import assembler_version, check_assembler
from gdn_aot.choosing.known import known_for
from gdn_aot.compiling.cache import digest
from gdn_aot.compiling.client import Worker
from gdn_aot.compiling.compilation import Compilation
from gdn_aot.compiling.executor import LocalExecutor, Order
from gdn_aot.compiling.versions import code_digest
from gdn_aot.errors import (
    Problem,
    UnsupportedProviderError,
    UnsupportedTargetError,
    UnsupportedTritonError,
    UsageError,
)
from gdn_aot.machine import installed
from gdn_aot.records import numerics
from gdn_aot.tracing.records import UNUSABLE, Trace
from gdn_aot.triton_internals import check_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.building.compile_cache import ReadCache
    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Choices
    from gdn_aot.choosing.known import Known
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.compiling.executor import Executor
    from gdn_aot.compiling.proxy import Proxy
    from gdn_aot.tracing.wanted import Wanted
    from gdn_aot.tracing.wide import Extras

    Progress = Callable[[int, int, str], None]
    """(done, of, what) of a step."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A build: what is wanted, what is known of it, and how it is run."""

    wanted: Wanted
    cache: BuildCache
    output: Path
    jobs: int
    """Compile workers on this machine."""
    timeout: float
    """Seconds that one kernel may take."""
    tuning_root: Path | None = None
    """Directory of tuning records."""
    numerics_root: Path | None = None
    """Directory of the records of numeric checks."""
    all_candidates: bool = False
    """Pack the candidates that were not chosen, too."""
    keep_going: bool = False
    """Pack what compiles where something does not."""
    allow_spills: bool = False
    """Pack kernels however much local memory they take."""
    ptx: bool = False
    """Keep the PTX of everything compiled in the build cache."""
    proxy: Proxy | None = None
    """What stands in for the target while its candidates are measured."""
    compile_cache: ReadCache | None = None
    """What the engine compiled on the machine of a recording, to be packed too."""
    executor: Executor = field(default_factory=LocalExecutor)
    """Where kernels are compiled."""


@dataclass(kw_only=True)
class Built:
    """One target, traced, chosen for and compiled; and packed, unless a compile broke or kernels spill too much."""

    target: Target
    trace: Trace
    """As it was traced last."""
    choices: Choices
    run: Compilation
    seconds: dict[str, float]
    """Wall seconds per step."""
    manifest: Manifest | None = None
    path: Path | None = None
    spilling: tuple[str, ...] = ()
    """Kernels that take more local memory than `gdn_aot.artifact.cost.REFUSED`; if there are any, nothing is packed."""


def check_environment(job: Job, targets: Sequence[Target]) -> None:
    """Check what can be checked before any work.

    Raises:
        ProviderMissingError: The provider is not installed.
        UnsupportedTritonError: Triton is not installed, or of a version that is not supported.
        UnsupportedTargetError: The installed ptxas cannot assemble for a target.
    """
    installed.built_from(job.wanted.provider)
    triton = installed.version("triton")
    if triton is None:
        raise UnsupportedTritonError("Triton is not installed", hint="pip install 'triton>=3.6,<3.10'")
    check_version(triton)
    for target in targets:
        reason = check_assembler(target)
        if reason is not None:
            raise UnsupportedTargetError(f"{target} cannot be built here: {reason}")


def build(job: Job, targets: Sequence[Target], progress: Progress) -> Iterator[Built]:
    """Build each target in turn and yield it.

    While one target compiles, the next one is traced and the one before is packed.

    Raises:
        GdnAotError: Of the class that fits; see `gdn_aot.errors`.
    """
    threads = ThreadPoolExecutor(max_workers=1), ThreadPoolExecutor(max_workers=1)
    with threads[0] as packer, threads[1] as tracer, contextlib.ExitStack() as stack:
        lazy = [LazyWorker(stack, job.wanted.provider, target) for target in targets]
        ahead: dict[int, Future[tuple[Known, Trace]]] = {}

        def begin(position: int) -> None:
            if position < len(targets):
                job.executor.expect(job.wanted.provider, targets[position : position + 1])
                worker = lazy[position].get()
                ahead[position] = tracer.submit(_first_trace, job, targets[position], lambda: worker)

        packing: Future[Built] | None = None
        for position, target in enumerate(targets):
            first = ahead[position].result if position in ahead else None
            worker, busy = lazy[position], partial(begin, position + 1)
            shown = (
                partial(_numbered, progress, f"{position + 1} of {len(targets)}, ") if len(targets) > 1 else progress
            )
            built = compile_target(job, target, worker, shown, first=first, busy=busy)
            worker.close()
            if packing is not None:
                yield packing.result()
            packing = packer.submit(_pack_target, job, built)
        if packing is not None:
            progress(0, 0, "packing")
            yield packing.result()


def _numbered(progress: Progress, number: str, done: int, total: int, text: str) -> None:
    progress(done, total, f"{number}{text}")


class LazyWorker:
    """A worker that is started when first needed: an unchanged rebuild needs none."""

    def __init__(self, stack: contextlib.ExitStack, provider: ProviderInfo, target: Target) -> None:
        self._stack, self._provider, self._target = stack, provider, target
        self._worker: Worker | None = None
        self._own = contextlib.ExitStack()
        self._far: Progress | None = None

    def get(self) -> Worker:
        """Return the worker, starting it if need be."""
        if self._worker is None:
            self._stack.push(self._own)
            provider = self._provider
            self._worker = self._own.enter_context(Worker(provider.name, self._target, copy=provider.copy))
            self._worker.far = self._tell
        return self._worker

    @contextlib.contextmanager
    def tracing(self, progress: Progress) -> Iterator[None]:
        """Show how far its trace is while somebody waits for that: a trace may have begun before."""
        progress(0, 0, f"{self._target}: tracing")
        self._far = progress
        try:
            yield
        finally:
            self._far = None

    def _tell(self, done: int, total: int, what: str) -> None:
        if (far := self._far) is not None:
            far(done, total, f"{self._target}: tracing {what}")

    def close(self) -> None:
        """End it."""
        self._own.close()


def compile_target(
    job: Job,
    target: Target,
    lazy: LazyWorker,
    progress: Progress,
    *,
    first: Callable[[], tuple[Known, Trace]] | None = None,
    busy: Callable[[], None] | None = None,
) -> Built:
    """Trace, choose and compile one target.

    ``first`` waits for what records say and for the trace, if these were begun before; ``busy`` is called when compile
    workers have something to do.
    """
    start = time.monotonic()
    with lazy.tracing(progress):
        known, trace = first() if first else _first_trace(job, target, expected(job, target, lazy))
    marks = {"trace": time.monotonic() - start}
    with job.executor.compiling(order(job, target, trace), lazy.get) as workers:
        run = Compilation(order(job, target, trace), trace, workers, progress, busy)
        choices = run.choose(known, all_candidates=job.all_candidates, final=False)
        if any(key is not None for _, _, key in choices.uncovered):
            with lazy.tracing(progress):
                trace = traced(job, target, lazy.get, derive="relieved", extras=known.extras)
            relieved = Compilation(order(job, target, trace), trace, workers, progress)
            relieved.compiled, relieved.spent = run.compiled, run.spent
            run, choices = relieved, relieved.choose(known, all_candidates=job.all_candidates, final=True)
    marks["compile"] = time.monotonic() - start - marks["trace"]
    return Built(target=target, trace=trace, choices=choices, run=run, seconds=marks)


def order(job: Job, target: Target, trace: Trace) -> Order:
    """Return what compiling the launches of a trace takes."""
    compiler = {"target": target.name, "triton": trace.triton_version, "ptxas": trace.ptxas_version}
    if job.proxy is not None and job.proxy.code != target:
        compiler["code"] = job.proxy.code.name
    return Order(
        provider=job.wanted.provider,
        target=target,
        compiler=compiler,
        cache=job.cache,
        jobs=job.jobs,
        timeout=job.timeout,
        ptx=job.ptx,
        proxy=job.proxy,
    )


def expected(job: Job, target: Target, lazy: LazyWorker) -> Callable[[], Worker]:
    """Return what starts a target's worker, and has its compile workers start meanwhile."""
    return partial(_started, job, target, lazy)


def _started(job: Job, target: Target, lazy: LazyWorker) -> Worker:
    job.executor.expect(job.wanted.provider, [target])
    return lazy.get()


def _first_trace(job: Job, target: Target, worker: Callable[[], Worker]) -> tuple[Known, Trace]:
    known = known_for(job.wanted, target, job.tuning_root)
    return known, traced(job, target, worker, extras=known.extras)


def _pack_target(job: Job, built: Built) -> Built:
    """Write the artifact of a target that was compiled, or find that it spills; say so in ``built`` and return that."""
    if built.choices.failures and not job.keep_going:
        return built
    start, target, wanted = time.monotonic(), built.target, job.wanted
    licenses = pack.license_texts(wanted.provider)
    packed = built.choices.digests(built.trace)
    manifest = pack.make_manifest(
        wanted,
        target,
        trace=built.trace,
        choices=built.choices,
        objects=built.run.kept(built.choices, all_candidates=job.all_candidates),
        licenses=licenses,
        numerics=numerics.summary(job.numerics_root, wanted.provider, target, built.trace, packed),
        compile_cache=job.compile_cache.record if job.compile_cache else None,
    )
    if not job.allow_spills:
        built.spilling = tuple(cost.over(manifest, cost.REFUSED))
        if built.spilling:
            return built
    built.manifest, built.path = manifest, job.output / file_name(manifest.identifier)
    blobs = pack.blobs(manifest, job.cache, licenses, built.trace.placed)
    archive.write_artifact(manifest, blobs | (job.compile_cache.pieces if job.compile_cache else {}), built.path)
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

    ``worker`` is called if there is none; the options are those of `gdn_aot.compiling.client.Worker.trace`. A trace
    that lacks something because this environment cannot import it is not kept: what they need may be installed.

    Raises:
        UnsupportedProviderError: Calls broke, as the provider is not as its workloads take it to be, and the job is not
            to keep going.
        UsageError: The installed version of the provider has nothing for any of the models.
    """
    trace = _traced(job, target, worker, derive, extras, tokens)
    provider = job.wanted.provider
    installed_one = f"{provider.distribution} {trace.provider_version}"
    if trace.misfits and not job.keep_going:
        broken = [Problem(f"workload {name}", reason) for name, reason in trace.misfits]
        message = f"{installed_one} is not as provider {provider.name} calls it: {broken[0]}"
        raise UnsupportedProviderError(message, broken if len(broken) > 1 else ())
    shapes = job.wanted.distinct_for(target)
    if shapes and len(trace.lacking) == len(shapes) and not job.wanted.capture:
        index, reason = trace.lacking[0]
        raise UsageError(
            f"nothing can be built for {shapes[index].name} from {installed_one}: {reason}",
            hint="choose other models, or install another version",
        )
    return trace


def _traced(
    job: Job, target: Target, worker: Callable[[], Worker], derive: str, extras: Extras | None, tokens: Sequence[int]
) -> Trace:
    wanted = job.wanted
    named = {name: list(map(str, configs)) for name, configs in (extras or {}).items()}
    ptxas = assembler_version(target) or "unknown"
    # Tuning traces travel to the machine with the card, whose PyTorch may be another build: the tuner sees live what is
    # launched, and says if it was not traced.
    packages = ("triton", *(() if tokens else ("torch",)), wanted.provider.distribution)
    key = digest(
        code_digest(wanted.provider),
        {name: installed.version(name) for name in packages},
        ptxas,
        json.loads(json.dumps(asdict(target))),
        [asdict(shape) for shape in wanted.distinct_for(target)],
        asdict(wanted.limits),
        wanted.workloads,
        derive,
        named,
        list(tokens),
        (wanted.capture.name, wanted.capture.plain) if wanted.capture else None,
        wanted.deployment and to_builtins(wanted.deployment),
    )
    stored = job.cache.trace(key)
    if stored is not None:
        with contextlib.suppress(ValueError, RecursionError):  # damaged: traced again
            return Trace.from_json(stored)
    made = worker().trace(wanted, ptxas, derive=derive, extras=extras, tokens=tokens)
    trace = Trace.from_json(made)
    if not trace.unplaced and not any(reason.startswith(UNUSABLE) for _, reason in trace.left_out):
        job.cache.put_trace(key, made)
    return trace

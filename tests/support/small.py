"""A small build: what it is, what it is made of, and doing its tasks with an executor."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from jobs import make_job

from gdn_aot.building import pipeline
from gdn_aot.catalogue.models import select_shapes
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import Target, get_target
from gdn_aot.cli._job import select_workloads
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.compiling.executor import Answer, CompileTask, Executor, Order
from gdn_aot.tracing.records import Trace

ARGUMENTS = ("--model", "qwen3.5-9b", "--workload", "transformers-decode", "--workload", "gated-norm")
ARGUMENTS += ("--max-tokens", "8192", "--max-batch", "4")
TARGETS = ("sm_90", "sm_120")


@dataclass
class Reference:
    """What a local build of `ARGUMENTS` for `TARGETS` made."""

    folder: Path
    cache: Path

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def traces(self, into: Path) -> BuildCache:
        """Return a build cache that has the traces and nothing that is compiled."""
        shutil.copytree(self.cache / "traces", into / "traces")
        return BuildCache(into)

    def job(self, cache: BuildCache, output: Path) -> pipeline.Job:
        """Return the same build, as a job."""
        workloads = select_workloads(get_provider("fla"), "inference", ("transformers-decode", "gated-norm"), ())
        return make_job(
            cache.root,
            output,
            shapes=select_shapes(["qwen3.5-9b"], [1], [], None).shapes,
            workloads=workloads,
            limits=Limits(max_tokens=8192, max_batch=4),
            fp16_fallback=True,
        )

    @property
    def targets(self) -> list[Target]:
        return [get_target(name) for name in TARGETS]


def load(reference: Reference, cache: BuildCache, tmp_path: Path) -> tuple[Trace, Order, pipeline.Job]:
    job = reference.job(cache, tmp_path)
    target = reference.targets[0]

    def never() -> None:
        raise AssertionError("the trace is not in the cache")

    trace = pipeline.traced(job, target, never)  # type: ignore[arg-type]
    return trace, pipeline.order(job, target, trace), job


def tasks(trace: Trace, order: Order, *, ptx: bool = False) -> list[CompileTask]:
    """The first candidates of every key, and every plain launch."""
    wanted = {variant[0] for tuning in trace.tunings for variant in tuning.variants} | set(trace.plain)
    order = replace(order, ptx=ptx)
    return [order.task(trace, number) for number in sorted(wanted)]


def work(executor: Executor, order: Order, wanted: list[CompileTask], job: pipeline.Job) -> dict[int, Answer]:
    """Do the tasks, keeping as many in the air as there is room for. Returns the answers."""
    with ExitStack() as stack:
        lazy = pipeline.LazyWorker(stack, job.wanted.provider, order.target)
        executor.expect(order.provider, [order.target])
        workers = stack.enter_context(executor.compiling(order, lazy.get))
        left, answers = list(reversed(wanted)), {}
        while len(answers) < len(wanted):
            while left and len(wanted) - len(left) - len(answers) < workers.room:
                workers.submit(left.pop())
            answer = workers.receive()
            assert answer.number not in answers
            answers[answer.number] = answer
        return answers

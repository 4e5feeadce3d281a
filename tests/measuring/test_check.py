"""The numeric check without a GPU: real traces, binaries and lookups; a stand-in for what the kernels compute."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from commands import refused
from helpers import ROOT, SUPPORT, gdn_aot
from jobs import make_job
from msgspec import structs

from gdn_aot.building.pipeline import Built
from gdn_aot.catalogue.models import select_shapes
from gdn_aot.catalogue.providers import Limits
from gdn_aot.catalogue.targets import get_target
from gdn_aot.errors import UsageError
from gdn_aot.machine.card import CardInfo
from gdn_aot.measuring import check
from gdn_aot.measuring.check import CheckTask
from gdn_aot.records import numerics as record

WORKLOADS = ("transformers-prefill", "transformers-decode", "gated-norm")
SHAPE = "heads=1,v_heads=2,k_dim=64,v_dim=64,dtype=bf16"
LIMITS = Limits(max_tokens=320, max_batch=2)
H100 = CardInfo(
    name="NVIDIA H100 80GB HBM3", driver="580.1", target=get_target("sm_90"), memory=0, utilization=0, processes=()
)


def make_task(home: Path, output: Path, shape: str = SHAPE) -> CheckTask:
    options = {"timeout": 300, "keep_going": True, "ptx": True}
    job = make_job(home / "build", output, shapes=[shape], workloads=WORKLOADS, limits=LIMITS, **options)
    return check.CheckTask(job=job, output=output, silence=60, card="standin:Card", module="standin")


def silent(done: int, total: int, text: str) -> None:
    pass


@pytest.fixture(scope="module")
def prepared(session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CheckTask, Built]:
    task = make_task(session_home, tmp_path_factory.mktemp("numerics"))
    return task, check.prepare(task, get_target("sm_80"), silent)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{SUPPORT}")


def test_the_ptx_is_kept_and_is_of_the_target(prepared: tuple[CheckTask, Built]) -> None:
    task, made = prepared
    objects = made.run.kept(made.choices)
    assert len(objects) > 10
    for compiled in objects.values():
        assert "\n.target sm_80\n" in task.job.cache.ptx(compiled.cubin)
    again = check.prepare(task, made.target, silent)
    assert again.run.compiled == 0


def test_a_build_without_ptx_is_compiled_again_when_ptx_is_wanted(tmp_path: Path) -> None:
    task = make_task(tmp_path, tmp_path)
    job = replace(task.job, wanted=replace(task.job.wanted, workloads=("transformers-decode",)), ptx=False)
    plain = check.prepare(replace(task, job=job), get_target("sm_80"), silent)
    assert plain.run.compiled > 0
    assert not (tmp_path / "build" / "ptx").exists()
    wanted = check.prepare(replace(task, job=replace(job, ptx=True)), get_target("sm_80"), silent)
    assert wanted.run.compiled == plain.run.compiled


def test_right_results_pass(prepared: tuple[CheckTask, Built], tmp_path: Path) -> None:
    task, made = prepared
    results = check.run(task, made, native=False, progress=silent)
    rows = {row.workload: row for row in results.rows(task.job.wanted.shapes)}
    assert [problem for row in rows.values() for problem in (*row.failed, *row.skipped)] == []
    assert rows.keys() == set(WORKLOADS)
    assert all(row.calls > 5 for row in rows.values())
    assert {worst.result for worst in rows["transformers-prefill"].worst} == {
        "chunk.out of a chunk", "chunk.out of a sequence", "chunk.state",
    }  # fmt: skip
    kernels = results.kernels()
    choices = {digest for kernel in kernels for digest in kernel.choices}
    packed = made.choices.digests(made.trace)
    assert choices == packed, "everything that would be packed is launched"
    assert all(kernel.ok and kernel.launches >= kernel.binaries > 0 for kernel in kernels)
    written = check.make_record(task, made.target, H100, results)
    assert (written.status, written.how) == ("checked", "ptx")
    path = record.record_path(tmp_path, "sm_80", "fla-core", written.provider.version)
    record.save(written, path)
    assert record.load(path) == written
    jsonschema.validate(json.loads(path.read_text()), record.FORM.schema())
    provider = task.job.wanted.provider
    said = record.summary(tmp_path, provider, made.target, made.trace, packed)
    assert said.status == "checked"
    assert said.detail == f"ptx on NVIDIA H100 80GB HBM3, driver 580.1, {written.date}"
    record.save(structs.replace(written, triton="3.5.0"), path)
    assert record.summary(tmp_path, provider, made.target, made.trace, packed).status == "not run"


@pytest.mark.parametrize(
    ("fault", "where", "why"),
    [
        ("off", "gated-norm", "norm.out of a chunk is off by 0.02"),
        ("unwritten", "transformers-prefill", "out has numbers that are not finite"),
        ("dirty", "transformers-decode", "the call changed its v"),
        ("missing", "transformers-prefill", "no state came back"),
        ("refused", "gated-norm", "layer_norm_gated_fwd_kernel cannot be loaded: Triton Error [CUDA]: a PTX JIT"),
    ],
)
def test_wrong_results_fail(
    prepared: tuple[CheckTask, Built], monkeypatch: pytest.MonkeyPatch, fault: str, where: str, why: str
) -> None:
    task, made = prepared
    monkeypatch.setenv("GDN_AOT_STANDIN", fault)
    results = check.run(task, made, native=True, progress=silent)
    (row,) = (row for row in results.rows(task.job.wanted.shapes) if row.workload == where)
    assert row.failed
    assert why in row.failed[-1].why
    written = check.make_record(task, made.target, replace(H100, target=made.target), results)
    assert (written.status, written.how) == ("failed", "cubin")
    assert any(not kernel.ok for kernel in written.kernels) or fault == "refused"


def test_a_crash_is_a_failed_call_and_the_rest_goes_on(
    prepared: tuple[CheckTask, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, made = prepared
    monkeypatch.setenv("GDN_AOT_STANDIN", "crash")
    workloads = ("transformers-decode", "gated-norm")
    job = replace(task.job, wanted=replace(task.job.wanted, workloads=workloads))
    results = check.run(replace(task, job=job), made, native=False, progress=silent)
    rows = {row.workload: row for row in results.rows(task.job.wanted.shapes)}
    assert rows["transformers-decode"].failed == ()
    assert rows["gated-norm"].failed
    assert all("tokens=300" in problem.call and "SIGABRT" in problem.why for problem in rows["gated-norm"].failed)
    assert rows["gated-norm"].calls > len(rows["gated-norm"].failed)


@pytest.mark.parametrize(
    ("fault", "skipped"),
    [
        ("full", True),
        ("raise CUDA error: out of memory", True),
        ("raise CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("raise cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("raise CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle)`", False),
    ],
)
def test_a_call_for_which_the_card_is_full_is_not_made(
    prepared: tuple[CheckTask, Built], monkeypatch: pytest.MonkeyPatch, fault: str, skipped: bool
) -> None:
    task, made = prepared
    monkeypatch.setenv("GDN_AOT_STANDIN", fault)
    job = replace(task.job, wanted=replace(task.job.wanted, workloads=("gated-norm",)))
    results = check.run(replace(task, job=job), made, native=False, progress=silent)
    (row,) = results.rows(task.job.wanted.shapes)
    assert row.calls > 0 or fault == "full"
    problems, others = (row.skipped, row.failed) if skipped else (row.failed, row.skipped)
    assert problems
    assert others == ()
    said = fault.removeprefix("raise ")
    assert all(problem.why.startswith("out of memory: ") == skipped for problem in problems)
    assert all(said in problem.why or fault == "full" for problem in problems)


def test_what_a_card_can_run() -> None:
    hopper, ampere = get_target("sm_90"), get_target("sm_80")
    assert [check.obstacle(get_target(name), hopper) for name in ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89")] == [
        None
    ] * 5
    assert check.obstacle(hopper, hopper) is None
    assert check.obstacle(get_target("sm_120"), hopper) == "sm_120 is newer than the card, which is sm_90"
    assert "newer" in str(check.obstacle(hopper, ampere))
    assert "runs on sm_100 alone" in str(check.obstacle(get_target("sm_100"), get_target("sm_120")))


def test_a_target_that_cannot_be_run_is_recorded_as_such(session_home: Path, tmp_path: Path) -> None:
    task = make_task(session_home, tmp_path)
    written = check.make_record(task, get_target("sm_120"), H100, "sm_120 is newer than the card")
    assert (written.status, written.device, written.date, written.checks) == ("not run", None, None, ())
    path = record.record_path(tmp_path, "sm_120", "fla-core", written.provider.version)
    record.save(written, path)
    assert record.load(path) == written


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (None, "", "is not JSON"),
        (None, "{}", "target: missing"),
        ('"format": 1', '"format": 2', "format: 2 is not a known format version"),
        ('"status": "checked"', '"status": "good"', "status: expected checked or failed or not run, got 'good'"),
        ('"ok": true', '"ok": null', "kernels[0].ok: expected bool, got null"),
        ('"date": "', '"date": "x', "' is not a day as 2026-11-24"),
        ('"tool": "', '"tool":  "', "is not written as gdn-aot writes it"),
    ],
)
def test_a_broken_record_is_refused(tmp_path: Path, old: str | None, new: str, reason: str) -> None:
    good, path = (ROOT / "artifacts/numerics/sm_80/fla-core-0.6.0.json").read_text(), tmp_path / "record.json"
    path.write_text(new if old is None else good.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        record.load(path)
    assert caught.value.message.startswith(f"numerics record {path} is refused: ")
    assert reason in "\n".join([caught.value.message, *map(str, caught.value.problems)])


def test_without_a_card_it_says_so(session_home: Path, tmp_path: Path) -> None:
    arguments = ("check", "--arch", "sm_80", "--model", "qwen3.5-9b", "-o", tmp_path / "out")
    error = refused(*arguments, home=session_home, extra={"PATH": "/nonexistent"}, code=2, kind="usage")
    assert "no NVIDIA card" in error["message"]
    assert "--prepare" in error["hint"]


def test_a_manifest_says_what_was_checked(session_home: Path, tmp_path: Path) -> None:
    task = make_task(session_home, tmp_path)
    selected = ("--arch", "sm_80", "--model", "qwen3.5-9b", "--workload", "transformers-decode")
    shapes = tuple(select_shapes(["qwen3.5-9b"], [1], [], None).shapes)
    wanted = replace(task.job.wanted, shapes=shapes, workloads=selected[-1:], limits=Limits())
    made = check.prepare(replace(task, job=replace(task.job, wanted=wanted)), get_target("sm_80"), silent)
    digests = sorted(made.choices.digests(made.trace))
    kernel = record.CheckedKernel(kernel="m:k", launches=3, binaries=3, ok=True, choices=tuple(digests))
    written = structs.replace(check.make_record(task, made.target, H100, check.Results()), status="checked")
    path = record.record_path(tmp_path / "numerics", "sm_80", "fla-core", written.provider.version)
    build = ("build", *selected, "--numerics", tmp_path / "numerics", "-o", tmp_path / "out")
    for kernels, status, where in (
        ((kernel,), "checked", "ptx on NVIDIA H100"),
        (
            (structs.replace(kernel, choices=kernel.choices[1:]),),
            "partly checked",
            f"{len(digests) - 1} of the {len(digests)} choices",
        ),
    ):
        record.save(structs.replace(written, kernels=kernels), path)
        (row,) = gdn_aot(*build, "--json", home=session_home).json["artifacts"]
        shown = gdn_aot("inspect", row["path"], home=session_home).out
        (line,) = (line for line in shown.splitlines() if line.startswith("numerics"))
        assert line.startswith(f"numerics    {status} {where}")
        assert "driver 580.1" in line
    path.write_text("{}")
    assert "is refused" in refused(*build, home=session_home, code=2, kind="usage")["message"]


def test_prepare_needs_no_card(session_home: Path, tmp_path: Path) -> None:
    done = gdn_aot(
        "check", "--arch", "sm_80", "--model", "qwen3.5-9b", "--workload", "transformers-decode", "--prepare",
        "-o", tmp_path / "out", "--json", home=session_home,
    )  # fmt: skip
    (row,) = done.json["targets"]
    assert row["target"] == "sm_80"
    assert row["binaries"] > 0
    assert row["failures"] == []

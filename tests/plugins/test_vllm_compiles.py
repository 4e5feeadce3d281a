"""What Triton compiled until an engine was warm: counted, said in a line, and read from the log again."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gdn_aot.doctor.start import read_start
from gdn_aot.plugins import vllm_compiles
from gdn_aot.providers.vllm.engine import is_of_layer
from gdn_aot.serving import log, settings

LAYER = "vllm.model_executor.layers"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "notice", said.append)
    monkeypatch.setattr(log, "warn", said.append)
    monkeypatch.setattr(vllm_compiles, "_compiled", {})
    return said


def tell(*compiled: tuple[str, str, float]) -> None:
    for one in compiled:
        vllm_compiles._tell(*one)


def test_the_line_says_what_is_of_the_layer_and_what_took_longest(said: list[str]) -> None:
    tell(
        (f"{LAYER}.fla.ops.chunk_o", "chunk_fwd_kernel_o", 2.5),
        (f"{LAYER}.fla.ops.chunk_o", "chunk_fwd_kernel_o", 1.25),
        ("a.copy", "fused_gdn_gating_kernel", 0.5),
        (f"{LAYER}.fused_moe.fused_moe", "fused_moe_kernel", 3.0),
        *(("x", f"other_{number}", 0.01) for number in range(9)),
    )
    line = vllm_compiles.line()
    assert line.startswith(
        "Triton compiled 3 binaries of kernels of linear attention in 4.25 s, 10 binaries of others in 3.09 s; "
    )
    longest = line.partition("longest: ")[2]
    assert longest.startswith("chunk_fwd_kernel_o 3.75 s (2 binaries), fused_moe_kernel 3.00 s (1 binary), ")
    assert longest.count(" s (") == 5


def test_doctor_reads_it(said: list[str]) -> None:
    tell((f"{LAYER}.fla.ops.chunk_o", "chunk_fwd_kernel_o", 2.5), ("x", "y", 1))
    begin = "(EngineCore pid=7) INFO 11-30 22:53:55 [x.py:1] "
    report = read_start(f"{begin}Loading weights took 1.0 seconds\n{begin}gdn-aot: {vllm_compiles.line()}\n")
    assert report.triton == (2.5, 1.0)
    page = "\n".join(report.page())
    assert "Triton compiled linear attention for 2.5 s: an artifact saves it; others for 1.0 s: " in page
    assert "gdn-aot: Triton compiled 1 binaries" in page


def test_doctor_reads_what_earlier_releases_said() -> None:
    said = "gdn-aot: Triton compiled 2 binaries of kernels of GDN in 2.50 s, 1 binaries of others in 1.00 s"
    begin = "(EngineCore pid=7) INFO 11-30 22:53:55 [x.py:1] "
    assert read_start(f"{begin}Loading weights took 1.0 seconds\n{begin}{said}\n").triton == (2.5, 1.0)


def test_nothing_compiled(said: list[str]) -> None:
    took = "in 0.00 s"
    none = f"Triton compiled 0 binaries of kernels of linear attention {took}, 0 binaries of others {took}"
    assert vllm_compiles.line() == none


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_said_when_the_worker_is_warm(said: list[str], monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    """The worker's own result and errors are as they were."""

    class Worker:
        def compile_or_warm_up_model(self, count: int) -> int:
            """vLLM's words."""
            if fails:
                raise ValueError("no memory")
            return count

    module: Any = ModuleType("worker")
    module.Worker = Worker
    monkeypatch.setitem(sys.modules, "worker", module)
    vllm_compiles._watch_worker("worker")
    assert Worker.compile_or_warm_up_model.__doc__ == "vLLM's words."
    if fails:
        with pytest.raises(ValueError, match="no memory"):
            Worker().compile_or_warm_up_model(3)
    else:
        assert Worker().compile_or_warm_up_model(3) == 3
    assert [line[:15] for line in said] == ["Triton compiled"]


@pytest.mark.parametrize("worker", [None, SimpleNamespace(), type("Worker", (), {})])
def test_a_worker_that_is_not_known(said: list[str], monkeypatch: pytest.MonkeyPatch, worker: Any) -> None:
    module: Any = ModuleType("worker")
    if worker is not None:
        module.Worker = worker
    monkeypatch.setitem(sys.modules, "worker", module)
    vllm_compiles._watch_worker("worker")
    assert said == ["worker has no compile_or_warm_up_model that is known; GDN_AOT_START_REPORT says nothing"]


@pytest.mark.parametrize(
    ("value", "asked"), [("1", True), (" Yes ", True), ("0", False), ("", False), ("maybe", False)]
)
def test_who_asks(monkeypatch: pytest.MonkeyPatch, value: str, *, asked: bool) -> None:
    monkeypatch.setenv(vllm_compiles.VARIABLE, value)
    assert settings.asked(vllm_compiles.VARIABLE) == asked


@pytest.mark.parametrize(
    ("module", "ours"),
    [
        (f"{LAYER}.fla.ops.chunk_o", True),
        ("vllm.third_party.flash_linear_attention.ops.layernorm_guard", True),
        (f"{LAYER}.mamba.ops.causal_conv1d", True),
        (f"{LAYER}.mamba.gdn.qwen_gdn_linear_attn", True),
        (f"{LAYER}.mamba.gdn_linear_attn", True),
        (f"{LAYER}.mamba.ops.scatter_states", True),
        ("vllm.models.glm5next.nvidia.ops.third_party.kda.kernels", True),
        ("vllm.models.kimi_k3.nvidia.kda_metadata", True),
        ("vllm.models.kimi_k3.nvidia.ops.recoverssm", False),
        (f"{LAYER}.mamba.ops.ssd_chunk_scan", False),
        (f"{LAYER}.fused_moe.fused_moe", False),
        ("fla.ops.chunk_o", False),
        ("", False),
    ],
)
def test_what_is_of_the_layer(module: str, *, ours: bool) -> None:
    assert is_of_layer(module) == ours

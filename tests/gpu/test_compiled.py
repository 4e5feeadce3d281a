"""Decode loops compiled by ``torch.compile`` are served in strict mode, and so are CUDA graphs of them."""

import shutil

import pytest
from gpu import served
from gpu.conftest import Program, Record

pytestmark = pytest.mark.gpu

EXPECTED = {"out": True, "state": True}


def test_backends_that_leave_kernels_to_triton(program: Program, record: Record) -> None:
    answer = program("compiled", inductor=False)
    record(found=answer["found"], breaks=answer["breaks"], watch=answer["watch"], loaded=answer["report"]["loaded"])
    served.check_all(answer)
    assert answer["found"] == dict.fromkeys(["eager", "graph of eager", "aot_eager", "graph of aot_eager"], EXPECTED), (
        "the bits of the loop that is not compiled"
    )
    assert served.loaded_kernels(answer["report"]) == {served.DECODE_KERNEL}


def test_inductor(program: Program, record: Record) -> None:
    """Alone it is an error in strict mode; with the operator of the example FLA's kernel is served in its code."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc, which Triton needs for the kernels of Inductor, is not installed")
    answer = program("compiled", inductor=True, extra={"TORCHINDUCTOR_COMPILE_THREADS": "1"}, timeout=500)
    record(
        found=answer["found"],
        breaks=answer["breaks"],
        alone=answer["alone"],
        watch=answer["watch"],
        loaded=answer["report"]["loaded"],
    )
    assert "Inductor (torch.compile) compiles it itself" in answer["alone"]["error"]
    assert answer["alone"]["compiled"] == 0
    assert answer["new_misses"] == 0
    assert not [name for name in answer["watch"]["compiled"] if served.DECODE_KERNEL in name]
    assert answer["watch"]["of_fla"] == []
    assert answer["watch"]["benchmarked"] == 0
    for name in ("inductor", "graph of inductor", "reduce-overhead"):
        assert answer["found"][name] == EXPECTED, name

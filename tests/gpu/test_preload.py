"""After `gdn_aot.preload` nothing is left to load."""

import pytest
from gpu import served
from gpu.conftest import Program, Record

pytestmark = pytest.mark.gpu

MIB = 1 << 20


def test_first_calls_after_preload(program: Program, record: Record) -> None:
    answer = program("preload")
    before, steps = answer["before"], answer["steps"]
    record(
        taken_mib=answer["taken"] / MIB,
        preload_seconds=answer["seconds"],
        modules=before["modules"],
        outside_pytorch_mib={name: step["outside_pytorch"] / MIB for name, step in steps.items()},
        first_call_seconds={name: step["seconds"] for name, step in steps.items()},
    )
    served.check_all(answer)
    assert answer["is_int"]
    assert answer["taken"] >= 0
    assert answer["random_kept"] == [True, True], "the state of the generators on the CPU and on the device"
    assert before["modules"] > 0
    for name, step in steps.items():
        assert step["modules"] == before["modules"], name
        assert step["loaded"] == before["loaded"], name
        assert abs(step["outside_pytorch"]) <= 2 * MIB, name  # the grain of device memory

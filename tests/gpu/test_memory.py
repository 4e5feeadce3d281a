"""What kernels with local memory take of a card, against the formula that ``inspect`` and ``doctor`` use."""

import pytest
from gpu.conftest import Loaded, Program, Record

from gdn_aot.artifact.cost import MIB, cost_of, reserve_of
from gdn_aot.launches import SOUND_LOCAL

pytestmark = pytest.mark.gpu

OWN = 32
"""MiB that the driver may take beside the local memory, or may have kept for it already; a default context keeps 1 KiB
per thread."""

PYTORCH = 256
"""MiB that PyTorch's and cuBLAS's own kernels may take when they are first used; 92 on an H200."""
MOST = 64
"""MiB that the kernels of one model may take of a device beside PyTorch's own memory."""


def test_the_driver_keeps_local_memory_for_every_thread(program: Program, record: Record) -> None:
    """The most that any kernel takes, once it is launched; a kernel that takes less adds nothing and gives nothing."""
    answer = program("local_memory", local=[10816, 4096, 16384])
    threads = answer["sm_count"] * answer["threads_per_sm"]
    steps = answer["steps"]
    computed = [step["local"] * threads / MIB for step in steps]
    record(**answer, computed_mib=computed, launched_mib=[step["launched"] / MIB for step in steps])
    taken = [step["launched"] / MIB for step in steps]
    kept_before = 1024 * threads / MIB
    for most, found in zip((computed[0], computed[0], computed[2]), taken, strict=True):
        assert abs(found - (most - kept_before)) <= OWN


@pytest.mark.parametrize("arch", ["sm_70", "sm_75"])
def test_what_the_chosen_kernels_of_a_target_without_matrix_instruction_take(
    arch: str, program: Program, record: Record
) -> None:
    """As PTX on this device, every call of one model: nothing beyond the code, as no choice spills much."""
    answer = program("weighed", arch=arch, timeout=500)
    record(**{arch: {**answer, "taken_mib": answer["taken"] / MIB}})
    assert answer["failures"] == 0
    assert answer["calls"] > 50
    assert answer["local"] <= SOUND_LOCAL
    assert answer["taken"] <= MOST * MIB


def test_what_preload_says_beside_the_computed_reserve(program: Program, artifact: Loaded, record: Record) -> None:
    answer = program("preload")
    cost = cost_of(artifact.manifest)
    reserve = reserve_of(artifact.manifest, cost.local, str(answer["sm_count"]))
    assert reserve is not None
    record(taken_mib=answer["taken"] / MIB, reserve_mib=reserve.bytes / MIB, code_mib=cost.code / MIB)
    assert answer["taken"] == answer["lost"], "free memory before and after, less what PyTorch's pools grew by"
    assert 0 < answer["taken"] <= reserve.bytes + cost.code + PYTORCH * MIB

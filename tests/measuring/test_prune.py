"""Leaving out by compiled resources."""

from msgspec.structs import replace

from gdn_aot.catalogue.targets import get_target
from gdn_aot.launches import CompiledKernel, Config
from gdn_aot.measuring.prune import blocks_per_sm, prune

SM_90 = get_target("sm_90")
SM_75 = get_target("sm_75")
A, B, C, D = (Config(kwargs=(("BV", size),), num_warps=4, num_stages=3) for size in (32, 64, 128, 256))


def _object(cubin: str, *, shared: int = 4096, warps: int = 4, registers: int = 64, local: int = 0) -> CompiledKernel:
    return CompiledKernel(
        cubin=cubin, metadata={"shared": shared, "num_warps": warps}, registers=registers, local=local
    )


def test_what_fits_stays() -> None:
    assert prune({A: _object("a"), B: _object("b")}, SM_90, [A]) == {}


def test_what_does_not_fit_goes_even_if_it_is_the_providers() -> None:
    found = prune({A: _object("a", shared=300_000), B: _object("b", warps=16, registers=255)}, SM_90, [A])
    assert "300000 bytes of shared memory" in found[A]
    assert "registers per block" in found[B]


def test_registers_are_rounded_up_for_occupancy() -> None:
    assert blocks_per_sm(_object("a", warps=8, registers=249), SM_90) == 1
    assert blocks_per_sm(_object("a", warps=8, registers=64), SM_90) == 4
    assert blocks_per_sm(_object("a", shared=0, registers=0), SM_75) == 64
    assert blocks_per_sm(_object("a", shared=SM_90.max_shared), SM_90) == 1
    found = prune({A: _object("a", warps=16, registers=121)}, SM_90, [])
    assert found == {}  # 128 registers of 512 threads fill an SM
    assert blocks_per_sm(_object("a", warps=32, registers=66), SM_90) == 0


def test_more_spills_than_the_providers_go() -> None:
    objects = {
        A: _object("a", local=16),
        B: _object("b", local=64),
        C: _object("c", local=32),
        D: _object("d", local=8),
    }
    assert list(prune(objects, SM_90, [A, B])) == [C]
    assert "32 bytes" in prune(objects, SM_90, [A, B])[C]
    assert prune(objects, SM_90, []) == {}


def test_of_equal_binaries_the_first_stays() -> None:
    fewer = replace(A, num_stages=1)
    assert prune({A: _object("a"), fewer: _object("a")}, SM_90, [A, fewer]) == {
        fewer: "compiles to the same binary as BV=32 num_warps=4 num_stages=3"
    }
    assert prune({A: _object("a"), B: _object("a")}, SM_90, [A]) == {}  # the grid may differ
    assert prune({A: _object("a"), fewer: _object("a", shared=8192)}, SM_90, [A]) == {}


def test_one_that_does_not_fit_is_no_measure_for_the_others() -> None:
    objects = {A: _object("a", shared=300_000), B: _object("b", local=8), C: _object("c", local=4)}
    assert list(prune(objects, SM_90, [A, B])) == [A]

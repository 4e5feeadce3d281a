"""On a card that is almost full, tuning runs out of memory and the artifact does not."""

import pytest
from gpu import served
from gpu.conftest import Program, Record

pytestmark = pytest.mark.gpu

LEFT_MIB = 300
"""A prefill of 4096 tokens takes 240 to 250 MiB besides its inputs; one buffer of a benchmark takes 256 MiB."""


def test_first_prefill_with_300_mib_left(program: Program, record: Record) -> None:
    with_artifact = program("memory", served=True, left_mib=LEFT_MIB)
    plain = program("memory", served=False, left_mib=LEFT_MIB, timeout=240)
    first, second = with_artifact["first"], with_artifact.get("second")
    record(
        left_mib=with_artifact["left_mib"],
        total_mib=with_artifact["total_mib"],
        served_first=first,
        served_second=second,
        plain_left_mib=plain["left_mib"],
        plain_first=plain["first"],
        plain_compiled=len(plain["watch"]["compiled"]),
        plain_benchmarked=plain["watch"]["benchmarked"],
    )
    assert with_artifact["left_mib"] <= LEFT_MIB + 2
    assert plain["left_mib"] <= LEFT_MIB + 2
    served.check_all(with_artifact)
    assert first["error"] == ""
    assert first["finite"]
    assert second is not None
    assert second["error"] == ""
    assert first["digests"] == second["digests"]
    assert abs(first["peak_mib"] - second["peak_mib"]) <= 1, "the first call needs what any call needs"
    assert plain["first"]["error"].startswith("OutOfMemoryError"), "plain FLA runs out of memory while it tunes"

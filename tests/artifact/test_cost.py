"""What an artifact costs on a card: code, and the local memory that the driver keeps; how ``inspect`` shows it."""

from collections.abc import Callable
from pathlib import Path

import factory
import pytest
from helpers import Done
from msgspec.structs import replace

from gdn_aot.artifact import cost
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.cost import cost_of, reserve_of
from gdn_aot.catalogue.targets import get_target
from gdn_aot.errors import UsageError

Command = Callable[..., Done]
KERNEL = "fla.ops.common.chunk_o:chunk_fwd_kernel_o"
RTX_5090 = 170 * 1536
"""Threads that the card of sm_120 can have resident."""


def manifest_of(*locals_: int) -> m.Manifest:
    """A manifest whose first kernels take so many bytes per thread; each in two binaries, of which one spills less."""
    kernels = []
    for number, local in enumerate(locals_):
        most, _ = factory.make_spilling(local)
        less = factory.make_binary(factory.CUBINS[1], factory.OTHER)
        kernels.append(factory.make_kernel(less, most, qualname=f"kernel{number}"))
    return replace(factory.full_manifest(), kernels=tuple(kernels))


def test_each_cubin_counts_once_and_licences_do_not() -> None:
    assert cost_of(factory.full_manifest()) == cost.Cost(code=sum(map(len, factory.CUBINS)), spills=())


def test_the_kernel_that_takes_most_comes_first_not_their_sum() -> None:
    found = cost_of(manifest_of(8, 24328, 0, 1424))
    assert [spill.kernel.rpartition(":")[2] for spill in found.spills] == ["kernel1", "kernel3", "kernel0"]
    assert found.local == 24328
    assert found.spills[0].config == "BK=64 BV=None num_warps=4 num_stages=3"
    assert cost_of(manifest_of(0)).local == 0


def test_every_thread_that_the_card_can_have_resident_counts() -> None:
    manifest = manifest_of(100)
    own = reserve_of(manifest, 100)
    assert own == cost.Reserve(card="NVIDIA GeForce RTX 5090", sm_count=170, threads_per_sm=1536, bytes=100 * RTX_5090)
    smaller = reserve_of(manifest, 100, "84")
    assert (smaller.bytes, smaller.card) == (100 * 84 * 1536, "a card of sm_120") if smaller else False
    named = reserve_of(manifest, 100, "tesla v100")
    assert named == cost.Reserve(
        card="Tesla V100-SXM2-32GB", sm_count=80, threads_per_sm=2048, bytes=get_target("sm_70").local_reserve(100)
    )


def test_what_the_artifact_of_before_took_by_the_formula() -> None:
    assert cost.reserve_on(get_target("sm_90"), 10816).bytes >> 20 == 2788


@pytest.mark.parametrize("card", ["H1000", "NVIDIA", "0", "4097", "-1", "1.5"])
def test_cards_that_are_not_known(card: str) -> None:
    with pytest.raises(UsageError, match=r"card"):
        reserve_of(manifest_of(8), 8, card)


def test_a_target_that_is_not_in_the_table() -> None:
    other = replace(factory.full_manifest(), target=replace(factory.full_manifest().target, name="sm_999"))
    assert reserve_of(other, 8) is None
    assert list(cost.over(other)) == []
    with pytest.raises(UsageError, match="sm_999"):
        reserve_of(other, 8, "132")


def test_kernels_over_the_bound_and_none_at_it() -> None:
    at = cost.REFUSED // RTX_5090
    assert list(cost.over(manifest_of(at))) == []
    (told,) = cost.over(manifest_of(at, at + 1))
    assert "kernel1 with BK=64" in told
    assert f"{at + 1} bytes of local memory per thread, 256 MiB on NVIDIA GeForce RTX 5090" in told


def test_a_warning_over_64_mib() -> None:
    at = cost.WARNED // RTX_5090
    target = get_target("sm_120")
    assert cost.warning(cost.reserve_on(target, at)) == ""
    assert "takes 64 MiB of the card beside PyTorch's" in cost.warning(cost.reserve_on(target, at + 1))


def test_inspect_shows_the_card_and_the_kernel(tmp_path: Path, command: Command) -> None:
    path = factory.write_spilling(tmp_path, 2048)
    text = command("inspect", path).out
    reserve = f"{2048 * RTX_5090 / (1 << 20):.0f} MiB on NVIDIA GeForce RTX 5090 (170 SMs x 1536 threads)"
    assert f"local       {reserve}: {KERNEL} with BK=64 BV=None num_warps=4 num_stages=3: 2048 bytes" in text
    assert "warning     the first launch of that kernel takes 510 MiB" in text
    small = command("inspect", path, "--card", "4").out
    assert "local       12 MiB on a card of sm_120 (4 SMs x 1536 threads): " in small
    assert "warning" not in small
    found = command("inspect", path, "--json", "--card", "b200").json["cost"]
    assert found["spills"] == [{"kernel": KERNEL, "config": "BK=64 BV=None num_warps=4 num_stages=3", "local": 2048}]
    assert found["reserve"] == {
        "card": "NVIDIA B200", "sm_count": 148, "threads_per_sm": 2048, "bytes": 148 * 2048 * 2048,
    }  # fmt: skip
    assert command("inspect", path, "--json", "--card", "nothing", code=2).json["error"]["code"] == "usage"


def test_inspect_where_nothing_spills(sound: Path, command: Command) -> None:
    text = command("inspect", sound).out
    assert f"code        {sum(map(len, factory.CUBINS))} bytes on the card" in text
    assert "local       no kernel uses local memory\n" in text
    assert "warning" not in text
    document = command("inspect", "--json", sound).json
    assert (document["cost"]["spills"], document["cost"]["reserve"]["bytes"]) == ([], 0)

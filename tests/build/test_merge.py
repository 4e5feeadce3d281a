"""Merging of any manifest that was divided in any way, and of shards that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import sharding
import zstandard
from artifact import factory
from artifact.strategies import contents
from hypothesis import given, settings
from hypothesis import strategies as st

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.shard import Checked, Shard
from gdn_aot.building.merge import merge
from gdn_aot.errors import ShardError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable


def _whole(manifest: m.Manifest) -> m.Manifest:
    """Return a manifest as a build writes it: sorted, and no kernel without a binary."""
    kernels = [
        replace(
            kernel,
            choices=tuple(sorted(kernel.choices, key=lambda choice: str(choice.key))),
            binaries=tuple(sorted(kernel.binaries, key=lambda binary: binary.launch_key)),
        )
        for kernel in manifest.kernels
    ]
    kernels.sort(key=lambda kernel: (kernel.module, kernel.qualname))
    return replace(
        manifest,
        kernels=tuple(kernels),
        build=replace(manifest.build, zstd=".".join(map(str, zstandard.ZSTD_VERSION))),
    )


@settings(max_examples=60, deadline=None)
@given(contents(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_merging_is_the_inverse_of_dividing(content: tuple[m.Manifest, dict[str, bytes]], of: int, rng: Any) -> None:
    manifest, blobs = _whole(content[0]), content[1]
    with TemporaryDirectory() as name:
        root = Path(name)
        whole = write_artifact(manifest, blobs, root / "whole").path
        parts = sharding.divide(manifest, of, lambda: rng.randrange(of))
        paths = sharding.write_all(parts, blobs, root / "shards")
        rng.shuffle(paths)
        (made,) = merge(paths, root / "merged")
        assert (made.shards, made.path.name) == (of, m.file_name(manifest.identifier))
        assert made.path.read_bytes() == whole.read_bytes()


def _shards(tmp_path: Path, of: int = 3) -> list[m.Manifest]:
    places = iter(range(1000))
    return sharding.divide(_whole(factory.make_manifest()), of, lambda: next(places) % of)


def _shard(manifest: m.Manifest, **changes: Any) -> m.Manifest:
    assert manifest.shard is not None
    return replace(manifest, shard=replace(manifest.shard, **changes))


_OTHER = {
    "build.commit": lambda x: replace(x, build=replace(x.build, commit="1" * 40)),
    "build.dirty": lambda x: replace(x, build=replace(x.build, dirty=True)),
    "build.tool": lambda x: replace(x, build=replace(x.build, tool="gdn-aot 9")),
    "models": lambda x: replace(x, models=(replace(x.models[0], tp=2),)),
    "max_tokens": lambda x: replace(x, max_tokens=1),
    "workloads": lambda x: replace(x, workloads=("a", "b")),
    "triton": lambda x: replace(x, triton=replace(x.triton, ptxas="13")),
    "the number of shards": lambda x: _shard(x, of=4),
    "--candidates": lambda x: _shard(x, candidates="all"),
    "the digest of the trace": lambda x: _shard(x, inputs=replace(sharding.INPUTS, trace="0" * 64)),
    "the digest of the tuning records": lambda x: _shard(x, inputs=replace(sharding.INPUTS, tuning="0" * 64)),
    "the digest of the record of the numeric check": lambda x: _shard(
        x, inputs=replace(sharding.INPUTS, numerics="0" * 64)
    ),
    "the digest of the code of the provider and of the tracer": lambda x: _shard(
        x, inputs=replace(sharding.INPUTS, code="0" * 64)
    ),
    "the number of autotune keys": lambda x: _shard(x, all_keys=99),
    "what the numeric check says": lambda x: replace(x, numerics=m.Numerics(status="failed", detail="")),
}  # fmt: skip


@pytest.mark.parametrize("what", _OTHER)
def test_shards_of_another_build_are_refused(tmp_path: Path, what: str) -> None:
    first, second, third = _shards(tmp_path)
    change: Callable[[m.Manifest], m.Manifest] = _OTHER[what]
    paths = sharding.write_all([first, change(second), third], factory.make_blobs(), tmp_path)
    with pytest.raises(ShardError) as caught:
        merge(paths, tmp_path / "out")
    assert caught.value.exit_code == 2
    assert f"{paths[1]} is of another build than {paths[0]}: {what} is " in caught.value.message
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    paths = sharding.write_all(_shards(tmp_path, 30), factory.make_blobs(), tmp_path)
    for left, said in (
        (paths[:-1], "of the 30 shards of fla0.6.0-triton3.6.0-sm_120 1 are missing: 30"),
        (paths[3:5], "28 are missing: 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 16 more"),
    ):
        with pytest.raises(ShardError) as caught:
            merge(left, tmp_path / "out")
        assert caught.value.message.endswith(said)


def test_a_shard_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    shards = _shards(tmp_path)
    paths = sharding.write_all(shards, factory.make_blobs(), tmp_path)
    again = sharding.write(shards[1], factory.make_blobs(), tmp_path, "again")
    with pytest.raises(ShardError, match=rf"{again} and {paths[1]} are both shard 2 of 3 of fla0"):
        merge([*paths, again], tmp_path / "out")
    with pytest.raises(ShardError, match="are both shard 1 of 3"):
        merge([*paths, paths[0]], tmp_path / "out")


def test_an_artifact_among_them_is_refused(tmp_path: Path) -> None:
    paths = sharding.write_all(_shards(tmp_path), factory.make_blobs(), tmp_path)
    artifact = factory.write(tmp_path)
    with pytest.raises(ShardError, match="is an artifact, not a shard"):
        merge([*paths, artifact], tmp_path / "out")


def _with_binaries(manifest: m.Manifest, *binaries: m.Binary) -> m.Manifest:
    kernel = factory.make_kernel(*binaries)
    return replace(manifest, kernels=(replace(kernel, choices=()),), not_covered=())


def _pair(first: m.Manifest, second: m.Manifest) -> list[m.Manifest]:
    """Return two manifests as the only shards of a build without autotune keys."""
    stated = Shard(
        number=1, of=2, keys=0, all_keys=0, candidates="all", inputs=sharding.INPUTS, checked=None, spare=()
    )  # fmt: skip
    return [replace(first, shard=stated), replace(second, shard=replace(stated, number=2))]


def test_other_binaries_for_one_launch_are_refused(tmp_path: Path) -> None:
    binary = factory.make_binary(factory.CUBINS[0])
    base = factory.make_manifest()
    for number, other in enumerate(
        (
            replace(binary, cubin=factory.sha256(factory.CUBINS[1])),
            replace(binary, metadata={"shared": 1}),
            replace(binary, resources=m.Resources(registers=1, shared=1, local=1)),
        )
    ):
        pair = _pair(_with_binaries(base, binary), _with_binaries(base, other))
        paths = sharding.write_all(pair, factory.make_blobs(), tmp_path / str(number))
        with pytest.raises(
            VerificationError, match=r"the binary of a launch of .*chunk_fwd_kernel_o differs"
        ) as caught:
            merge(paths, tmp_path / "out")
        assert caught.value.problems[0].where == f"{paths[0]}, {paths[1]}"


def test_another_kernel_of_the_same_name_is_refused(tmp_path: Path) -> None:
    binary = factory.make_binary(factory.CUBINS[0])
    one = _with_binaries(factory.make_manifest(), binary)
    other = replace(one, kernels=(replace(one.kernels[0], source_sha256="0" * 64),))
    paths = sharding.write_all(_pair(one, other), factory.make_blobs(), tmp_path)
    with pytest.raises(VerificationError, match=r"kernel .*chunk_fwd_kernel_o differs"):
        merge(paths, tmp_path / "out")


def test_a_key_that_two_shards_chose_for_is_refused(tmp_path: Path) -> None:
    first, second, third = _shards(tmp_path)
    mine = next(kernel for kernel in first.kernels if kernel.choices)
    both = tuple(
        replace(kernel, choices=mine.choices) if kernel.qualname == mine.qualname else kernel
        for kernel in second.kernels
    )
    keys = sum(len(kernel.choices) for kernel in both) + sum(len(gap.keys) for gap in second.not_covered)
    second = _shard(replace(second, kernels=both), keys=keys)
    paths = sharding.write_all([first, second, third], factory.make_blobs(), tmp_path)
    with pytest.raises(VerificationError, match="contradict each other"):
        merge(paths, tmp_path / "out")


def test_a_binary_has_the_users_of_all_shards_and_spare_ones_only_alone(tmp_path: Path) -> None:
    base = factory.make_manifest()
    used, spare = factory.make_binary(factory.CUBINS[0], "used"), factory.make_binary(factory.CUBINS[1], "spare")
    first = _with_binaries(base, replace(used, workloads=(0,)), replace(spare, workloads=(0,)))
    second = _with_binaries(base, replace(used, workloads=(1,)), replace(spare, workloads=(1,)))

    def merged(*spares: tuple[tuple[int, int], ...]) -> dict[str, tuple[int, ...]]:
        pair = [_shard(item, spare=places) for item, places in zip(_pair(first, second), spares, strict=True)]
        paths = sharding.write_all(pair, factory.make_blobs(), tmp_path)
        (kernel,) = merge(paths, tmp_path / "out")[0].manifest.kernels
        return {binary.launch_key: binary.workloads for binary in kernel.binaries}

    assert merged((), ()) == {"used": (0, 1), "spare": (0, 1)}
    assert merged(((0, 1),), ((0, 1),)) == {"used": (0, 1), "spare": (0, 1)}
    assert merged(((0, 1),), ()) == {"used": (0, 1), "spare": (1,)}
    assert merged((), ((0, 0), (0, 1))) == {"used": (0,), "spare": (0,)}


@pytest.mark.parametrize(
    ("good", "status", "counts"),
    [
        ((("a", "b"), ("b", "c")), "checked", ""),
        ((("a",), ()), "partly checked", "1 of the 3 "),
        (((), ()), "not run", "0 of the 3 "),
    ],
)
def test_the_numeric_check_is_counted_over_all_shards(
    tmp_path: Path, good: tuple[tuple[str, ...], ...], status: str, counts: str
) -> None:
    binary = factory.make_binary(factory.CUBINS[0])
    pair = _pair(*[_with_binaries(factory.make_manifest(), binary)] * 2)
    stated = [
        Checked(where="on a card", packed=packed, good=found)
        for packed, found in zip((("a", "b"), ("b", "c")), good, strict=True)
    ]
    pair = [_shard(item, checked=checked) for item, checked in zip(pair, stated, strict=True)]
    paths = sharding.write_all(pair, factory.make_blobs(), tmp_path)
    numerics = merge(paths, tmp_path / "out")[0].manifest.numerics
    assert numerics.status == status
    assert numerics.detail.startswith(counts)
    assert numerics.detail.endswith("on a card")


def test_the_time_is_that_of_the_environment_else_of_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    shards = [replace(item, build=replace(item.build, epoch=7)) for item in _shards(tmp_path)]
    paths = sharding.write_all(shards, factory.make_blobs(), tmp_path)
    assert merge(paths, tmp_path / "out")[0].manifest.build.epoch == 7
    other = replace(shards[2], build=replace(shards[2].build, epoch=8))
    paths[2] = sharding.write(other, factory.make_blobs(), tmp_path, "other")
    with pytest.raises(ShardError, match="built with different times"):
        merge(paths, tmp_path / "out")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "9")
    assert merge(paths, tmp_path / "out")[0].manifest.build.epoch == 9


def test_several_builds_at_once(tmp_path: Path) -> None:
    shards = _shards(tmp_path)
    target = m.Target(name="sm_90", capability=(9, 0), warp_size=32, max_shared=232448)
    others = [replace(item, target=target, identifier="fla0.6.0-triton3.6.0-sm_90") for item in shards]
    paths = sharding.write_all([*shards, *others], factory.make_blobs(), tmp_path)
    made = merge(paths, tmp_path / "out")
    assert [item.manifest.identifier[-6:] for item in made] == ["sm_120", "-sm_90"]
    (tmp_path / "out" / made[0].path.name).unlink()
    with pytest.raises(ShardError, match="sm_90 1 are missing: 3"):
        merge(paths[:-1], tmp_path / "out")
    assert not made[0].path.exists(), "nothing is written if anything is wrong"

"""A key that stands for keys between others has their launches."""

import traces
from msgspec.structs import replace

from gdn_aot.launches import Config, Relaxed
from gdn_aot.tracing import between
from gdn_aot.tracing.records import Trace, Tuning

CONFIGS = [Config(kwargs=(), num_warps=warps, num_stages=2) for warps in (4, 8)]
SILU, SIGMOID, ONE = [0, 1], [2, 3], [4, 5]
"""Variants: the launch of each candidate."""


def _tuning(key: tuple[object, ...], *variants: list[int], configs: list[Config] = CONFIGS) -> Tuning:
    users = [{(variant[0], 0), (key[1], 1)} for variant in variants]
    return Tuning(0, key, candidates=configs, derived=0, variants=[*variants], users=users)  # type: ignore[arg-type]


def _completed(*tunings: Tuning, place: int | None = 1) -> Trace:
    trace = traces.make_trace(("norm",), [0] * 6, [*tunings], {})
    trace.kernels = [replace(kernel, relaxations=(Relaxed("NB", 1, "not read", place),)) for kernel in trace.kernels]
    between.complete(trace)
    return trace


def test_a_variant_is_added_between_the_keys_that_have_it_and_nowhere_else() -> None:
    keys = _completed(
        _tuning((128, 1, "bf16"), SILU, ONE),
        _tuning((128, 64, "bf16"), SILU),
        _tuning((128, 48, "bf16"), SIGMOID),
        _tuning((128, 96, "bf16"), SIGMOID),
        _tuning((192, 48, "bf16"), SIGMOID),
        _tuning((128, 50, "bf16"), SIGMOID, configs=CONFIGS[:1]),
    ).tunings
    assert [tuning.variants for tuning in keys] == [
        [SILU, ONE], [SILU, SIGMOID], [SIGMOID, SILU], [SIGMOID], [SIGMOID], [SIGMOID],
    ]  # fmt: skip
    assert keys[2].users == [{(2, 0), (48, 1)}, {(0, 0), (1, 1), (64, 1)}], "those of the keys on both sides"
    assert keys[1].users[1] == {(2, 0), (48, 1), (96, 1)}


def test_a_constant_that_is_not_in_the_key_joins_nothing() -> None:
    known = [_tuning((128, number, "bf16"), variant) for number, variant in ((32, SILU), (48, SIGMOID), (64, SILU))]
    assert [tuning.variants for tuning in _completed(*known, place=None).tunings] == [[SILU], [SIGMOID], [SILU]]

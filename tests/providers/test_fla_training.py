"""What training launches: the gated norm on every card, and everything of models with Kimi Delta Attention."""

import math

import pytest
import uncompiled

from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.providers.norm_rows import bucket_rows

ROWS, CARDS = 65536, (14, 28, 56, 58, 72, 108, 114, 132, 142, 148, 170, 188)
NORM = ("gated-norm-train", "gated-norm")


def _kind(number: int) -> int:
    return 1 if number == 1 else 16 if number % 16 == 0 else 0


def _keys(v_heads: int, tokens: int, sm_count: int) -> tuple[int, int, int]:
    """Return what decides the launch key of the backward pass, by FLA's formula, written again: bucket, rows, share."""
    rows = tokens * v_heads
    programs = min(sm_count, rows)
    return -(-rows // ROWS), _kind(rows), _kind(-(-rows // programs))


@pytest.mark.parametrize("most", [3, 40, 130, 40000])
@pytest.mark.parametrize("v_heads", [1, 2, 3, 4, 6, 12, 15, 16, 30, 32, 48, 96, 128])
def test_the_norm_has_a_case_for_every_share_of_every_card(v_heads: int, most: int) -> None:
    made = bucket_rows(v_heads, ROWS, most, range(8, 257))
    covered = {_keys(v_heads, tokens, sm_count) for tokens, sm_count in made}
    assert all(1 <= tokens <= most and sm_count in range(8, 257) for tokens, sm_count in made)
    assert len(made) == len(covered), "each once"
    buckets = {bucket for bucket, _, _ in covered}
    assert max(buckets) == math.ceil(most * v_heads / ROWS)
    met = {_keys(v_heads, tokens, sms) for sms in CARDS for tokens in (*range(1, min(most, 3000) + 1), most - 1, most)}
    assert {key for key in met if key[0] in buckets} <= covered
    forwards = {_keys(v_heads, *row)[:2] for row in bucket_rows(v_heads, ROWS, most)}
    assert {key[:2] for key in met if key[0] in buckets} <= forwards


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("sm_90", (("kimi-linear-48b-a3b", 8), ("kimi-k3", 1))),
        ("sm_120", (("qwen3.5-9b", 1), ("olmo-hybrid-7b", 30))),
        ("sm_120", (("qwen3.5-9b", 1), ("kimi-k3", 8))),  # whose row buckets are not all powers of 2, nor its gate's
    ],
)
def test_training_finds_the_norm_for_any_length_on_any_card(target: str, names: tuple[tuple[str, int], ...]) -> None:
    shapes = [find_model(name).shape(tp) for name, tp in names]
    found = uncompiled.cover(target, shapes, NORM, Limits(mode="train"), calls=400)
    assert [(shape.name, workload) for shape, workload, _ in found] == [
        (name, one) for name, _ in names for one in NORM
    ]
    for _, workload, result in found:
        assert result["misses"] == result["refused"] == result["misfits"] == []
        assert result["hits"] == result["launches"] == 400 * (2 if workload == "gated-norm-train" else 1)


def test_training_of_kimi_delta_attention_has_every_launch() -> None:
    fla = get_provider("fla")
    shape = find_model("kimi-linear-48b-a3b").shape(8)
    workloads = (*fla.inference, *fla.training, *fla.training_on_request)
    found = uncompiled.cover("sm_90", [shape], workloads, Limits(max_tokens=4096, max_batch=4, mode="train"), calls=60)
    wanted = {"transformers-kda-train", "layer-kda-train", "kda-gate-train", "gated-norm-train", "short-conv-train"}
    assert wanted <= {workload for _, workload, _ in found}
    for _, _, result in found:
        assert result["misses"] == result["refused"] == result["misfits"] == []
        assert result["hits"] == result["launches"] >= result["calls"] == 60

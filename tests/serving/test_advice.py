"""What covers a miss: the command for just this one."""

from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.catalogue.kernel_names import family_of
from gdn_aot.serving.advice import advice, cover

SHAPE = {"heads": 16, "v_heads": 32, "k_dim": 128, "v_dim": 128}
SIZES = {"H": 16, "HV": 32, "K": 128, "V": 128}
OTHER = "--shape heads=32,v_heads=32,k_dim=128,v_dim=128,dtype=bf16"


def _header(provider: str = "fla", names: tuple[str, ...] = ("qwen3.5-9b",), **more: object) -> dict[str, Any]:
    rows = [{"name": name, "tp": 1 + number, "dtype": "bf16", **SHAPE} for number, name in enumerate(names)]
    base = {"target": "sm_80", "provider": provider, "models": rows, "max_tokens": 4096, "max_batch": 64}
    return {**base, "workloads": ["transformers-prefill", "transformers-decode"], **more}


@pytest.mark.parametrize(
    ("values", "dtype", "said"),
    [
        ({**SIZES, "H": 32, "B": 1}, "bf16", OTHER),
        ({**SIZES, "H": 32, "B": 65}, "bf16", OTHER),
        (SIZES, "fp32", "--tp 1 --dtype fp32"),
        ({**SIZES, "B": 65}, "fp32", "--tp 1 --dtype fp32"),
        (SIZES, "fp64", "capture"),
        ({"B": 65, "H": 32}, "fp32", "--max-batch 65"),
        ({"B": 64, "D": 128}, "bf16", "capture -o FILE -- COMMAND, then gdn-aot build --arch sm_80 --provider fla"),
        ({"NB": 2, "D": 128}, "bf16", "--max-tokens 262144"),
        ({"NB": 1, "D": 128}, "bf16", "capture -o FILE -- COMMAND"),
        (SIZES, "bf16", "capture -o FILE -- COMMAND"),
        ({}, "", "capture -o FILE -- COMMAND"),
        ({**SIZES, "H": "odd", "B": None}, "", "capture -o FILE -- COMMAND"),
    ],
)
def test_a_miss_names_what_covers_it(values: dict[str, Any], dtype: str, said: str) -> None:
    got = cover(_header(), values, dtype)
    assert got.startswith("Cover it ")
    assert said in got
    assert "gdn-aot build --arch sm_80 --provider fla --model qwen3.5-9b --tp 1" in got


class Index:
    """Of an artifact that has ``relaxed`` constants of a kernel."""

    def __init__(self, *relaxed: str, gaps: tuple[Any, ...] = ()) -> None:
        self.relaxations = lambda _: [(name, None, 0) for name in relaxed]
        self.not_covered = lambda: gaps


def _advice(index: Index, key: Any, **header: Any) -> str:
    found: Any = SimpleNamespace(header=_header(**header), index=index)
    tuner = SimpleNamespace(keys=["B", "H"])
    return advice("m:k", "choice", key, [found], None, tuner)


def test_a_batch_is_advised_only_where_it_is_compiled_for() -> None:
    key = (65, 48, "torch.float32")
    assert "--max-batch 65" in _advice(Index(), key)
    assert "capture" in _advice(Index("B"), key)
    assert "--max-batch 65" in _advice(Index("B"), key, max_batch=1)


def test_what_a_build_left_out_as_a_whole_is_covered_by_none() -> None:
    gaps = (("m:k", "no candidate fits", 0),)
    assert _advice(Index(gaps=gaps), (1, 48)) == "No build covers it: no candidate fits"


@pytest.mark.parametrize(
    ("header", "said", "unsaid"),
    [
        ({"names": ("own-shape",)}, "--shape heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16", "--model"),
        ({"names": ()}, "--provider fla --shape heads=32", "--model"),
        ({"copy": True}, "--package DIRECTORY --shape", ""),
        ({"workloads": ["transformers-prefill", "transformers-train"]}, "--mode train --shape", "--workload"),
        ({"workloads": ["layer-prefill", "capture-0123456789ab"]}, "--workload layer-prefill --shape", "capture"),
        ({"names": tuple(f"qwen3.5-{size}" for size in ("0.8b", "2b", "4b", "9b", "27b"))}, "--model all --tp", ""),
    ],
    ids=["own shape", "captures alone", "copy", "training", "on request", "many models"],
)
def test_what_is_there_is_built_again(header: dict[str, Any], said: str, unsaid: str) -> None:
    got = cover(_header(**header), {**SIZES, "H": 32}, "bf16")
    assert said in got
    assert OTHER in got
    assert not unsaid or unsaid not in got


KDA = "fla.ops.kda.wy_fast:recompute_w_u_fwd_kda_kernel"
BOTH = "fla.ops.common.chunk_delta_h:chunk_gated_delta_rule_fwd_kernel_h_blockdim64"


@pytest.mark.parametrize(
    ("kernel", "row", "said"),
    [
        (KDA, {}, "--shape heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16,family=kda"),
        (KDA, {"family": "kda"}, "--capture FILE"),
        (BOTH, {}, "--capture FILE"),
        (BOTH, {"family": "kda", "k_dim": 64}, "--shape heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16,family=kda"),
        (BOTH, {"k_dim": 64}, "--shape heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16"),
    ],
)
def test_a_shape_is_of_the_family_whose_kernel_it_is(kernel: str, row: dict[str, Any], said: str) -> None:
    header = _header()
    header["models"][0] |= {"family": "gdn", **row}
    got = cover(header, SIZES, "bf16", family_of(kernel.rpartition(":")[2]))
    assert got.endswith(said), got


def test_a_bound_is_built_again() -> None:
    header = _header(names=("mine",))
    header["models"][0] |= {"family": "kda", "gate_bound": -5.0}
    assert "--shape heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16,family=kda,gate_bound=-5.0" in cover(
        header, {"NB": 1}, "bf16"
    )


def test_longer_contexts_are_not_advised_where_the_longest_is_built() -> None:
    assert "capture" in cover(_header(max_tokens=262144), {"NB": 2}, "bf16")


def test_a_provider_that_takes_no_shape_is_recorded() -> None:
    got = cover(_header("vllm"), {"Hg": 32, "H": 32, "K": 128, "V": 128}, "bf16")
    assert "--shape" not in got
    assert "gdn-aot capture -o FILE -- vllm serve MODEL" in got


def test_an_unknown_provider_is_said() -> None:
    assert cover(_header("other"), SIZES) == "No build covers it: its provider is not known here"

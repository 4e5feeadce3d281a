"""What covers a miss: the command for just this one."""

import shlex
from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.catalogue.kernel_names import family_of
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.cli._job import selected_shapes
from gdn_aot.cli.build import command as build
from gdn_aot.serving.advice import advice, cover, cover_shape

SHAPE = {"heads": 16, "v_heads": 32, "k_dim": 128, "v_dim": 128}
SIZES = {"H": 16, "HV": 32, "K": 128, "V": 128}
OTHER = "--shape heads=32,v_heads=32,k_dim=128,v_dim=128,dtype=bf16"


def _header(provider: str = "fla", names: tuple[str, ...] = ("qwen3.5-9b",), **more: object) -> dict[str, Any]:
    rows = [{"name": name, "tp": 1 + number, "dtype": "bf16", **SHAPE} for number, name in enumerate(names)]
    base = {
        "target": "sm_80",
        "capability": [8, 0],
        "version": "0.0",
        "provider": provider,
        "models": rows,
        "max_tokens": 4096,
        "max_batch": 64,
    }
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


@pytest.mark.parametrize("bound", [0.0, -5.0])
def test_a_model_of_another_bound_is_a_shape_of_its_own(bound: float) -> None:
    header = _header()
    header["models"][0] |= {"family": "kda", "gate_bound": -5.0 - bound}
    shape = {"heads": 16, "v_heads": 32, "k_dim": 128, "v_dim": 128, "conv_width": 4, "dtype": "bf16"}
    got = cover_shape(header, {**shape, "family": "kda", "gate_bound": bound})
    assert got.endswith("dtype=bf16,family=kda" + ",gate_bound=-5.0" * (bound < 0)), got


def test_longer_contexts_are_not_advised_where_the_longest_is_built() -> None:
    assert "capture" in cover(_header(max_tokens=262144), {"NB": 2}, "bf16")


def test_a_provider_that_takes_no_shape_is_recorded() -> None:
    got = cover(_header("vllm"), {"Hg": 32, "H": 32, "K": 128, "V": 128}, "bf16")
    assert "--shape" not in got
    assert "gdn-aot capture -o FILE -- vllm serve MODEL" in got


def _served(
    provider: str, version: str, heads: int, v_heads: int, family: str = "gdn", bound: float = 0.0, **more: Any
) -> str:
    """Return the sentence for a served shape, of an artifact for an H100."""
    of_card = {"target": "sm_90", "capability": [9, 0], "workloads": ["prefill", "decode"], "version": version}
    header = _header(provider, **{**of_card, **more})
    shape = {"heads": heads, "v_heads": v_heads, "k_dim": 128, "v_dim": 128, "conv_width": 4, "dtype": "bf16"}
    return cover_shape(header, {**shape, "family": family, "gate_bound": bound})


def _built(sentence: str) -> set[tuple[str, int, int]]:
    """Return what a build makes of the command in a sentence: models with their key and value heads."""
    command = sentence.removeprefix("Cover it with: ").partition(" (")[0]
    options = build.make_context("build", shlex.split(command)[2:]).params
    selected = selected_shapes(PROVIDERS[options["provider"]], options)
    return {(shape.name, shape.heads, shape.v_heads) for shape in selected.shapes}


ENGINES = pytest.mark.parametrize(("provider", "version"), [("sglang", "0.5.23"), ("vllm", "0.33.0")])


@ENGINES
def test_the_served_model_at_another_size_is_added_to_the_build(provider: str, version: str) -> None:
    got = _served(provider, version, 4, 8)
    assert got == f"Cover it with: gdn-aot build --arch sm_90 --provider {provider} --model qwen3.5-9b --tp 1,4"
    assert _built(got) == {("qwen3.5-9b", 16, 32), ("qwen3.5-9b", 4, 8)}
    many = tuple(f"qwen3.5-{size}" for size in ("0.8b", "2b", "4b", "9b", "27b"))
    got = _served(provider, version, 2, 4, names=many)
    assert got.endswith("--model all --tp 1,2,3,4,5,8")
    assert ("qwen3.5-9b", 2, 4) in _built(got)


@ENGINES
def test_another_model_of_the_shape_is_added_with_its_size(provider: str, version: str) -> None:
    """Which of them is served is not seen: the first is in the command, others are named after it."""
    got = _served(provider, version, 8, 24)
    assert _built(got) >= {("qwen3.5-9b", 16, 32), ("qwen3.5-27b", 8, 24)}
    others = "qwen3.6-27b --tp 2, qwen3.8-27b --tp 2"
    assert got.endswith(f"--tp 1,2 (of this shape too, in place of qwen3.5-27b --tp 2: {others})")
    assert "qwen3.8-flash-next" not in got, "no engine has its layer"
    assert got.count("--model") == 1


@pytest.mark.parametrize(
    ("provider", "version", "heads", "bound", "said"),
    [
        ("sglang", "0.5.23", 24, -5.0, "--model qwen3.5-9b,kimi-k3 --tp 1,4"),
        ("sglang", "0.5.23", 64, -5.0, "--model qwen3.5-9b,glm-5.3-flash --tp 1"),
        ("sglang", "0.5.23", 64, 0.0, ""),
        ("sglang", "0.5.18", 8, 0.0, ""),
        ("sglang", "0.5.17+cu129", 8, 0.0, "--model qwen3.5-9b,kimi-linear-48b-a3b --tp 1,4"),
        ("sglang", "0.5.17", 8, -5.0, ""),
        ("sglang", "0.5.23", 16, -5.0, "--model qwen3.5-9b,kimi-k3 --tp 1,6"),
        ("vllm", "0.24.0", 24, -5.0, ""),
        ("vllm", "0.33.0", 24, -5.0, "--model qwen3.5-9b,kimi-k3 --tp 1,4"),
        ("vllm", "0.33.0", 64, -5.0, "--model qwen3.5-9b,glm-5.3-flash --tp 1"),
        ("vllm", "0.33.0", 64, 0.0, ""),
        ("vllm", "0.33.0", 7, 0.0, ""),
    ],
)
def test_a_model_that_a_build_refuses_is_recorded(
    provider: str, version: str, heads: int, bound: float, said: str
) -> None:
    got = _served(provider, version, heads, heads, "kda", bound)
    if said:
        got = got.partition(" (")[0]
        assert got.endswith(said)
        assert (said.split()[1].partition(",")[2], heads, heads) in _built(got)
    else:
        assert got.startswith(f"Cover it by recording: gdn-aot capture -o FILE -- {PROVIDERS[provider].serve}, then ")
        assert got.endswith(f"--provider {provider} --model qwen3.5-9b --tp 1 --capture FILE")


def test_a_card_for_which_a_build_refuses_a_model_is_recorded() -> None:
    assert "capture" in _served("vllm", "0.33.0", 64, 64, "kda", -5.0, capability=[10, 0])


def test_a_served_model_in_fp16_is_built_in_it() -> None:
    header = _header("vllm", version="0.24.0", workloads=["prefill"])
    got = cover(header, {"Hg": 4, "H": 8, "K": 128, "V": 128}, "fp16")
    assert got.endswith("--model qwen3.5-9b --tp 1,4 --dtype fp16")


def test_an_unknown_provider_is_said() -> None:
    assert cover(_header("other"), SIZES) == "No build covers it: its provider is not known here"

"""``gdn-aot doctor`` on a machine that serves with SGLang: would it load the plugin, and what would it launch."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from doctoring import distribution, first_on_path
from helpers import ROOT, python

from gdn_aot.providers.sglang.engine import conditions, release

ROWS = json.loads((ROOT / "benchmarks" / "results" / "sglang_releases.json").read_text())["rows"]
"""Of each release that was traced: its kernels, as they are named there."""
PREFILL = {
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    "chunk_fwd_kernel_o",
    "chunk_local_cumsum_scalar_kernel",
    "recompute_w_u_fwd_kernel",
}
UPDATE = {"fused_sigmoid_gating_delta_rule_update_kernel"}
DECODE = {"fused_recurrent_gated_delta_rule_packed_decode_kernel"}


def of_release(version: str, names: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the kernels of a release, or those of some names; of one that was not traced those of the first."""
    kernels = ROWS.get(version, ROWS["0.5.14"])["kernels"]
    return tuple(kernel for kernel in kernels if names is None or kernel.partition(":")[2] in names)


KERNELS = of_release("0.5.23")
ALWAYS = tuple(set(KERNELS) - set(of_release("0.5.23", PREFILL | UPDATE | DECODE)))


@pytest.mark.parametrize("version", ROWS)
def test_kernels_are_known_in_the_modules_of_every_release(version: str) -> None:
    kernels, number = of_release(version), release(version)
    assert len(of_release(version, PREFILL | UPDATE | DECODE)) == len(PREFILL | UPDATE | DECODE)
    for capability, names in (
        ((8, 0), set()),
        ((9, 0), PREFILL | UPDATE if number >= (0, 5, 19) else set()),
        (
            (10, 0),
            (PREFILL if number >= (0, 5, 16) else set()) | (UPDATE if number >= (0, 5, 13) else set()) | DECODE,
        ),
        ((12, 0), set()),
    ):
        found = conditions("sglang", version, capability, kernels)
        assert {name for one in found for name in one.kernels} == set(of_release(version, names))


@pytest.mark.parametrize(
    ("version", "capability", "expected"),
    [
        ("0.5.17", (8, 0), []),
        ("0.5.17", (9, 0), []),
        ("0.5.23", (12, 0), []),
        ("0.5.23", (8, 9), []),
        ("0.5.18", (9, 0), []),
        ("0.5.19", (9, 0), [("prefill", "states are float32 and"), ("verify", "for prefill it takes")]),
        ("0.5.12", (10, 0), [("decode", "--mamba-ssm-dtype bfloat16 if there are no drafts")]),
        ("0.5.15.post1", (10, 0), [("decode of drafts", "for decode it takes"), ("decode", "dtype bfloat16; with")]),
        (
            "0.5.16",
            (10, 0),
            [
                ("prefill", "keeps no copies of states and"),
                ("decode of drafts", "for prefill or decode it takes"),
                ("decode", "without that argument, whatever states the checkpoint asks for"),
            ],
        ),
        (
            "0.5.18",
            (10, 3),
            [
                ("prefill", "states are bfloat16 (by the argument or the checkpoint), CUDA is 13 or later and"),
                ("verify", "for prefill or decode it takes it for verification of drafts too"),
                ("decode", "--mamba-ssm-dtype bfloat16; with"),
            ],
        ),
    ],
)
def test_which_kernels_sglang_launches(
    version: str, capability: tuple[int, int], expected: list[tuple[str, str]]
) -> None:
    """Drafts have an option of their own from 0.5.18 on; before, they take Triton's if all steps do."""
    found = conditions("sglang", version, capability, of_release(version))
    assert len(found) == len(expected)
    for condition, (step, reason) in zip(found, expected, strict=True):
        names = {"prefill": PREFILL, "decode": DECODE}.get(step, UPDATE)
        assert condition.kernels == of_release(version, names)
        assert "SGLang takes FlashInfer for " in condition.reason
        assert f"--linear-attn-{step.partition(' ')[0]}-backend triton" in condition.reason
        assert reason in condition.reason


FLA = "sglang.kernels.ops.attention.fla."
DELTA = (
    f"{FLA}chunk_intra:chunk_kda_fwd_kernel_inter_solve_fused",
    f"{FLA}fused_recurrent:fused_recurrent_kda_packed_decode_kernel",
)
(STATES,) = of_release("0.5.23", {"chunk_gated_delta_rule_fwd_kernel_h_blockdim64"})
OF_BOTH = (STATES, *of_release("0.5.23", UPDATE))
TOKENS = of_release("0.5.23", {*UPDATE, "_causal_conv1d_update_kernel"})


@pytest.mark.parametrize("capability", [(9, 0), (10, 0)])
def test_kimi_delta_attention_takes_triton_but_for_decode_of_several(capability: tuple[int, int]) -> None:
    """An artifact of both families has kernels that one of them always launches."""
    kernels = (*DELTA, *OF_BOTH, *ALWAYS)
    (found,) = conditions("sglang", "0.5.23", capability, kernels)
    assert found.kernels == (DELTA[1],)
    assert "decode steps of 8 requests or more" in found.reason
    assert "compiles itself with nvcc, if states are float32" in found.reason
    assert "--mamba-ssm-dtype bfloat16" in found.reason
    assert conditions("sglang", "0.5.17", capability, kernels) == (found,)
    assert conditions("sglang", "0.5.16", capability, kernels) == ()
    of_vllm = f"vllm.model_executor.layers.fla.ops.fused_recurrent:{DELTA[1].partition(':')[2]}"
    assert conditions("sglang", "0.5.23", capability, (DELTA[0], of_vllm)) == ()
    of_delta = set(of_release("0.5.23", PREFILL | (DECODE if capability == (10, 0) else set())))
    for others, conditional in (((), of_delta | set(OF_BOTH)), (DELTA, of_delta - set(OF_BOTH) | {DELTA[1]})):
        found = conditions("sglang", "0.5.23", capability, (*KERNELS, *others))
        assert {name for one in found for name in one.kernels} == conditional


@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (10, 3), (12, 0)])
def test_prompts_with_a_bounded_gate_take_flashinfer_on_two_kinds_of_cards(capability: tuple[int, int]) -> None:
    """Kernels of prompts that layers without a bound launch, too, have no condition where an artifact has both."""
    bound = f"{FLA}chunk_intra:chunk_kda_fwd_kernel_intra_sub_chunk"
    other = f"{FLA}chunk_intra_token_parallel:chunk_kda_fwd_kernel_intra_token_parallel"
    prompts = (DELTA[0], f"{FLA}kda:chunk_gla_fwd_kernel_o")
    taken = capability in {(10, 0), (10, 3)}
    for kernels, conditional in (((), {bound, *prompts}), ((other,), {bound})):
        rest = set(ALWAYS) - set(TOKENS)
        found = conditions("sglang", "0.5.23", capability, (*prompts, bound, *kernels, STATES, *rest))
        assert {name for one in found for name in one.kernels} == (conditional if taken else set())
        assert all("--linear-attn-prefill-backend triton" in one.reason for one in found)


@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (10, 3), (12, 0)])
def test_tokens_with_a_bounded_gate_are_cuda_of_one_model_and_size(capability: tuple[int, int]) -> None:
    bound = f"{FLA}chunk_intra:chunk_kda_fwd_kernel_intra_sub_chunk"
    conditional = conditions("sglang", "0.5.23", capability, (bound, *TOKENS))
    (found,) = (one for one in conditional if bound not in one.kernels)
    assert found.kernels == TOKENS
    assert "decode steps of Kimi-K3 at TP 8 by a CUDA kernel that it compiles itself with nvcc" in found.reason
    assert ("drafts on this card by CuTe DSL" in found.reason) == (capability[0] == 10)
    assert ("; for drafts, with --mamba-ssm-dtype bfloat16" in found.reason) == (capability[0] != 10)
    assert conditions("sglang", "0.5.23", capability, (DELTA[0], *TOKENS)) == ()


def test_others_have_no_condition() -> None:
    assert conditions("vllm", "0.24.0", (10, 0), KERNELS) == ()
    assert conditions("sglang", "0.5.23", (10, 0), ALWAYS) == ()


def test_numbers_of_releases() -> None:
    assert release("0.5.15.post1") == (0, 5, 15)
    assert release("0.5.9") < release("0.5.11") == release("0.5.11+cu129")
    assert release("none") == (0,)


HOOKS = """
import json
from gdn_aot.doctor.process import read_hooks
found = read_hooks({"sglang"})
(_, plugin) = found.facts["plugins"]
print(json.dumps([plugin, [obstacle.what for obstacle in found.obstacles], list(found.lines)]))
"""


def hooks(folder: Path, version: str, **extra: str) -> Any:
    if not folder.joinpath("site").exists():
        distribution(folder / "site", "sglang", version)
        ours = "[sglang.srt.plugins]\ngdn_aot = gdn_aot.plugins.sglang:register\n"
        distribution(folder / "site", "gdn_aot", "0.1.0", ours)
    return python(HOOKS, home=folder / "home", extra={**first_on_path(folder / "site"), **extra})


def test_an_installed_entry_point_is_fine_and_a_filter_is_in_the_way(tmp_path: Path) -> None:
    plugin, obstacles, lines = hooks(tmp_path, "0.5.17")
    assert (plugin["installed"], plugin["value"], plugin["too_old"]) == (True, "gdn_aot.plugins.sglang:register", False)
    assert obstacles == []
    (line,) = (line for line in lines if "entry point gdn_aot.plugins.sglang:register of sglang.srt.plugins" in line)
    assert "with --use-ray its schedulers load no plugins" in line
    _, obstacles, _ = hooks(tmp_path, "0.5.17", SGLANG_PLUGINS="other")
    assert obstacles == ["SGLANG_PLUGINS=other leaves gdn_aot out, so that sglang 0.5.17 does not load it"]
    assert hooks(tmp_path, "0.5.17", SGLANG_PLUGINS=" gdn_aot , other")[1] == []


def test_a_release_that_loads_no_plugins_is_in_the_way(tmp_path: Path) -> None:
    plugin, obstacles, lines = hooks(tmp_path, "0.5.10")
    assert plugin["too_old"]
    assert len(obstacles) == 1
    assert obstacles[0].startswith("sglang 0.5.10 loads no plugins (0.5.11 is the first release that does)")
    assert any("sglang 0.5.10" in line and "it loads no plugins" in line for line in lines)

"""SGLang's own layers, on its own pool of states, are served by an artifact: the bits are those of plain SGLang.

``GDN_AOT_TEST_ARTIFACT`` names one that has these models undivided: ``gdn-aot build --provider sglang --arch sm_90
--model qwen3.5-9b --model qwen3-next-80b-a3b --model kimi-linear-48b-a3b --tp 1 -o DIR``.
"""

import importlib.metadata
import importlib.util
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gpu import fla_configs, served
from gpu.conftest import Loaded, Program, Record, provenance

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="SGLang is not installed here"),
]

STEPS, PARTS = 300, 3
"""Random steps, and processes that share them, of each kind."""
MODELS = ("qwen3.5-9b", "qwen3-next-80b-a3b", "kimi-linear-48b-a3b")
KERNELS = {
    "_causal_conv1d_fwd_kernel",
    "_causal_conv1d_update_kernel",
    "chunk_fwd_kernel_o",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    "fused_recurrent_gated_delta_rule_packed_decode_kernel",
    "fused_sigmoid_gating_delta_rule_update_kernel",
    "recompute_w_u_fwd_kernel",
    "chunk_gla_fwd_kernel_o",
    "chunk_kda_fwd_kernel_inter_solve_fused",
    "chunk_kda_fwd_kernel_intra_token_parallel",
    "fused_recurrent_kda_packed_decode_kernel",
    "kda_gate_chunk_cumsum_vector_kernel",
}
KINDS = ("prefill", "decode", "mixed", "speculative")


@pytest.fixture(scope="module")
def steps(program: Program, artifact: Loaded, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Any]]:
    """What the processes with the artifact answer (True), and those of plain SGLang with the artifact's choices."""
    if artifact.manifest.provider.name != "sglang":
        pytest.skip("the artifact is for another provider")
    listed: Path = tmp_path_factory.mktemp("choices") / "choices.json"
    listed.write_text(json.dumps(fla_configs.read_choices(artifact.path)), encoding="utf-8")

    def make(kind: tuple[bool, int]) -> dict[str, Any]:
        options = {"count": STEPS // PARTS, "models": MODELS, "max_tokens": 16384, "choices": str(listed)}
        return program("sglang_steps", served=kind[0], seed=20261201 + kind[1], timeout=280, **options)

    kinds = [(is_served, part) for is_served in (True, False) for part in range(PARTS)]
    with ThreadPoolExecutor(len(kinds)) as pool:
        found = list(pool.map(make, kinds))
    return {True: found[:PARTS], False: found[PARTS:]}


def test_300_random_steps_compile_and_benchmark_nothing(
    steps: dict[bool, list[Any]], artifact: Loaded, record: Record
) -> None:
    """In strict mode, and every result is right against float64."""
    made: Counter[str] = Counter()
    for answer in steps[True]:
        made.update(answer["steps"])
    record(
        sglang=importlib.metadata.version("sglang"),
        **provenance(artifact.path),
        steps=dict(made),
        checked=sum(answer["checked"] for answer in steps[True]),
        wrong=[text for answer in steps[True] for text in answer["wrong"]],
        worst=[answer["worst"] for answer in steps[True]],
        seconds=[answer["seconds"] for answer in steps[True]],
        most_memory=[answer["most_memory"] for answer in steps[True]],
        compiled=[answer["watch"]["compiled"] for answer in steps[True]],
        benchmarked=[answer["watch"]["benchmarked"] for answer in steps[True]],
        modules=[answer["report"]["modules"] for answer in steps[True]],
        loaded=[answer["report"]["loaded"] for answer in steps[True]],
    )
    for answer in steps[True]:
        assert answer["wrong"] == []
        assert answer["checked"] == STEPS // PARTS
        served.check_all(answer)
    assert {name for answer in steps[True] for name in served.loaded_kernels(answer["report"])} >= KERNELS
    assert all(made[f"{kind} of {model}"] for kind in KINDS for model in MODELS)


def test_bits_are_those_of_plain_sglang(steps: dict[bool, list[Any]], record: Record) -> None:
    """Plain SGLang is given the artifact's choices: of what it measures itself others may be the fastest."""
    differ, equal = [], 0
    for part, (ours, theirs) in enumerate(zip(steps[True], steps[False], strict=True)):
        for number, (found, expected) in enumerate(zip(ours["bits"], theirs["bits"], strict=True)):
            equal += bool(found) and found == expected
            differ += [[part, number, name] for name in expected if found.get(name) != expected[name]]
    record(
        equal=equal,
        differ=differ[:50],
        plain_wrong=[text for answer in steps[False] for text in answer["wrong"]],
        plain_compiled=[len(answer["watch"]["compiled"]) for answer in steps[False]],
        plain_benchmarked=[answer["watch"]["benchmarked"] for answer in steps[False]],
        forced=steps[False][0]["forced"],
        seconds=[answer["seconds"] for answer in steps[False]],
    )
    for answer in steps[False]:
        assert answer["wrong"] == []
        assert len(answer["watch"]["compiled"]) >= len(KERNELS), "Triton compiled the other side"
        assert answer["watch"]["benchmarked"] == 0, "the other side took the artifact's choices"
        assert all(set(bits) == {"out", "window", "state"} for bits in answer["bits"])
    assert differ == []
    assert equal == STEPS

"""Whole deployments with drafted tokens, prefix caching and blocks of their own: what vLLM's engine core launches.

Needs the reference version of vLLM, as tests/providers/test_vllm_deployment.py does. Nothing is compiled here: launches
of calls are compared with what is in vLLM's sources, and with those of random requests.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers import python
from whole_deployments import CONFIG as SMALL
from whole_deployments import NEEDS_VLLM

pytestmark = NEEDS_VLLM

CONFIG = {**SMALL, "vocab_size": 4096, "mlp_only_layers": [1, 2]}
ENGINE = {"enforce_eager": True, "gdn_prefill_backend": "triton", "max_model_len": 4096, "max_num_seqs": 32}
MTP = {"method": "mtp", "num_speculative_tokens": 2}
CASES: dict[str, dict[str, Any]] = {
    "mtp, cached": {"speculative_config": MTP, "enable_prefix_caching": True, "max_num_batched_tokens": 640},
    "mtp, probabilistic": {
        "speculative_config": {**MTP, "num_speculative_tokens": 5, "draft_sample_method": "probabilistic"},
        "max_num_batched_tokens": 64,
    },
    "mtp, not padded": {
        "speculative_config": {**MTP, "disable_padded_drafter_batch": True},
        "max_num_batched_tokens": 64,
    },
    "ngram": {
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4},
        "max_num_batched_tokens": 64,
    },
    "cached": {"enable_prefix_caching": True, "max_num_batched_tokens": 640},
    "blocks": {"block_size": 1024, "max_num_batched_tokens": 64},
    "states": {"mamba_ssm_cache_dtype": "float16", "max_num_batched_tokens": 64},
    "windows": {"mamba_cache_dtype": "float32", "max_num_batched_tokens": 64},
}
DRAFT = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "bfloat16", "vocab_size": 4096,
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 1, "head_dim": 64, "max_position_embeddings": 4096,
}  # fmt: skip
"""Of a model that drafts for another one."""
NOT_HERE = {
    "copy_and_expand_eagle_inputs_kernel": "of draft models, and of drafts that are made at once",
    "copy_and_expand_dflash_inputs_kernel": "of the method dflash",
}
"""Kernels of the same modules that no deployment reaches which is enumerated."""
_PROGRAM = """
import json, logging, sys
logging.disable(logging.WARNING)
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
from gdn_aot.deployment import FORM, _flat, complete
from gdn_aot.errors import DeploymentError
from gdn_aot.providers.vllm import workloads
config, cases = (json.loads(text) for text in sys.argv[1:3])
def deployed(engine, model="qwen3-next-80b-a3b"):
    file = FORM.convert(_flat({"card": "NVIDIA H200", "engine": engine}))
    return workloads.deployed(complete(file, model, config))
"""
_LAUNCHES = """
import itertools, random
from triton.runtime import JITFunction
from vllm.v1.sample import rejection_sampler
from vllm.v1.spec_decode import utils
from vllm.v1.worker import mamba_utils
from gdn_aot.triton_internals import Launch, interception, kernel_name, relaxing, run_config
relaxed = {one.kernel: [(one.argument, one.value, None)] for one in workloads.RELAXATIONS}
def launches(run):
    found = []
    def launch(jit, args, kwargs):
        name = kernel_name(jit)
        key = relaxing.keys_to_look_up(jit, Launch(jit, args, kwargs).key, relaxed.get(name, ()))[-1]
        found.append((name.partition(":")[2], key))
    with interception.intercept(lambda tuner, args, kwargs: run_config(tuner, args, kwargs, tuner.configs[0]), launch):
        run()
    return found
with deployed(cases) as engine:
    names, known, misses = [], set(), []
    for name, run in engine.calls():
        names.append(name)
        known.update(launches(run))
    made = 0
    for name, run in itertools.islice(engine.samples(random.Random(7)), 40):
        for launch in launches(run):
            made += 1
            if launch not in known:
                misses.append((name, *launch))
modules = {
    module.__name__.rpartition(".")[2]: [name for name, one in vars(module).items() if isinstance(one, JITFunction)]
    for module in (rejection_sampler, utils, mamba_utils)
}
kernels = {}
for name, key in sorted(known):
    kernels.setdefault(name, []).append(key)
print(json.dumps({"calls": names, "kernels": kernels, "made": made, "misses": misses, "modules": modules,
                  "resolved": engine.resolved}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@cache
def traced(case: str, home: Path) -> Any:
    engine = {**ENGINE, **CASES[case]}
    return python(_PROGRAM + _LAUNCHES, json.dumps(CONFIG), json.dumps(engine), home=home)


@pytest.mark.parametrize("case", CASES)
def test_random_requests_launch_nothing_else(case: str, home: Path) -> None:
    got = traced(case, home)
    assert got["made"] > 300
    assert got["misses"] == []


def test_every_kernel_of_drafts_is_launched_that_can_be(home: Path) -> None:
    """All Triton kernels of the rejection sampler, of the drafter's inputs, and of the states that are kept."""
    got = traced("mtp, cached", home)
    there = {name for names in got["modules"].values() for name in names}
    assert len(there) > len(NOT_HERE) + 5
    assert there - {*got["kernels"]} == {*NOT_HERE}
    assert not {*traced("blocks", home)["kernels"]} & there, "nothing of it is launched without"
    assert {*traced("cached", home)["kernels"]} & there == {"batch_memcpy_kernel"}


def test_the_sampler_is_called_as_when_memory_is_measured(home: Path) -> None:
    """There top-k are of 64 bits, unlike those of requests: an H200 compiled one kernel for it."""
    for case in ("mtp, cached", "ngram"):
        keys = traced(case, home)["kernels"]["expand_kernel"]
        assert [key for key in keys if "('*i64', 'D'), ('*i64', 'D'), ('*i32', 'D')" in key]


def test_the_drafter_has_layers_of_its_own(home: Path) -> None:
    calls = traced("mtp, cached", home)["calls"]
    assert {"drafter's mlp(640)", "drafter's self_attn(1)"} <= {*calls}
    assert not [name for name in traced("ngram", home)["calls"] if name.startswith("drafter")]


def test_every_number_of_drafts_has_its_block(home: Path) -> None:
    """Tokens that a request may get in a step: a power of two each, for 1, 16 and other numbers of requests."""
    for case, blocks in (("mtp, cached", (1, 2, 4)), ("mtp, probabilistic", (1, 2, 4, 8))):
        keys = traced(case, home)["kernels"]["eagle_prepare_next_token_padded_kernel"]
        assert len(keys) == 3 * len(blocks)
        for block in blocks:
            assert len([key for key in keys if key.partition("]")[0].endswith(f"('constexpr', {block})")]) == 3


def test_states_lie_in_the_pages_of_the_engine(home: Path) -> None:
    """Kernels have the page as a constant: two heads of 256 dimensions, keys and values, for each token of a block."""
    for case, block in (("blocks", 1024), ("cached", 544), ("mtp, cached", 560)):
        got = traced(case, home)
        assert got["resolved"]["block_size"] == block
        for name in ("_causal_conv1d_fwd_kernel", "_causal_conv1d_update_kernel"):
            keys = got["kernels"][name]
            assert keys
            assert all(f"('constexpr', {block * 2 * 2 * 256})" in key for key in keys)
    verified = traced("mtp, cached", home)["kernels"]["fused_sigmoid_gating_delta_rule_update_kernel"]
    assert len(verified) > len(traced("cached", home)["kernels"]["fused_sigmoid_gating_delta_rule_update_kernel"])


def test_states_that_no_workload_has_are_built_too(home: Path) -> None:
    """Of another type than vLLM chooses, which gives pages another size: the engine's own layers have them."""
    assert traced("windows", home)["kernels"]["_causal_conv1d_update_kernel"]
    keys = traced("states", home)["kernels"]["chunk_gated_delta_rule_fwd_kernel_h_blockdim64"]
    assert any("('*fp16', 'D')" in key for key in keys)


def test_what_is_not_enumerated_is_refused(home: Path) -> None:
    (home / "draft").mkdir()
    (home / "draft" / "config.json").write_text(json.dumps(DRAFT))
    drafts, model = {"num_speculative_tokens": 2}, {"method": "draft_model", "model": str(home / "draft")}
    dynamic = [[1, 4, 2], [5, 32, 1]]
    refused = {
        "drafts of the method draft_model": {"speculative_config": {**drafts, **model}},
        "drafts of the method ngram_gpu": {"speculative_config": {**drafts, "method": "ngram_gpu"}},
        "a number of drafts that follows the batch": {
            "speculative_config": {**MTP, "num_speculative_tokens_per_batch_size": dynamic}
        },
        "drafts by a part of the vocabulary": {"speculative_config": {**MTP, "use_local_argmax_reduction": True}},
        "pipeline parallelism": {"pipeline_parallel_size": 2},
        "data or expert parallelism": {"enable_expert_parallel": True},
        "context parallelism": {"decode_context_parallel_size": 2, "tensor_parallel_size": 4},
        "images": {"language_model_only": False},
        "pooling": {"runner": "pooling"},
        "attention by Triton": {"attention_backend": "TRITON_ATTN"},
        "block_size (544) must be <= max_num_batched_tokens": {
            "enable_prefix_caching": True, "max_num_batched_tokens": 64
        },
    }  # fmt: skip
    code = """
said = {}
for what, engine in cases.items():
    try:
        with deployed(engine):
            said[what] = "made"
    except DeploymentError as error:
        said[what] = f"{error} {error.hint}"
print(json.dumps(said))
"""
    cases = {what: {**ENGINE, **options} for what, options in refused.items()}
    said = python(_PROGRAM + code, json.dumps(CONFIG), json.dumps(cases), home=home)
    for what, text in said.items():
        assert what in text
        assert "gdn-aot capture" in text or "vLLM refuses" in text


def test_a_config_of_another_model_is_refused(home: Path) -> None:
    """Layers of the gated delta rule are those of the catalogue's model: others would be built for nothing."""
    code = """
try:
    with deployed(cases, sys.argv[3]) as engine:
        print(json.dumps("made"))
except DeploymentError as error:
    print(json.dumps(str(error)))
"""
    engine = json.dumps({**ENGINE, "max_num_batched_tokens": 64})
    other = json.dumps({**CONFIG, "linear_num_value_heads": 16})
    for model, what in (
        ("qwen3-next-80b-a3b", "those of qwen3-next-80b-a3b (16, 32, 128, 128)"),
        ("kimi-linear-48b-a3b", "with Kimi Delta Attention, as kimi-linear-48b-a3b has it, are not enumerated"),
    ):
        assert what in python(_PROGRAM + code, other, engine, model, home=home)

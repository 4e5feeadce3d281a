"""A whole deployment: vLLM's engine core without a card launches what a real one was seen to launch, and no more.

Needs a version of vLLM whose engine is known, as tests/providers/test_vllm.py needs some version of it.
"""

import importlib.metadata
import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, gdn_aot, python
from whole_deployments import CONFIG

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.providers.vllm.whole import RELEASES

_REFERENCE = next(known.version for known in PROVIDERS["vllm"].versions if known.status == "reference")
_THERE = importlib.metadata.version("vllm") if importlib.util.find_spec("vllm") is not None else ""
pytestmark = pytest.mark.skipif(
    _THERE not in RELEASES,
    reason=f"vLLM {' or '.join(RELEASES)} is not installed here; make vllm runs this where it is",
)

TOML = """
card = "NVIDIA H200"
config = "config.json"

[engine]
enforce_eager = true
gdn_prefill_backend = "triton"
max_model_len = 16384
max_num_batched_tokens = 640
max_num_seqs = 64
"""
_LAYERS = {"_fused_qk_rmsnorm_rope_gate_kernel": 1}
_FIRST = {
    **_LAYERS,
    "_topk_topp_kernel": 6,
    "_compute_slot_mapping_kernel": 2,
    "_zero_kv_blocks_kernel": 3,
}
_SECOND = {
    **_LAYERS,
    **dict.fromkeys(
        (
            "_apply_grammar_bitmask_kernel", "_bad_words_kernel", "_bincount_kernel", "_min_p_kernel",
            "_combine_sampled_and_draft_tokens_kernel", "_compute_slot_mappings_kernel", "_gather_block_tables_kernel",
            "_get_num_sampled_and_rejected_kernel", "_penalties_kernel", "_post_update_kernel", "_ranks_kernel",
            "_prepare_pos_seq_lens_kernel", "_prepare_prefill_inputs_kernel", "_prompt_logprobs_token_ids_kernel",
            "_scatter_num_accepted_kernel", "_temperature_kernel", "_zero_kv_blocks_kernel",
            "postprocess_mamba_fused_kernel", "precopy_mamba_align_fused_kernel", "preprocess_mamba_align_fused_kernel",
        ),
        1,
    ),
    "_apply_write_kernel": 5,
    "_bias_kernel": 2,
    "_fill_logprob_token_ids_kernel": 12,
    "_gumbel_sample_kernel": 2,
    "_topk_log_softmax_kernel": 13,
    "_topk_topp_kernel": 4,
    "_topp_sb_mask_kernel": 8,
    "_topp_sb_stats_kernel": 8,
    "_topp_sb_step_kernel": 16,
}  # fmt: skip
"""Of the second runner, with prefix caching, as 0.33.0 has both where nothing is said."""
BINARIES: dict[str, dict[str, int]] = {
    "0.24.0": _FIRST,
    "0.27.1": {**_FIRST, "_compute_slot_mapping_kernel": 1, "_zero_kv_blocks_kernel": 1},
    "0.33.0": _SECOND,
}
"""How many binaries a release has of kernels beside those of the gated delta rule, the experts apart."""
OWN = {"fused_moe_kernel", *BINARIES.get(_THERE, ())}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def artifact(home: Path) -> Artifact:
    (home / "config.json").write_text(json.dumps(CONFIG))
    (home / "deployment.toml").write_text(TOML)
    words = ["build", "--provider", "vllm", "--model", "qwen3-next-80b-a3b", "--workload", "decode", "-o", home]
    gdn_aot(*words, "--deployment", home / "deployment.toml", "-j", 1, home=home)
    (path,) = home.glob("*-deployment-*.tar.zst")
    return open_artifact(path)


@pytest.mark.skipif(_THERE != _REFERENCE, reason=f"of engines of {_REFERENCE} alone there are recordings")
def test_what_real_engines_compiled_is_there(artifact: Artifact) -> None:
    """Names of all kernels that were compiled beside GDN's in the recorded runs of that engine, on H200 and H100."""
    seen = {name for file in ("vllm_gdn", "vllm_gdn_h100") for name in _names(file)}
    here = {kernel.qualname for kernel in artifact.manifest.kernels}
    assert seen >= OWN
    assert here >= OWN
    assert {name for name in seen - here if not _of_gdn(name)} == set()


def test_the_manifest_says_what_for(artifact: Artifact, home: Path) -> None:
    found = artifact.manifest.deployment
    assert found is not None
    assert found.card == "NVIDIA H200"
    assert dict(found.resolved)["attention"] == "FLASH_ATTN, GDN_ATTN"
    assert dict(found.resolved)["block_size"] == 544, "as engines with this model had on an H100"
    assert not artifact.manifest.not_covered
    shown = gdn_aot("inspect", artifact.path, home=home).out
    assert "deployment  qwen3-next-80b-a3b on NVIDIA H200, with" in shown
    assert "max_num_batched_tokens=640" in shown


def test_keys_are_those_of_tensors_on_a_card(artifact: Artifact) -> None:
    """What follows from the card alone: tiles of the sampler for a GPU, pages of the cache, one key for each class."""
    kernels = {kernel.qualname: kernel for kernel in artifact.manifest.kernels}
    keys = {name: [binary.launch_key for binary in kernel.binaries] for name, kernel in kernels.items()}
    assert all("('constexpr', 8192), ('constexpr', 4096)" in key for key in keys["_topk_topp_kernel"])
    if _THERE == _REFERENCE:
        assert all("('constexpr', 278528), ('constexpr', 1024)" in key for key in keys["_zero_kv_blocks_kernel"])
    assert {name: len(keys[name]) for name in OWN - {"fused_moe_kernel"}} == BINARIES[_THERE]


def test_random_traffic_of_the_engine_misses_nothing(artifact: Artifact, home: Path) -> None:
    result = gdn_aot("coverage", artifact.path, "--calls", 300, "--seed", 5, "--json", home=home, code=None).json
    assert result["launches"] > 500
    assert result["refused"] == []
    engine = [miss for miss in result["misses"] if miss["kernel"].partition(":")[2] in OWN]
    assert engine == []


def test_tiles_follow_the_card(home: Path) -> None:
    """256 experts of 512: vLLM has a table of tiles for an H100, and none for an H200, which gets the default."""
    code = """
import json, logging, sys
logging.disable(logging.WARNING)
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
from gdn_aot.catalogue.models import find_model
from gdn_aot.deployment import complete, read
from gdn_aot.providers.vllm import workloads
import torch, vllm.platforms
from gdn_aot.triton_internals import Launch, interception
found = {}
for card, size in (("NVIDIA H200", 1), ("NVIDIA H100 80GB HBM3", 1), ("NVIDIA H200", 2)):
    keys = found[f"{card} {size}"] = []
    text = f"card={card},max_model_len=4096,max_num_batched_tokens=512,max_num_seqs=16,tensor_parallel_size={size}"
    file = read(text)
    with workloads.deployed(complete(file, "qwen3.5-35b-a3b", find_model("qwen3.5-35b-a3b").config)) as engine:
        for name, run in engine.calls():
            if name.startswith("mlp(") and int(name[4:-1]) % 64 == 0:
                with interception.intercept(lambda *_: None, lambda *args: keys.append(Launch(*args).key)):
                    run()
        assert engine.resolved["tensor_parallel_size"] == size
assert torch.cuda.get_device_name() == get_target("sm_90").card.name, "what stood in for a card is gone"
assert vllm.platforms.current_platform.__class__.__bases__ == (vllm.platforms.interface.Platform,)
assert not torch.distributed.is_initialized() and not hasattr(torch.ops._C, "silu_and_mul")
print(json.dumps({card: sorted(set(keys)) for card, keys in found.items()}))
"""
    got = python(code, home=home)
    assert all(got.values())
    if _THERE == _REFERENCE:  # later ones have a table for both
        assert got["NVIDIA H200 1"] != got["NVIDIA H100 80GB HBM3 1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("max_model_len=many", "vLLM refuses the deployment"),
        ("nonsense=1", "vLLM refuses the deployment"),
        ("enable_lora=true,fully_sharded_loras=true", "fully sharded LoRA are not enumerated"),
        ("pipeline_parallel_size=2", "pipeline parallelism are not enumerated"),
        ("load_format=dummy", "cannot set the engine argument load_format"),
    ],
)
def test_what_vllm_refuses_or_is_not_enumerated_ends_the_build(options: str, said: str, home: Path) -> None:
    words = [
        "build",
        "--provider",
        "vllm",
        "--model",
        "qwen3-next-80b-a3b",
        "--workload",
        "decode",
        "-o",
        home / "none",
    ]
    done = gdn_aot(*words, "--deployment", f"card=NVIDIA H200,{options}", home=home, code=2)
    assert said in done.err
    assert not [*(home / "none").glob("*")]


ENUMERATED = """
import itertools, json, logging, os, random
logging.disable(logging.WARNING)
os.environ["VLLM_TRITON_JIT_WARMUP_NUM_THREADS"] = "1"
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
from gdn_aot.catalogue.models import find_model
from gdn_aot.deployment import complete, read
from gdn_aot.providers.vllm import workloads
from gdn_aot.providers.vllm.whole.calls import Calls
from gdn_aot.providers.vllm.whole.engine import engine
from gdn_aot.triton_internals import Launch, interception, kernel_name
def launched(calls):
    found = set()
    note = lambda *launch: found.add((kernel_name(launch[0]), Launch(*launch).key))
    with interception.intercept(lambda *_: None, note):
        for call in calls:
            call()
    return sorted(found)
text = "card=NVIDIA H200,max_model_len=4096,max_num_batched_tokens=80,max_num_seqs=80" + OPTIONS
with engine(complete(read(text), "qwen3-next-80b-a3b", find_model("qwen3-next-80b-a3b").config)) as made:
    calls = Calls(made)
    samples = itertools.islice(calls.samples(random.Random(7)), 150)
    print(json.dumps([
        made.resolved["use_v2_model_runner"],
        *(launched(run for _, run in named) for named in (calls.calls(), samples)),
        launched(registry.warmup for registry in made.warm_ups),
    ]))
"""


@pytest.mark.parametrize("second", [False, True])
def test_either_runner_launches_what_is_enumerated(second: bool, home: Path) -> None:
    """No random request of the engine launches anything else, and what vLLM compiles before it serves is there too.

    vLLM also compiles what it does not launch: the filter of logits whose rows are no multiple of 16 apart, and slot
    mapping of the table that its first runner makes before it knows how large pages are.
    """
    caching = second and _THERE == "0.33.0"  # where vLLM's second runner has it
    options = f",VLLM_USE_V2_MODEL_RUNNER={int(second)},enable_prefix_caching={str(caching).lower()}"
    runs, *found = python(ENUMERATED.replace("OPTIONS", repr(options)), home=home)
    calls, samples, warmed = ({*map(tuple, launches)} for launches in found)
    assert runs is second
    assert ("_gumbel_sample_kernel" in {name.rpartition(":")[2] for name, _ in calls}) is second
    assert samples <= calls
    assert bool(warmed) is (_THERE == "0.33.0" and not second), "the second runner registers with drafts alone"
    apart, multiple = ("[('*fp32', 'D'), ('i32', '" + kind for kind in ("')", "D')"))
    filters = {(name, key) for name, key in warmed if "topk_topp_triton" in name and key.startswith(apart)}
    early = {(name, key) for name, key in warmed if "SlotMapping" in name and "('constexpr', 544)" not in key}
    assert len(early) <= 1
    assert warmed - filters - early <= calls
    assert {(name, key.replace(apart, multiple, 1)) for name, key in filters} <= calls


def _names(file: str) -> Counter[str]:
    found: Counter[str] = Counter()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.update(value.get("names", ()))
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            walk(item)

    walk(json.loads((ROOT / f"benchmarks/results/{file}.json").read_text()))
    return found


def _of_gdn(name: str) -> bool:
    words = ("chunk_", "causal_conv1d", "fused_post_conv", "layer_norm_fwd", "merge_16x16", "recompute_w", "recurrent")
    return any(word in name for word in words)


def test_a_request_before_the_engine_is_ready_leaves_it_as_it_was(home: Path) -> None:
    """vLLM's own engine core, with stand-ins for the card and the layers: what was taken is free, and it serves on."""
    code = """
import json
from unittest import mock
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
from gdn_aot.providers.vllm import workloads
import vllm.utils.torch_utils
from gdn_aot.catalogue.models import find_model
from gdn_aot.deployment import complete, read
from gdn_aot.plugins import vllm_first
from gdn_aot.providers.vllm.whole import releases
from gdn_aot.providers.vllm.whole.calls import Calls
from gdn_aot.providers.vllm.whole.engine import engine
from gdn_aot.triton_internals import interception, kernel_name
text = "card=NVIDIA H200,max_model_len=4096,max_num_batched_tokens=512,max_num_seqs=16"
launched, seeds = [], []
with engine(complete(read(text), "qwen3-next-80b-a3b", find_model("qwen3-next-80b-a3b").config)) as made:
    core = made.core
    blocks = lambda: core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    before = blocks()
    with interception.intercept(lambda *_: None, lambda jit, *_: launched.append(kernel_name(jit))), \
            mock.patch.object(vllm.utils.torch_utils, "set_random_seed", seeds.append), releases.stepping(core):
        vllm_first.answer(core)
    held = made.runner.requests if hasattr(made.runner, "requests") else made.runner.req_states.req_id_to_index
    after = blocks(), len(core.scheduler.requests), len(held), bool(core.batch_queue)
    name, run = next(pair for pair in Calls(made).calls() if pair[0].startswith("steps("))
    with interception.intercept(lambda *_: None, lambda *_: None):
        run()
print(json.dumps([before, after, seeds, sorted({name.rpartition(":")[2] for name in launched})]))
"""
    before, after, seeds, launched = python(code, home=home)
    assert after == [before, 0, 0, False]
    assert seeds == [0]
    assert {"_zero_kv_blocks_kernel"} < {*launched} < OWN

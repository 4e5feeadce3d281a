"""vLLM's layer of Kimi Delta Attention, with the vLLM that is installed: pages, a build, coverage, numbers."""

import importlib.metadata
import importlib.util
import math
from pathlib import Path

import pytest
from helpers import SUPPORT, WITH_SUPPORT, gdn_aot, python
from served import served

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.vllm.relaxations import LINES

FOUND = importlib.util.find_spec("vllm") is not None
VERSION = importlib.metadata.version("vllm") if FOUND else ""

DRAFTING = VERSION != "0.24.0"
KIMI, LING, GLM, K3 = "kimi-linear-48b-a3b", "ling-3.0-flash", "glm-5.3-flash", "kimi-k3"
CHUNKS = {
    "chunk_kda_scaled_dot_kkt_fwd_kernel_intra_sub_inter",
    "chunk_kda_scaled_dot_kkt_fwd_kernel_intra_sub_intra",
    "merge_16x16_to_64x64_inverse_kernel",
    "recompute_w_u_fwd_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_gla_fwd_kernel_o",
    "kda_gate_fwd_kernel",
}
"""Autotuned kernels of vLLM's first prefill of KDA, and the gate."""
FUSED = {
    "kda_gate_chunk_cumsum_vector_kernel",
    "chunk_kda_fwd_kernel_intra_token_parallel",
    "chunk_kda_fwd_kernel_inter_solve_fused",
    "recompute_w_u_fwd_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_gla_fwd_kernel_o",
}
"""Those of the prefill that came with Kimi-K3."""
ALWAYS = {
    "_causal_conv1d_fwd_kernel",
    "_causal_conv1d_update_kernel",
    "l2norm_fwd_kernel2",
    "layer_norm_gated_fwd_kernel",
}
BOUNDED = (FUSED - {"chunk_kda_fwd_kernel_intra_token_parallel"}) | {"chunk_kda_fwd_kernel_intra_sub_chunk"}
"""The same where the gate is bounded."""
PACKED = {
    "_gather_initial_states_kernel",
    "fused_recurrent_kda_packed_decode_kernel",
    "fused_recurrent_kda_fwd_kernel",
}
TUNED = {
    "0.24.0": {KIMI: CHUNKS | {"kda_gate_cumsum_fwd_kernel"}},
    "0.33.0": {
        KIMI: FUSED,
        LING: CHUNKS | {"chunk_local_cumsum_vector_kernel"},
        GLM: CHUNKS - {"kda_gate_fwd_kernel"} | {"kda_gate_cumsum_fwd_kernel"},
        K3: BOUNDED,
    },
}.get(VERSION, {})
STATES = {"_gather_initial_states_kernel", "_scatter_states_kernel"}
STAGED = "_stage_spec_decode_metadata_kernel"
"""Launched by the builder of Kimi-K3's metadata."""
DECODE = {
    KIMI: PACKED if DRAFTING else {"fused_recurrent_gated_delta_rule_fwd_kernel"},
    LING: {"fused_recurrent_gated_delta_rule_fwd_kernel"},
    GLM: {"fused_recurrent_gated_delta_rule_fwd_kernel", *STATES},
    K3: PACKED | {STAGED},
}
KERNELS = {model: tuned | ALWAYS | DECODE[model] for model, tuned in TUNED.items()}
"""Models that are covered -> kernels of the layer; the autotuned ones above."""
TP = 8

pytestmark = pytest.mark.skipif(
    not TUNED, reason="neither vLLM 0.24.0 nor 0.33.0 is installed here; make vllm runs this where one is"
)

_START = (
    WITH_SUPPORT
    + """
import json, logging, sys
logging.disable(logging.INFO)
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target(sys.argv[1]))
from gdn_aot.catalogue.models import all_models, find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.vllm import workloads as provider
from gdn_aot.providers.vllm import cache as vllm_cache, layer as vllm_layer, kda as vllm_kda, steps as vllm_steps
kimi = find_model("kimi-linear-48b-a3b")
kinds = [name for name, make in provider.WORKLOADS.items() if make().applies(kimi.shape(1))]
"""
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def built(home: Path) -> Artifact:
    models = [word for model in KERNELS for word in ("--model", model)]
    gdn_aot("build", "--provider", "vllm", "--arch", "sm_90", *models, "--tp", TP, "-o", home, home=home)
    (path,) = home.glob("*-sm_90.tar.zst")
    return open_artifact(path)


def test_pages_hold_what_the_layer_says_in_blocks_of_its_attention(tmp_path: Path) -> None:
    """The latent of a token has 576 bf16 numbers for all heads, and the state is float32 whatever is asked for."""
    code = """
import torch
found = {}
for tp in (1, 2, 4, 8, 16, 32):
    shape = kimi.shape(tp)
    for one in vllm_cache.deployments(shape):
        sizes = [torch.Size(size).numel() for size in vllm_cache.state_shapes(shape, one)]
        dtypes = vllm_cache.state_dtypes(shape, one)
        least = sum(size * dtype.itemsize for size, dtype in zip(sizes, dtypes))
        row = [one.aligned, vllm_cache.page_size(shape, one), least, [str(dtype) for dtype in dtypes], one.drafts]
        found.setdefault(tp, []).append(row)
shape = kimi.shape(1)
step = vllm_steps.Step(groups=(vllm_steps.Group(2, 0, 1),), deployment=vllm_cache.deployments(shape)[0])
views = vllm_layer.states(shape, step, vllm_kda.inputs(shape, step, EMPTY))
print(json.dumps({"pages": found, "shapes": [list(view.shape) for view in views],
    "strides": [view.stride(0) * view.element_size() for view in views]}))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert got["shapes"] == [[3, 3, 3 * 4096], [3, 32, 128, 128]]
    assert got["strides"] == [2211840 if DRAFTING else 2174976] * 2
    for tp, rows in got["pages"].items():
        heads = 32 // int(tp)
        assert rows[0][0] == 16
        assert len({(page, drafts) for _, page, *_, drafts in rows}) == len(rows)
        for asked, page, least, dtypes, drafts in rows:
            block = max(asked, 128) if DRAFTING else asked  # from 0.27 on 128 at least
            assert least == heads * ((3 + drafts) * 3 * 128 * 2 + 128 * 128 * 4)
            assert page % (block * 576 * 2) == 0
            assert least <= page < least + block * 576 * 2
            assert dtypes == ["torch.bfloat16", "torch.float32"]
        assert {drafts for *_, drafts in rows} == ({0, 1, 2, 3} if DRAFTING else {0})
    if not DRAFTING:
        assert [row[0] for row in got["pages"]["1"]] == [16, 64]
        assert [row[0] for row in got["pages"]["2"]] == [16, 32, 128]


@pytest.mark.skipif(GLM not in KERNELS, reason="this release has no such layer")
def test_states_of_glm_lie_a_whole_block_apart(tmp_path: Path) -> None:
    """A block has the latent and the index of each attention layer, in whole rows and pools of both."""
    code = """
glm = find_model("glm-5.3-flash")
print(json.dumps([[tp, one.drafts, one.state, vllm_cache.page_size(glm.shape(tp), one)]
    for tp in (1, 2, 4, 8, 16, 32, 64) for one in vllm_cache.deployments(glm.shape(tp))]))
"""
    rows = python(_START + code, "sm_90", home=tmp_path)
    assert len(rows) == 7 * 2 * 4
    for tp, drafts, kept, stride in rows:
        state = 64 // tp * ((3 + drafts) * 3 * 128 * 2 + 128 * 128 * (4 if kept == "float32" else 2))
        latent, pool = 512 * 2, 128 + 4  # bytes of a token, and of 16
        block = 512 * math.ceil(state / (512 * latent))
        pages = (11 + (drafts > 0)) * (block * latent + block // 16 * pool)
        kernel = math.gcd(1024, block)
        aligned = math.lcm(latent, kernel // 16 * pool if kernel < block else 1)
        assert stride == aligned * math.ceil(pages / aligned)


@pytest.mark.skipif(K3 not in KERNELS, reason="this release has no such layer")
def test_a_captured_graph_of_kimi_k3_has_rows_of_its_own(tmp_path: Path) -> None:
    """At TP 8 and up to 14 tokens, on cards that vLLM has a table of projections for."""
    code = """
from launch_keys import keys

def strides(tp, tokens, compiled):
    shape = find_model("kimi-k3").shape(tp)
    step = vllm_steps.Step(groups=(vllm_steps.Group(tokens, 5, 1),), deployment=vllm_cache.deployments(shape)[0],
        graph=True, compiled=compiled)
    steps, norm = provider.WORKLOADS["decode"](), provider.WORKLOADS["gated-norm"]()
    call = provider.Call.of("gated-norm", tokens=tokens, sm_count=132)
    found = keys(lambda: steps.run(shape, step.call("decode"))), keys(lambda: norm.run(shape, call))
    return [str(one) for one in found]

print(json.dumps({"rows": [strides(8, tokens, compiled) for tokens in (14, 15) for compiled in (False, True)],
    "other": [strides(4, 3, compiled)[0] for compiled in (False, True)]}))
"""
    packed, beside = str(12 * 4 * 128 + 128 + 12 + 4), str(12 * 4 * 128)
    for card, few in (("sm_90", True), ("sm_80", False)):
        got = python(_START + code, card, home=tmp_path / card)
        (eager, norm), (graph, _), (longer, more), (same, _) = got["rows"]
        assert packed in eager and packed in norm and packed in longer  # noqa: PT018
        assert (beside in graph) == (eager != graph) == few
        assert (beside in norm) == few
        assert longer == same
        assert beside not in more
        assert len({*got["other"]}) == 1


def test_models_whose_layers_other_releases_have_are_refused_with_the_reason(home: Path, tmp_path: Path) -> None:
    code = """
print(json.dumps({model.layer: provider.lacks(model.shape(1)) for model in all_models() if model.family == "kda"}))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert {find_model(model).layer for model in KERNELS} <= {layer for layer, reason in got.items() if not reason}
    for reason in filter(None, got.values()):
        assert reason.startswith("vLLM has a layer for it")
        assert "from 0." in reason
    card, refused, reason = ("sm_80", GLM, "on sm_90 alone") if DRAFTING else ("sm_90", K3, "from 0.27 on")
    command = ("build", "--provider", "vllm", "--arch", card, "--model", refused, "-o", tmp_path)
    done = gdn_aot(*command, home=home, code=None)
    assert done.code != 0
    assert reason in done.err
    assert "Traceback" not in done.err


def test_a_layer_that_reads_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    code = """
def forward(self, hidden_states):
    return self.o_proj(self.fused_everything(hidden_states))
layer = vllm_kda.vllm_versions.layer_class(kimi.layer)
layer.forward = forward
print(json.dumps(provider.lacks(kimi.shape(1))))
"""
    path = tmp_path / "program.py"
    path.write_text(_START + code)
    assert python(f"exec(compile(open({str(path)!r}).read(), {str(path)!r}, 'exec'))", "sm_90", home=tmp_path) == (
        "this version of vLLM has another layer for it than is known here: it reads fused_everything"
    )


def test_kernels_of_a_build(built: Artifact) -> None:
    manifest = built.manifest
    assert {kernel.qualname for kernel in manifest.kernels} == set().union(*KERNELS.values())
    assert {kernel.qualname for kernel in manifest.kernels if kernel.choices} == set().union(*TUNED.values())
    assert [gap.kernel for gap in manifest.not_covered] == []
    placed = {file.name.removesuffix(".json").rpartition("-")[2] for file in manifest.placed}
    others = {
        "BailingMoeV3ForCausalLM",
        "BailingMoeV3MTPModel",
        "Glm5NextForCausalLM",
        "Glm5NextForConditionalGeneration",
        "Glm5NextMTP",
        "KimiK3ForConditionalGeneration",
        "KimiK3MTP",
    }
    assert placed == {"KimiLinearForCausalLM"} | (others if DRAFTING else set())


def test_neither_pages_nor_requests_are_counted_in_binaries(built: Artifact) -> None:
    kernels = {kernel.qualname: kernel for kernel in built.manifest.kernels}
    relaxed = {("num_cache_lines", LINES)} if not DRAFTING else set()  # from 0.27 on it is no constant
    for name in ("_causal_conv1d_fwd_kernel", "_causal_conv1d_update_kernel"):
        assert {(one.argument, one.value) for one in kernels[name].relaxations} >= relaxed
    decode = "fused_recurrent_kda_packed_decode_kernel" if DRAFTING else "fused_recurrent_gated_delta_rule_fwd_kernel"
    counts = [len(kernel.binaries) for kernel in built.manifest.kernels if kernel.qualname == decode]
    # Of Kimi-K3 three sizes or dtypes of a page, each with three strides of a row: alone, as a copy, and in a graph.
    assert counts == [1 + 3 * 3 if DRAFTING else 2], "one for each size of a page"


def test_random_steps_find_everything(built: Artifact, home: Path) -> None:
    for model in KERNELS:
        done = gdn_aot("coverage", built.path, "--model", model, "--tp", TP, "--calls", 300, "--json", home=home)
        assert done.json["misses"] == done.json["refused"] == []
        assert done.json["hits"] == done.json["launches"] > 1000


@pytest.mark.parametrize("model", KERNELS)
def test_launches_do_not_follow_from_content(model: str, tmp_path: Path) -> None:
    """Nor from where tensors are made by default; and what warms a process up launches every kernel of the layer."""
    code = """
import torch
from launch_keys import keys

result = {"launches": 0, "kernels": [], "other": [], "warm": []}
for tp in (8, 32):
    shape = find_model(sys.argv[2]).shape(tp)
    for kind in set(kinds) - {"gated-norm"}:
        workload = provider.WORKLOADS[kind]()
        for call in workload.cases(shape, Limits()):
            without = keys(lambda: workload.run(shape, call))
            step = vllm_steps.Step.of(call)
            inputs = workload.inputs(shape, call, EMPTY)
            real = keys(lambda: vllm_kda.apply(shape, step, inputs))
            with torch.device("meta"):
                elsewhere = keys(lambda: vllm_kda.apply(shape, step, inputs))
            result["launches"] += len(real)
            result["kernels"] = sorted({*result["kernels"], *(kernel.rpartition(":")[2] for kernel, _ in real)})
            if not real == without == elsewhere:
                result["other"].append(str(call))
        for call in workload.warm(shape, 300):
            launched = keys(lambda: workload.run(shape, call))
            result["warm"] = sorted({*result["warm"], *(kernel.rpartition(":")[2] for kernel, _ in launched)})
print(json.dumps(result))
"""
    got = python(_START + code, "sm_90", model, home=tmp_path)
    assert got["other"] == []
    assert got["launches"] > 500
    drafted = {"fused_recurrent_kda_fwd_kernel", STAGED}  # the checkpoint asks for no drafts
    assert set(got["kernels"]) == KERNELS[model] - {"layer_norm_gated_fwd_kernel"}
    assert set(got["warm"]) == set(got["kernels"]) - drafted


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_100", "sm_120"])
@pytest.mark.parametrize("model", [model for model in KERNELS if model != GLM])
def test_the_layer_runs_for_other_targets(model: str, target: str, tmp_path: Path) -> None:
    code = """
from gdn_aot.tracing.recorder import TraceRecorder
from gdn_aot.tracing.records import Trace
shape = find_model(sys.argv[2]).shape(1, "fp16" if sys.argv[1] == "sm_75" else "bf16")
trace = Trace(provider_version="", triton_version="", ptxas_version="")
recorder = TraceRecorder(trace)
for name, make in provider.WORKLOADS.items():
    workload = make()
    for call in workload.cases(shape, Limits(max_tokens=4096, max_batch=4)) if workload.applies(shape) else ():
        recorder.record(lambda: workload.run(shape, call), (0, 0))
print(json.dumps(sorted({kernel.qualname for kernel in trace.kernels})))
"""
    assert set(python(_START + code, target, model, home=tmp_path)) == KERNELS[model]


def test_every_kernel_with_candidates_is_tuned(tmp_path: Path) -> None:
    """At the lengths of a record; that of the decode steps' gate at those which a batch comes near."""
    code = """
found = {}
for kind in kinds:
    workload = provider.WORKLOADS[kind]()
    for tokens in (64, 512, 4096):
        calls = list(workload.tune(kimi.shape(4), tokens, Limits(max_tokens=8192)))
        found[f"{kind} {tokens}"] = [vllm_steps.Step.of(call).tokens for call in calls]
print(json.dumps({name: counts for name, counts in found.items() if counts}))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert got == {
        **{f"prefill {tokens}": [tokens, tokens] for tokens in (64, 512, 4096)},
        "decode 64": [64],
        "decode 512": [256],
    }


@pytest.mark.parametrize("lines", [2, 36310])
def test_a_process_is_served_whatever_the_number_of_cache_lines(built: Artifact, tmp_path: Path, lines: int) -> None:
    code = """
import torch
logging.disable(logging.INFO)
from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.vllm import workloads as provider
from gdn_aot.providers.vllm import cache as vllm_cache, kda as vllm_kda, steps as vllm_steps
from gdn_aot.providers.draw import EMPTY
shape = find_model("kimi-linear-48b-a3b").shape(8)
for deployment in vllm_cache.deployments(shape):
    for groups in ((vllm_steps.Group(1, 0, 40),), (vllm_steps.Group(1, 50, 1),)):
        step = vllm_steps.Step(groups=groups, deployment=deployment)
        tensors = vllm_kda.inputs(shape, step, EMPTY)
        tensors["cache"] = torch.empty(int(sys.argv[2]), tensors["cache"].shape[1], dtype=torch.int8)
        vllm_kda.apply(shape, step, tensors)
"""
    got = served(code, built.path, lines, folder=tmp_path)
    assert got == {"compiled": [], "benchmarked": 0, "misses": []}


@pytest.mark.parametrize("model", KERNELS)
def test_parameters_of_the_decay_are_those_of_a_bounded_gate_if_it_is(model: str, tmp_path: Path) -> None:
    """Where A scales a sigmoid, models have it near 1; elsewhere it is as large as 16."""
    code = """
from gdn_aot.providers.draw import Random
shape = find_model(sys.argv[2]).shape(1)
step = vllm_steps.Step(groups=(vllm_steps.Group(1, 0, 2),), deployment=vllm_cache.deployments(shape)[0])
found = vllm_kda.inputs(shape, step, Random(0, "cpu"))["A_log"].exp()
print(json.dumps([float(found.min()), float(found.max())]))
"""
    least, most = python(_START + code, "sm_90", model, home=tmp_path)
    bounded = find_model(model).shape(1).gate_bound < 0
    assert (0.5 <= least < most <= 2) if bounded else (1 <= least < 8 < most <= 16)


@pytest.mark.parametrize("model", KERNELS)
def test_the_layer_gives_what_the_float64_form_says(model: str, tmp_path: Path) -> None:
    """In Triton's interpreter, which runs every kernel of the layer: prompts, with and without states, and decode."""
    program = Path(__file__).with_name("vllm_kda_interpreted.py").read_text()
    interpreted = {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    got = python(program, SUPPORT, model, home=tmp_path, extra=interpreted)
    drafted = ["speculative"] * 2 * DRAFTING
    first = ["prefill"] * DRAFTING  # one token of a prompt, which is told from one that is decoded
    kinds = ["decode", "decode", "prefill", "prefill", "mixed", *drafted, *first, "gated-norm"]
    assert [row["kind"] for row in got] == kinds
    for row in got:
        assert row["wrong"] is None, row
        if row["kind"] == "gated-norm":
            assert "out" in row["with another out"], "a wrong output is noticed"
        else:
            assert row["compared"] >= 3
            assert "state" in row["with another state"], "a wrong state is noticed"

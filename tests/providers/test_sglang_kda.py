"""SGLang's layer of Kimi Delta Attention, with the SGLang that is installed: a build, coverage, launches, numbers."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
import sglang_running
from helpers import WITH_SUPPORT, gdn_aot, python

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.autotune_keys import key_names
from gdn_aot.providers.sglang.relaxations import LINES, RELAXATIONS
from gdn_aot.providers.sglang.steps import SMALL_GRID

FOUND = importlib.util.find_spec("sglang") is not None
VERSION = importlib.metadata.version("sglang") if FOUND else ""

pytestmark = pytest.mark.skipif(
    VERSION not in {"0.5.17", "0.5.23"}, reason="neither release is installed here; make sglang runs this where one is"
)

MODEL = "kimi-linear-48b-a3b"
TP = 8
TUNED = {
    "kda_gate_chunk_cumsum_vector_kernel",
    "chunk_kda_fwd_kernel_intra_token_parallel",
    "chunk_kda_fwd_kernel_inter_solve_fused",
    "chunk_gla_fwd_kernel_o",
}
PROMPTS = TUNED | {
    "_causal_conv1d_fwd_kernel",
    "l2norm_fwd_kernel",
    "_recompute_w_u_fwd_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "layer_norm_gated_fwd_kernel",
}
TOKENS = {
    "_causal_conv1d_update_kernel",
    "fused_recurrent_kda_packed_decode_kernel",
    "fused_sigmoid_gating_delta_rule_update_kernel",
}
GRAPHS = {"_kda_track_conv_window_kernel", "_kda_track_ssm_kernel"} if VERSION == "0.5.23" else set()
"""Of prompts in breakable CUDA graphs alone."""
LAYERS = {"bailing-v3": "ling-3.0-tiny", "glm5-next": "glm-5.3-flash", "kimi-k3": "kimi-k3"}
BOUNDED = LAYERS if VERSION == "0.5.23" else {}
"""Layers with a bounded gate that are run in this release -> a model with it."""

_START = (
    WITH_SUPPORT
    + """
import json, logging, sys
logging.disable(logging.WARNING)
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target(sys.argv[1]))
from gdn_aot.catalogue.models import all_models, find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.sglang import workloads as provider
from gdn_aot.providers.sglang import kda as sglang_kda, layer as sglang_layer, versions
from gdn_aot.providers.sglang.steps import Deployment, Group, Step
from launch_keys import keys

PLAIN = Deployment(state="float32", drafts=0)
kimi = find_model("kimi-linear-48b-a3b")

def launched(shape, step):
    return keys(lambda: sglang_layer.apply(shape, step, sglang_layer.inputs(shape, step, EMPTY)))

def names(found):
    return sorted({kernel.rpartition(":")[2] for kernel, _ in found})
"""
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def built(home: Path) -> Artifact:
    gdn_aot("build", "--provider", "sglang", "--arch", "sm_90", "--model", MODEL, "--tp", TP, "-o", home, home=home)
    (path,) = home.glob("*-sm_90.tar.zst")
    return open_artifact(path)


def test_kernels_of_a_build(built: Artifact) -> None:
    manifest = built.manifest
    kernels = {kernel.qualname: kernel for kernel in manifest.kernels}
    assert kernels.keys() >= PROMPTS | TOKENS | GRAPHS
    assert {name for name, kernel in kernels.items() if kernel.choices} == TUNED
    assert manifest.not_covered == ()
    fused = {choice.key[4:6] for choice in kernels["chunk_kda_fwd_kernel_inter_solve_fused"].choices}
    assert fused == {(True, True), (False, False)}, "few blocks, and many"


def test_the_names_of_keys_are_those_of_the_source(tmp_path: Path) -> None:
    code = """
from triton.runtime.autotuner import Autotuner
found = {}
for name, module in list(sys.modules.items()):
    for value in list(vars(module).values()) if name.startswith("sglang.kernels.ops.attention.fla.") else ():
        while value is not None and not isinstance(value, Autotuner):
            value = vars(value).get("fn") if hasattr(value, "__dict__") else None
        if value is not None:
            kernel = value.base_fn
            found[f"{kernel.__module__}:{kernel.__name__}"] = value.keys
print(json.dumps(found))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert {kernel.partition(":")[2] for kernel in got} >= TUNED
    for kernel, names in got.items():
        if kernel.partition(":")[2] in TUNED:
            assert key_names(kernel, len(names)) == tuple(names)


def test_the_number_of_cache_lines_is_relaxed(built: Artifact) -> None:
    kernels = {kernel.qualname: kernel for kernel in built.manifest.kernels}
    for relaxation in (one for one in RELAXATIONS if one.argument == "num_cache_lines"):
        kernel = kernels[relaxation.kernel.partition(":")[2]]
        assert kernel.source_sha256 in relaxation.sources, "a text that was not read yet"
        assert ("num_cache_lines", LINES) in {(one.argument, one.value) for one in kernel.relaxations}


def test_random_steps_find_everything(built: Artifact, home: Path) -> None:
    done = gdn_aot("coverage", built.path, "--model", MODEL, "--tp", TP, "--calls", 300, "--json", home=home)
    assert done.json["misses"] == []
    assert done.json["refused"] == []
    assert done.json["hits"] == done.json["launches"] > 1000


@pytest.mark.parametrize("model", BOUNDED.values())
def test_a_bounded_gate_is_built_and_random_steps_find_everything(model: str, home: Path, tmp_path: Path) -> None:
    """Such a layer has kernels of its own for prompts, and one for decode and drafts: none is packed."""
    asked = ("--model", model, "--tp", TP)
    gdn_aot("build", "--provider", "sglang", "--arch", "sm_90", *asked, "-o", tmp_path, home=home)
    (path,) = tmp_path.glob("*-sm_90.tar.zst")
    kernels = {kernel.qualname for kernel in open_artifact(path).manifest.kernels}
    own = {"chunk_kda_fwd_kernel_intra_token_parallel", "fused_recurrent_kda_packed_decode_kernel"}
    assert kernels >= (PROMPTS | TOKENS | GRAPHS | {"chunk_kda_fwd_kernel_intra_sub_chunk"}) - own
    assert kernels.isdisjoint(own)
    done = gdn_aot("coverage", path, *asked, "--calls", 300, "--json", home=home)
    assert (done.json["misses"], done.json["refused"]) == ([], [])
    assert done.json["hits"] == done.json["launches"] > 1000


def test_models_with_layers_of_their_own_are_refused_with_the_reason(home: Path, tmp_path: Path) -> None:
    code = """
print(json.dumps({model.layer: provider.lacks(model.shape(1)) for model in all_models() if model.family == "kda"}))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert [got.pop(layer) for layer in ("kimi-linear", *BOUNDED)] == [""] * (1 + len(BOUNDED))
    for layer, reason in got.items():  # of these, 0.5.17 has that of Kimi-K3
        assert ("its layer is covered in SGLang 0.5.23 alone" in reason) == (layer == "kimi-k3")
        assert ("has no layer for it" in reason) == (layer != "kimi-k3")
    command = ("build", "--provider", "sglang", "--arch", "sm_90", "--model", "aliceai-foundation-80b-a3b")
    done = gdn_aot(*command, "-o", tmp_path, home=home, code=None)
    assert done.code != 0
    assert "this version of SGLang has no layer for it that is known" in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("*.tar.zst"))


def test_launches_do_not_follow_from_content(tmp_path: Path) -> None:
    """Nor from where tensors are made by default; and what warms a process up launches every kernel of the layer."""
    code = """
import torch
result = {"launches": 0, "kernels": [], "other": [], "warm": []}
for tp in (1, 32):
    shape = kimi.shape(tp)
    for kind in ("prefill", "decode", "mixed", "speculative"):
        workload = provider.WORKLOADS[kind]()
        for call in workload.cases(shape, Limits()):
            step = Step.of(call)
            if step.deployment.state != "float32" or step.deployment.drafts not in (0, 3) or step.batch > 40:
                continue
            if step.bucket > 600:
                continue
            without = keys(lambda: workload.run(shape, call))
            real = launched(shape, step)
            with torch.device("meta"):
                elsewhere = launched(shape, step)
            result["launches"] += len(real)
            result["kernels"] = sorted({*result["kernels"], *names(real)})
            if step.tokens == 1:  # without a device PyTorch gives what is like one token another stride
                elsewhere = real
            if not real == without == elsewhere:
                result["other"].append(str(call))
        for call in workload.warm(shape, 300) if tp == 1 else ():
            result["warm"] = sorted({*result["warm"], *names(keys(lambda: workload.run(shape, call)))})
print(json.dumps(result))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert got["other"] == []
    assert got["launches"] > 500
    assert set(got["kernels"]) >= PROMPTS | TOKENS | GRAPHS
    assert set(got["warm"]) >= PROMPTS | TOKENS | GRAPHS


_WARMING = """
import functools, torch
from dataclasses import replace
from gdn_aot import triton_internals
from gdn_aot.providers.sglang.relaxations import LINES
from gdn_aot.providers.sglang.steps import CHUNK, class_of, with_room
at = {}  # what is built for a step, and whether rows that are written lie beside it, or are others' too
build, prepare, accept, clear = sglang_layer._pool, sglang_layer._prepare, sglang_layer._accept, versions.clear

def check(tensors, *parts, first=1):  # slot 0 is nobody's
    rows = torch.cat([part.long() for part in parts]).tolist()
    at["beside"] |= not all(first <= row < tensor.shape[1] for tensor in tensors for row in rows)
    at["shared"] |= len(set(rows)) < len(rows)

def pool(shape, step, filled):
    made = build(shape, step, filled=filled)
    cache, copy = made.mamba_pool.mamba_cache, made.mamba_pool.copy_from
    scratch = [cache.intermediate_ssm, *cache.intermediate_conv_window] if step.kind == "verify" else []
    at.update(beside=False, shared=False, slots=[cache.temporal, *cache.conv], scratch=scratch)
    at["bytes"] = sum(tensor.untyped_storage().nbytes() for tensor in (*at["slots"], *scratch))
    made.mamba_pool.copy_from = lambda source, to: (check(at["slots"], source, to), copy(source, to))
    return made

def prepared(backend, step, batch):
    linear, real = backend.linear_attn_backend, len(step.requests)
    prepare(backend, step, batch)
    if step.graph:  # the kernel that writes these indices is not run here: SGLang has PyTorch's operators for it too
        linear._fused_state_indices_ok = False
        prepare(backend, step, batch)
    found = linear.prefill_graph_metadata.cache_indices if step.bucket else linear.forward_metadata.mamba_cache_indices
    at["own"], copied = found[:real], batch.mamba_track_indices
    check(at["slots"], at["own"], *([] if copied is None else [copied[batch.mamba_track_mask]]))
    at["beside"] |= not set(found[real:].tolist()) <= {-1, 0}  # what a graph is padded with has no state
    at["beside"] |= int(batch.req_pool_indices.max()) >= len(linear.req_to_token_pool.req_index_to_mamba_index_mapping)
    if step.kind == "verify":
        rows = linear.verify_intermediate_state_indices[: step.batch]
        check(at["scratch"], rows, first=0)
        at["beside"] |= len(rows) < step.batch

def accepted(backend, step, batch, most):
    update = backend.update_mamba_state_after_mtp_verify
    @functools.wraps(update)
    def updated(kept, copies, *more, **named):
        check(at["slots"], at["own"], *([] if copies is None else [copies]))
        update(kept, copies, *more, **named)
    backend.update_mamba_state_after_mtp_verify = updated
    accept(backend, step, batch, most)

def relaxed(jit, args, kwargs):  # constants that are the pool's size, as binaries take any
    given = {**dict(zip(jit.arg_names, args)), **kwargs}
    return exact(jit, (), given | dict.fromkeys(given.keys() & {"num_cache_lines", "NUM_STATE_SLOTS"}, LINES))

exact, triton_internals.Launch = triton_internals.Launch, relaxed
sglang_layer._pool, sglang_layer._prepare, sglang_layer._accept = pool, prepared, accepted
versions.clear = lambda states, slots: (check(at["slots"], slots), clear(states, slots))

def like(step):
    return replace(step, slots=class_of(step.slots + 1), scratch=class_of(step.scratch + 1))

def judged(shape):
    result = {"other": [], "wrong": [], "traced": 0, "bytes": 0, "batches": {}, "chunks": 0, "left": []}
    for kind in ("prefill", "decode", "mixed", "speculative"):
        workload = provider.WORKLOADS[kind]()
        steps = [Step.of(call) for call in workload.warm(shape)]
        traced = {}
        for step in workload._laid_out(shape, steps[0].deployment):
            traced[like(step)] = step, keys(lambda: workload.run(shape, step.call(kind)))
            result["traced"] += at["beside"] or at["shared"]
        for step in steps:
            if keys(lambda: workload.run(shape, step.call(kind))) != traced.pop(like(step))[1]:
                result["other"].append(str(step))
            if at["beside"] or at["shared"]:
                result["wrong"].append(str(step))
            result["bytes"] = max(result["bytes"], at["bytes"])
            if step.kind == "extend":
                chunks = sum(-(-request.query // CHUNK) for request in step.requests)
                result["chunks"] = max(result["chunks"], chunks)
        result["batches"][kind] = sorted({len(step.requests) for step in steps})
        row = sglang_layer.row_bytes(shape, steps[0].deployment)
        result["left"] += [with_room(step).rows * row for step, _ in traced.values()]
    return result
"""


@pytest.mark.parametrize(("model", "tp"), [(MODEL, 1), (MODEL, 32), ("qwen3.5-9b", 1), ("qwen3.5-9b", 8)])
def test_what_warms_up_has_room_in_its_pool(model: str, tp: int, tmp_path: Path) -> None:
    """On a GPU it runs: what the layer says to read and write lies in the pool that is built, and nothing is written
    twice. That is not so of all steps that are traced, but the launches are the same.
    """
    code = "print(json.dumps(judged(find_model(sys.argv[2]).shape(int(sys.argv[3])))))"
    got = python(_START + _WARMING + code, "sm_90", model, tp, home=tmp_path)
    assert (got["wrong"], got["other"]) == ([], [])
    assert got["traced"] > 50, "steps that would be wrong are told"
    assert got["bytes"] <= 1 << 30 < min(got["left"])
    assert {1, 34, 130} <= {*got["batches"]["prefill"]}, "a chunk of each, of each number that a kernel tells apart"
    assert {1, 3, 16} <= {*got["batches"]["decode"]}
    assert {2, 4, 17} == {*got["batches"]["mixed"]}
    assert {1, 3, 16} <= {*got["batches"]["speculative"]}
    heads = find_model(model).shape(tp).heads
    assert model != MODEL or got["chunks"] * heads > SMALL_GRID, "more blocks than one kernel makes"


def test_what_warms_up_is_served(built: Artifact, tmp_path: Path) -> None:
    got = sglang_running.warm(built.path, tmp_path, MODEL, TP)
    assert got == {"compiled": [], "benchmarked": 0, "misses": []}


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "sm_120"])
def test_the_layer_runs_for_other_targets(target: str, tmp_path: Path) -> None:
    code = """
shape, found = kimi.shape(1), []
steps = ((1, "extend", 70, 0), (9, "extend", 70, 0), (3, "decode", 1, 0), (3, "verify", 4, 3))
for count, kind, query, drafts in steps:
    deployment = Deployment(state="float32", drafts=drafts)
    found += launched(shape, Step(kind=kind, groups=(Group(count, 64, query),), deployment=deployment))
print(json.dumps(names(found)))
"""
    assert set(python(_START + code, target, home=tmp_path)) >= PROMPTS | TOKENS


def test_decode_takes_one_binary_whatever_the_batch(tmp_path: Path) -> None:
    """Though SGLang has a CUDA kernel for 8 requests or more: where it takes Triton, the key is that of any batch."""
    code = """
shape, found, asked = kimi.shape(1), {}, []
covered = versions.packed_decode.covered
def decode(count, state):
    step = Step(kind="decode", groups=(Group(count, 64, 1),), deployment=Deployment(state=state, drafts=0))
    return [key for name, key in launched(shape, step) if "packed_decode" in name]
same = {state: decode(3, state) == decode(8, state) == decode(300, state) for state in ("float32", "bfloat16")}
def asks(*args):
    asked.append(covered(*args))
    return False
versions.packed_decode.covered = asks
sglang_kda.forward = lambda layer, hidden, batch: layer(hidden, batch.positions, batch, None)
for count, state in ((7, "float32"), (8, "float32"), (8, "bfloat16")):
    decode(count, state)
print(json.dumps({"same": same, "cuda": asked, "eps": sglang_kda.make_layer(shape).o_norm.eps == shape.norm_eps}))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert got == {"same": {"float32": True, "bfloat16": True}, "cuda": [False, True, False], "eps": True}


@pytest.mark.skipif(VERSION != "0.5.23", reason="the layer is in no CUDA graph of prompts before")
def test_every_size_of_a_graph_of_prompts_has_the_launches_of_a_case(tmp_path: Path) -> None:
    """Where its tables lie in memory, and so which are aligned, follows from the size."""
    code = """
from gdn_aot.providers.sglang import steps
import random
def prompt(shape, bucket, radix):
    query = (Group(1, 0, bucket, tracked=radix and bucket >= 64),)
    step = Step(kind="extend", groups=query, deployment=PLAIN, bucket=bucket, radix=radix, merged=True)
    return {f"{name} {key}" for name, key in launched(shape, step)}
missing, seen = [], 0
for tp in (2, 32):
    shape = kimi.shape(tp)
    for radix in (False, True):
        known = set().union(*(prompt(shape, bucket, radix) for bucket in steps.buckets(shape.heads)))
        for bucket in (*range(2, 44), 60, 127, 129, 1000, 1001, 4096, 4100):
            found = prompt(shape, bucket, radix)
            seen += len(found)
            missing += [(tp, bucket, key) for key in found - known]
print(json.dumps({"missing": missing, "seen": seen}))
"""
    got = python(_START + code, "sm_90", home=tmp_path)
    assert got["missing"] == []
    assert got["seen"] > 1000


@pytest.mark.parametrize("slots", [21, 4999])
def test_a_process_is_served_whatever_the_size_of_the_pool(built: Artifact, tmp_path: Path, slots: int) -> None:
    got = sglang_running.serve(built.path, tmp_path, slots, MODEL, merged=True)
    assert got == {"compiled": [], "benchmarked": 0, "misses": []}


def test_the_layer_gives_what_the_float64_form_says(tmp_path: Path) -> None:
    """In Triton's interpreter: prompts, chunks, tracked copies, decode, padded graphs, refused drafts, and as
    of many blocks; with projections multiplied apart and at once, and in a graph of prompts where a version has them.
    With a bounded gate too.
    """
    got = sglang_running.interpret("kda", tmp_path)
    assert {row["kind"] for row in got} == {"prefill", "decode", "speculative"}
    assert {row["layer"] for row in got} == {"kimi-linear", *BOUNDED}
    sglang_running.check(got)

"""The provider with the vLLM that is installed: pages of its cache, a build, coverage, relaxations, its own warm-up.

vLLM has an environment of its own, since it does not go with the versions that the other tests want.
"""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
from helpers import ROOT, WITH_SUPPORT, expect_error, gdn_aot, python
from served import served

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import get_target
from gdn_aot.choosing.transfer import Transfer
from gdn_aot.providers import builds
from gdn_aot.providers.vllm.relaxations import LINES, RELAXATIONS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here; make vllm runs this where it is"
)

CHUNKED = {
    "chunk_local_cumsum_scalar_kernel",
    "chunk_scaled_dot_kkt_fwd_kernel",
    "merge_16x16_to_64x64_inverse_kernel",
    "recompute_w_u_fwd_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_fwd_kernel_o",
}
ALWAYS = CHUNKED | {"_causal_conv1d_fwd_kernel", "_causal_conv1d_update_kernel", "layer_norm_fwd_kernel"}
FUSED = {"fused_recurrent_gated_delta_rule_packed_decode_kernel", "fused_sigmoid_gating_delta_rule_update_kernel"}
GATED = {"fused_gdn_gating_kernel", "l2norm_fwd_kernel2"}


def version() -> str:
    return importlib.metadata.version("vllm")


def number() -> tuple[int, ...]:
    return tuple(map(int, version().split(".")[:2]))


def qwen_kernels() -> set[str]:
    """Kernels that the layer of Qwen3.5 launches."""
    if number() < (0, 18):
        return ALWAYS | GATED | {"fused_recurrent_gated_delta_rule_fwd_kernel"}
    return ALWAYS | FUSED | (GATED if number() < (0, 20) else {"_fused_post_conv_kernel"})


OLMO = ALWAYS | {
    "fused_olmo_hybrid_gdn_gating_kernel",
    "l2norm_fwd_kernel2",
    "fused_recurrent_gated_delta_rule_fwd_kernel",
}
BLOCKS_UP_TO = (0, 19)
"""Where block sizes of ``chunk_fwd_kernel_o`` follow the number of tokens; later they are 64."""
RELAXED_UP_TO = (0, 26)

_START = (
    WITH_SUPPORT
    + """
import json, logging, sys
logging.disable(logging.INFO)
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
from gdn_aot.catalogue.models import all_models, find_model
from gdn_aot.providers.vllm import workloads as provider
from gdn_aot.providers.vllm import cache as vllm_cache, layer as vllm_layer, steps as vllm_steps
"""
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def qwen(home: Path) -> Artifact:
    gdn_aot("build", "--provider", "vllm", "--arch", "sm_90", "--model", "qwen3.5-9b", "--tp", 8, "-o", home, home=home)
    (path,) = home.glob("*-sm_90.tar.zst")
    return open_artifact(path)


def test_the_version_is_one_of_the_table() -> None:
    assert version() in {known.version for known in PROVIDERS["vllm"].versions}


def test_what_is_built_is_known_without_the_engine(tmp_path: Path) -> None:
    """As advice of a serving process says it of the release here, on sm_90: of every model of the catalogue."""
    code = """
print(json.dumps({model.name: provider.lacks(model.shape(1)) for model in all_models()}))
"""
    for name, lacking in python(_START + code, home=tmp_path).items():
        assert builds("vllm", find_model(name), version(), (9, 0)) == (not lacking), (name, lacking)


def test_pages_are_those_of_engines_that_were_run(tmp_path: Path) -> None:
    """557056 bf16 numbers: what an engine on an H100 had with these heads, two key-value heads of 256, bf16 states."""
    code = """
shape = find_model("qwen3-next-80b-a3b").shape(1)
sizes = {str(d): vllm_cache.page_size(shape, d) for d in vllm_cache.deployments(shape)}
first = vllm_cache.deployments(shape)[0]
views = vllm_layer.states(shape, vllm_steps.Step(groups=(vllm_steps.Group(2, 0, 1),), deployment=first),
    {"cache": __import__("torch").zeros(3, sizes[str(first)], dtype=__import__("torch").int8)})
print(json.dumps({"sizes": list(sizes.values()), "first": [first.state, first.drafts],
    "strides": [view.stride(0) for view in views], "shapes": [list(view.shape) for view in views]}))
"""
    got = python(_START + code, home=tmp_path)
    assert got["first"] == ["auto", 0]
    assert got["strides"] == [557056, 557056]
    assert got["shapes"] == [[3, 3, 8192], [3, 32, 128, 128]]
    assert got["sizes"][0] == 2 * 557056


def test_pages_follow_drafts_dtype_and_prefix_caching(tmp_path: Path) -> None:
    """From 0.33 on prefix caching is on by default, and FlashInfer's prefill then has blocks of 64 tokens."""
    code = """
found = {}
for name in ("qwen3.5-9b", "qwen3-next-80b-a3b", "qwen3.5-35b-a3b", "olmo-hybrid-7b"):
    shape = find_model(name).shape(1)
    found[name] = []
    if name.startswith("olmo") and vllm_layer.vllm_versions.layer_class("olmo-hybrid") is None:
        continue
    for one in vllm_cache.deployments(shape):
        row = [one.state, one.drafts, one.aligned, one.fused, vllm_cache.page_size(shape, one)]
        found[name].append(row)
print(json.dumps(found))
"""
    hopper, ampere = (python(_START.replace("sm_90", target) + code, home=tmp_path) for target in ("sm_90", "sm_80"))
    current, fuses = number() >= (0, 33), number() >= (0, 28)
    for rows in hopper.values():
        sizes = {tuple(row[:4]): row[4] for row in rows}
        for (state, drafts, aligned, fused), size in sizes.items():
            assert size >= sizes[(state, 0, aligned, False)], "drafts take more room"
            assert aligned in ((1, 64) if current else (1,))
            assert not fused or (fuses and (drafts or number() < (0, 32)))
    for name, size in (("qwen3.5-9b", 2359296), ("qwen3-next-80b-a3b", 1179648), ("qwen3.5-35b-a3b", 2228224)):
        own = [row[4] for row in hopper[name] if row[1:4] == [0, 64, False] and row[0] == hopper[name][0][0]]
        assert own == ([size] if current else []), "what a start without options has"
    fused = {name for name, rows in hopper.items() if any(row[3] for row in rows)}
    assert fused == ({"qwen3.5-9b", "qwen3.5-35b-a3b"} if fuses else set())
    assert not any(row[2] > 1 for rows in ampere.values() for row in rows), "Triton's prefill has no checkpoints"


def test_every_model_has_a_page_or_a_reason(tmp_path: Path) -> None:
    code = """
import torch
found = {}
for model in all_models():
    for tp in model.tps() if model.family == "gdn" else ():
        shape = model.shape(tp)
        for deployment in vllm_cache.deployments(shape):
            try:
                size = vllm_cache.page_size(shape, deployment)
                shapes = map(torch.Size, vllm_cache.state_shapes(shape, deployment))
                dtypes = vllm_cache.state_dtypes(shape, deployment)
                least = sum(s.numel() * d.itemsize for s, d in zip(shapes, dtypes))
                token = 2 * max(1, model.kv_heads // tp) * model.head_dim * 2
                found[f"{model.name} {tp} {deployment}"] = [size, least, max(16, deployment.aligned) * token]
            except ValueError as error:
                found[f"{model.name} {tp} {deployment}"] = str(error)
print(json.dumps(found))
"""
    got = python(_START + code, home=tmp_path)
    unknown = {name.split()[0] for name, row in got.items() if isinstance(row, str)}
    assert unknown == {"qwen3.8-flash-next"}
    for name, row in got.items():
        if not isinstance(row, str):
            size, least, block = row
            assert size % block == 0, f"{name}: whole blocks of 16 tokens, or of 64"
            assert least <= size < least + block, f"{name}: the least of them"


def test_kernels_and_keys_of_a_build(qwen: Artifact) -> None:
    manifest = qwen.manifest
    assert manifest.identifier == f"vllm{version()}-triton{manifest.triton.version}-sm_90"
    assert {kernel.qualname for kernel in manifest.kernels} == qwen_kernels()
    assert [gap.kernel for gap in manifest.not_covered if gap.kernel != "workload:speculative"] == []
    (out,) = (kernel for kernel in manifest.kernels if kernel.qualname == "chunk_fwd_kernel_o")
    assert {choice.key[3] for choice in out.choices} == ({16, 32, 64} if number() <= BLOCKS_UP_TO else {64})
    (state,) = (
        kernel for kernel in manifest.kernels if kernel.qualname == "chunk_gated_delta_rule_fwd_kernel_h_blockdim64"
    )
    assert {"torch.bfloat16", "torch.float32"} <= {str(part) for choice in state.choices for part in choice.key}


def test_kernels_that_the_record_of_0_24_has_are_its_own(qwen: Artifact) -> None:
    """Whatever the release is called, and also where they have moved to another module."""
    state, scores = "chunk_gated_delta_rule_fwd_kernel_h_blockdim64", "chunk_scaled_dot_kkt_fwd_kernel"
    others = {"0.24.0": set(), "0.25.1": {state}, "0.33.0": CHUNKED}
    others |= {one: {state, scores} for one in ("0.17.1", "0.18.1", "0.26.0", "0.27.1")}
    if version() not in others:
        pytest.skip("nobody compared this release")
    transfer, own = Transfer(ROOT / "artifacts/tuning", get_target("sm_90"), "vllm", version()), set()
    for kernel in qwen.manifest.kernels:
        found = [transfer.find(kernel.name, choice.key, kernel.digest) for choice in kernel.choices]
        own |= {kernel.qualname for one in found if one is not None and one.own}
    assert own == CHUNKED - others[version()]


def test_launches_do_not_follow_from_content(tmp_path: Path) -> None:
    """What stands in for copies of content gives every launch the key that it has with them.

    Nor do they follow from where tensors are made by default, which for checks and tuning is on the device.
    """
    code = """
import torch
from gdn_aot.catalogue.providers import Limits
from gdn_aot.providers.contentless import Contentless
from gdn_aot.providers.draw import EMPTY
from launch_keys import keys

result = {"launches": 0, "kernels": [], "other": [], "warm": []}
for name, tp in (("qwen3-next-80b-a3b", 1), ("qwen3.5-9b", 2)):
    shape = find_model(name).shape(tp)
    for kind in ("prefill", "decode", "mixed", "speculative"):
        workload = provider.WORKLOADS[kind]()
        for call in workload.cases(shape, Limits()):
            without = keys(lambda: workload.run(shape, call))
            step = vllm_steps.Step.of(call)
            inputs = workload.inputs(shape, call, EMPTY)
            real = keys(lambda: vllm_layer.apply(shape, step, inputs))
            with torch.device("meta"):
                elsewhere = keys(lambda: vllm_layer.apply(shape, step, inputs))
            result["launches"] += len(real)
            result["kernels"] = sorted({*result["kernels"], *(kernel for kernel, _ in real)})
            if not real == without == elsewhere:
                result["other"].append(str(call))
        for call in workload.warm(shape, 300):
            launched = keys(lambda: workload.run(shape, call))
            result["warm"] = sorted({*result["warm"], *(kernel for kernel, _ in launched)})
print(json.dumps(result))
"""
    got = python(_START + code, home=tmp_path)
    assert got["other"] == []
    assert got["launches"] > 1000
    assert got["warm"] == got["kernels"]
    assert len(got["kernels"]) > 5


@pytest.mark.parametrize("target", ["sm_75", "sm_100", "sm_120"])
def test_layers_run_for_targets_that_other_code_of_vllm_is_for(target: str, tmp_path: Path) -> None:
    """On Blackwell vLLM asks its platform more than on Hopper before it takes its kernels of prefill."""
    code = """
from gdn_aot.catalogue.providers import Limits
shape = find_model("qwen3.5-9b").shape(1, "fp16" if sys.argv[1] == "sm_75" else "bf16")
from gdn_aot.tracing.recorder import TraceRecorder
from gdn_aot.tracing.records import Trace
trace = Trace(provider_version="", triton_version="", ptxas_version="")
recorder = TraceRecorder(trace)
for name, make in provider.WORKLOADS.items():
    workload = make()
    for call in workload.cases(shape, Limits(max_tokens=4096, max_batch=4)):
        recorder.record(lambda: workload.run(shape, call), (0, 0))
print(json.dumps(sorted({kernel.qualname for kernel in trace.kernels})))
"""
    got = python(_START.replace('"sm_90"', "sys.argv[1]") + code, target, home=tmp_path)
    assert set(got) == qwen_kernels()


def test_random_steps_find_everything(qwen: Artifact, home: Path) -> None:
    done = gdn_aot("coverage", qwen.path, "--model", "qwen3.5-9b", "--tp", 8, "--calls", 300, "--json", home=home)
    assert done.json["misses"] == []
    assert done.json["hits"] == done.json["launches"] > 1000


def test_the_number_of_cache_lines_is_relaxed_where_it_is_a_constant(qwen: Artifact) -> None:
    kernels = {kernel.qualname: kernel for kernel in qwen.manifest.kernels}
    old = number() <= RELAXED_UP_TO
    for declared in RELAXATIONS:
        kernel = kernels[declared.kernel.partition(":")[2]]
        assert (kernel.source_sha256 in declared.sources) == old, "a text that was not read yet"
        assert (("num_cache_lines", LINES) in {(one.argument, one.value) for one in kernel.relaxations}) == old
        for binary in kernel.binaries if old else ():
            place = list(binary.specialization.signature).index("num_cache_lines")
            assert dict(binary.specialization.constants)[(place,)] == LINES
    lines = [one for kernel in kernels.values() for one in kernel.relaxations if one.argument == "num_cache_lines"]
    assert len(lines) == (2 if old else 0), "others are found by comparing IR"


_SERVE = """
import torch
logging.disable(logging.INFO)
from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.vllm import workloads as provider
from gdn_aot.providers.vllm import cache as vllm_cache, layer as vllm_layer, steps as vllm_steps
from gdn_aot.providers.draw import EMPTY
shape = find_model("qwen3.5-9b").shape(8)
deployment = vllm_cache.deployments(shape)[0]
"""


@pytest.mark.parametrize("lines", [2, 36310])
def test_a_process_is_served_whatever_the_number_of_cache_lines(qwen: Artifact, tmp_path: Path, lines: int) -> None:
    code = """
for groups in ((vllm_steps.Group(1, 0, 40),), (vllm_steps.Group(1, 50, 1),)):
    step = vllm_steps.Step(groups=groups, deployment=deployment)
    tensors = vllm_layer.inputs(shape, step, EMPTY)
    tensors["cache"] = torch.empty(int(sys.argv[2]), tensors["cache"].shape[1], dtype=torch.int8)
    vllm_layer.apply(shape, step, tensors)
"""
    got = served(_SERVE + code, qwen.path, lines, folder=tmp_path)
    assert got == {"compiled": [], "benchmarked": 0, "misses": []}


@pytest.mark.skipif(
    number() < (0, 18) if importlib.util.find_spec("vllm") else False, reason="it has no warm-up before 0.18"
)
def test_the_warm_up_of_vllm_itself_finds_everything(qwen: Artifact, tmp_path: Path) -> None:
    """It runs the prefill kernels on 64 tokens, to have them tuned: nothing is compiled and nothing benchmarked."""
    code = """
import inspect
layer = vllm_layer.make_layer(shape)
layer.get_state_dtype = lambda: vllm_cache.state_dtypes(shape, deployment)
layer.A_log, layer.dt_bias = torch.zeros(shape.v_heads), torch.zeros(shape.v_heads, dtype=torch.bfloat16)
torch.accelerator.empty_cache = lambda: None
width = 2 * shape.heads * shape.k_dim + shape.v_heads * shape.v_dim
mixed = torch.zeros(64, width, dtype=torch.bfloat16)
two = len(inspect.signature(layer._warmup_prefill_kernels).parameters) == 2
if two:  # from 0.24 on; before, that the attribute is there says that it was done
    layer._prefill_kernels_warmed_up = False
with torch.no_grad():
    layer._warmup_prefill_kernels(mixed, *((0,) if two else ()))
more["launched"] = sorted({name for name, _ in driver.launched})
"""
    got = served(_SERVE + code, qwen.path, folder=tmp_path)
    assert set(got.pop("launched")) >= CHUNKED
    assert got == {"compiled": [], "benchmarked": 0, "misses": []}


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_120"])
def test_convolutions_are_launched_dependently_where_vllm_does(target: str, tmp_path: Path) -> None:
    """From 0.27 on, and from sm_90 on: it is a constant of the kernels."""
    code = """
from gdn_aot.triton_internals import interception
shape, found = find_model("qwen3.5-9b").shape(1), set()
def launched(jit, args, kwargs):
    if "conv1d" in jit.__name__:
        found.add(kwargs.get("launch_pdl", False))
with interception.intercept(lambda *_: None, launched):
    for name in ("prefill", "decode"):
        workload = provider.WORKLOADS[name]()
        for call in workload.warm(shape):
            workload.run(shape, call)
print(json.dumps(sorted(found)))
"""
    got = python(_START.replace('"sm_90"', "sys.argv[1]") + code, target, home=tmp_path)
    assert got == [number() >= (0, 27) and target != "sm_80"]


@pytest.mark.skipif(not importlib.util.find_spec("vllm") or number() < (0, 18), reason="0.17 has no OLMo-Hybrid")
def test_olmo_hybrid(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "olmo"
    gdn_aot(
        "build", "--provider", "vllm", "--arch", "sm_90", "--model", "olmo-hybrid-7b", "--tp", 2, "-o", out, home=home
    )
    (path,) = out.glob("*.tar.zst")
    assert {kernel.qualname for kernel in open_artifact(path).manifest.kernels} == OLMO
    done = gdn_aot("coverage", path, "--model", "olmo-hybrid-7b", "--tp", 2, "--calls", 200, "--json", home=home)
    assert (done.json["misses"], done.json["hits"]) == ([], done.json["launches"])


def test_the_build_has_what_vllm_finds_out_about_the_models_classes(qwen: Artifact) -> None:
    """Of the model and of its drafts, none of it left out."""
    names = [file.name for file in qwen.manifest.placed]
    classes = {name.removesuffix(".json").rpartition("-")[2] for name in names}
    assert names == sorted(names)
    assert {"Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"} <= classes
    assert {"Qwen3_5MTP", "Qwen3_5MoeMTP"} <= classes
    assert not [item for item in qwen.manifest.not_covered if item.kernel.startswith("inspection:")]
    for file in qwen.manifest.placed:
        paths = {source.path for source in file.sources}
        assert "vllm/model_executor/models/registry.py" in paths
        assert paths & {"vllm/model_executor/models/qwen3_5.py", "vllm/model_executor/models/qwen3_5_mtp.py"}
        for path in paths:
            assert (Path(importlib.util.find_spec("vllm").origin).parent.parent / path).is_file()  # type: ignore[union-attr, arg-type]


def test_seeding_writes_it_for_servers_without_the_plugin(qwen: Artifact, home: Path, tmp_path: Path) -> None:
    """Once; and a cache that is a file is an error with its exit code."""
    command = ("seed", qwen.path, "--into", tmp_path / "triton", "--vllm-cache", tmp_path / "cache")
    names = [file.name for file in qwen.manifest.placed]
    for what in ("written", "kept"):
        document = gdn_aot(*command, "--json", home=home).json
        assert document["placed"] == dict.fromkeys(names, what)
    for file in qwen.manifest.placed:
        assert (tmp_path / "cache/modelinfos" / file.name).read_bytes() == qwen.read_blob(file.blob)
    assert f"{len(names)} files of vLLM; 0 written, {len(names)} kept" in gdn_aot(*command, home=home).out
    (tmp_path / "file").touch()
    expect_error(gdn_aot(*command[:-1], tmp_path / "file", "--json", home=home, code=9), 9, "not-writable")

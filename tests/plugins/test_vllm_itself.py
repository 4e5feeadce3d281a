"""The entry point in vLLM's own processes: its plugin loader, its model inspection, its worker class.

Needs an interpreter that has vLLM, named by ``GDN_AOT_TEST_VLLM``; vLLM need not be able to run a model there.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, run
from plugins.conftest import entry_points

EXAMPLE = ROOT / "examples/vllm/serve.sh"
PYTHON = os.environ.get("GDN_AOT_TEST_VLLM", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GDN_AOT_TEST_VLLM names no Python that has vLLM")


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if "gdn-aot" in line]


def test_vllm_calls_it_before_any_kernel_is_imported(vllm: Any) -> None:
    (installed, kernels), err = vllm("load_general_plugins(); print(json.dumps(loaded()))")
    assert installed
    assert kernels == []
    (line,) = ours(err)
    assert re.search(r"WARNING .* \[.*loader\.py:\d+\] gdn-aot: no artifact in the store", line), line


def test_vllm_plugins_without_us_leaves_us_out(vllm: Any) -> None:
    (installed, _), err = vllm("load_general_plugins(); print(json.dumps(loaded()))", VLLM_PLUGINS="another")
    assert not installed
    assert ours(err) == []


def test_the_process_that_inspects_models_goes_on(vllm: Any) -> None:
    """vLLM pickles a function into a process of its own, which answers through a file."""
    answer, _ = vllm("""
from vllm.model_executor.models.registry import _run_in_subprocess
def inspect():
    import sys
    return ["gdn_aot.serving.loader" in sys.modules]
print(json.dumps(_run_in_subprocess(inspect)))
""")
    assert answer == [True]


@pytest.mark.parametrize("content", [None, b"no artifact"])
def test_a_broken_artifact_is_one_warning_and_vllm_is_as_it_was(
    vllm: Any, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "artifact.tar.zst"
    if content is not None:
        path.write_bytes(content)
    code = """
load_general_plugins()
from vllm.v1.worker.gpu_worker import Worker
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction
owners = {function.__module__ for function in (
    Worker.compile_or_warm_up_model, Autotuner.run, JITFunction.run, JITFunction.create_binder)}
print(json.dumps([sorted(owners), [type(finder).__module__ for finder in sys.meta_path]]))
"""
    (owners, finders), err = vllm(code, GDN_AOT_ARTIFACT=str(path))
    assert not [name for name in (*owners, *finders) if name.startswith("gdn_aot")]
    assert len(ours(err)) == 1, ours(err)


def test_the_last_step_of_a_start_is_the_one_that_is_watched(vllm: Any) -> None:
    """What is read of vLLM's worker is there, and the method keeps its signature and its text."""
    code = """
import inspect
from vllm.v1.worker import gpu_worker
from vllm.config import ModelConfig, ParallelConfig
before = gpu_worker.Worker.compile_or_warm_up_model
from gdn_aot.plugins import vllm as plugin, vllm_memory
assert plugin.WORKER == "vllm.v1.worker.gpu_worker"
vllm_memory.watch(plugin.WORKER)
after = gpu_worker.Worker.compile_or_warm_up_model
source = inspect.getsource(gpu_worker.Worker)
print(json.dumps([
    after is not before and after.__wrapped__ is before,
    str(inspect.signature(before)) == str(inspect.signature(after)),
    "model_config = vllm_config.model_config" in inspect.getsource(gpu_worker.Worker.__mro__[1]),
    "hf_text_config" in inspect.getsource(ModelConfig),
    "tensor_parallel_size" in inspect.getsource(ParallelConfig),
    source.index("def determine_available_memory") < source.index("def initialize_from_config"),
    source.index("def initialize_from_config") < source.index("def compile_or_warm_up_model"),
]))
"""
    assert vllm(code)[0] == [True] * 7


def test_what_triton_compiles_is_counted_if_that_is_asked_for(vllm: Any) -> None:
    """Without an artifact too: the worker's last step of a start is the one that is watched."""
    code = """
import sys
load_general_plugins()
from vllm.v1.worker.gpu_worker import Worker
import triton
print(json.dumps([
    getattr(Worker.compile_or_warm_up_model, "__wrapped__", None) is not None,
    getattr(triton.knobs.compilation.listener, "__module__", ""),
]))
"""
    assert vllm(code)[0][0] is False
    assert vllm(code, GDN_AOT_START_REPORT="1")[0] == [True, "gdn_aot.triton_internals.timing"]


def test_the_engine_core_answers_requests_first_if_that_is_asked_for(vllm: Any) -> None:
    """What is replaced of vLLM's engine core is there, and its ``__init__`` calls both, the second one last."""
    code = """
import inspect
load_general_plugins()
from vllm.v1.engine import core
made = inspect.getsource(core.EngineCore.__init__)
print(json.dumps([
    hasattr(core.freeze_gc_heap, "__wrapped__"),
    hasattr(core.EngineCore._initialize_kv_caches, "__wrapped__"),
    made.index("load_general_plugins()") < made.index("self._initialize_kv_caches(") < made.index("self.step_fn =")
    < made.index("    freeze_gc_heap()"),
]))
"""
    assert vllm(code)[0] == [False, False, True]
    assert vllm(code, GDN_AOT_FIRST_REQUEST="1")[0] == [True] * 3


def test_the_example_serves(tmp_path: Path) -> None:
    """All but the engine: an artifact is published and fetched, vLLM's plugins say what it has, then it starts."""
    home, known, tools = tmp_path / "home", tmp_path / "known", tmp_path / "tools"
    for folder in (known, tools):
        folder.mkdir()
    paths = os.pathsep.join([str(ROOT), str(entry_points(tmp_path))])
    scripts = {
        "python": f'exec {PYTHON} "$@"',
        "gdn-aot": f'exec {PYTHON} -m gdn_aot "$@"',
        "vllm": 'echo "started with $*"; exit 3',
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    extra = {"PYTHONPATH": paths, "PATH": f"{tools}:{os.environ['PATH']}", "GDN_AOT_KEYS": str(known), "ARCH": "sm_90"}
    extra |= {"VLLM_TARGET_DEVICE": "cuda", "VLLM_NO_USAGE_STATS": "1", "VLLM_CACHE_ROOT": str(tmp_path / "vllm")}
    for line in (
        "gdn-aot build --provider vllm --arch sm_90 --model qwen3.5-9b --workload decode -j 2 -o dist",
        "gdn-aot publish dist/* --repo ./registry --create",
        "gdn-aot fetch --repo ./registry --arch sm_90 --provider vllm --allow-unsigned",  # signing takes more packages
    ):
        done = run(["/bin/sh", "-c", line], home, extra, tmp_path)
        assert done.code == 0, done.err[-3000:]
    done = run([str(EXAMPLE), "./registry", "some/model", "--enforce-eager"], home, extra, tmp_path)
    assert done.code == 3, done.err[-3000:]
    assert "-sm_90: already installed, " in done.out
    assert re.search(r"gdn-aot: vllm\S+-sm_90: \d+ kernels", done.out + done.err)
    assert "started with serve some/model --enforce-eager" in done.out
    assert (tmp_path / "start.log").read_text() == "started with serve some/model --enforce-eager\n"

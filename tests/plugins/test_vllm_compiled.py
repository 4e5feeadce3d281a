"""What vLLM compiled in one process is loaded by another one with empty caches, which an artifact has brought it.

vLLM's own code compiles and loads, for the CPU: what it does is the same, but for the code that Inductor makes. Needs
an interpreter that has vLLM, named by ``GDN_AOT_TEST_VLLM``.
"""

import os
from pathlib import Path
from typing import Any

import factory
import pytest
from helpers import ROOT, run

from gdn_aot.artifact.cached import FOLDER, SWITCH
from gdn_aot.building.compile_cache import read_cache

PYTHON = os.environ.get("GDN_AOT_TEST_VLLM", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GDN_AOT_TEST_VLLM names no Python that has vLLM")

MODEL = """
import torch
from vllm.compilation.decorators import support_torch_compile
@support_torch_compile
class Model(torch.nn.Module):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8, 8))
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.weight) + 1
"""
CALL = """
load_general_plugins()
import torch
from vllm.compilation.counter import compilation_counter as counter
from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass
from vllm.config import CompilationConfig, CompilationMode, DeviceConfig, PassConfig, VllmConfig
from vllm.config import set_current_vllm_config
from vllm.forward_context import set_forward_context
FixFunctionalizationPass.__call__ = lambda self, graph: None  # which names operators that only a card has
passes = PassConfig(fuse_rope_kvcache_cat_mla=False)
how = CompilationConfig(
    mode=CompilationMode.VLLM_COMPILE, cudagraph_mode="NONE", splitting_ops=[], compile_sizes=[], pass_config=passes
)
config = VllmConfig(device_config=DeviceConfig(device="cpu"), compilation_config=how)
from model import Model
with set_current_vllm_config(config), torch.no_grad(), set_forward_context({}, config):
    model = Model(vllm_config=config)
    result = model(torch.ones(4, 8)).sum().item()
print(json.dumps([result, model.was_aot_compile_fn_loaded_from_disk, counter.num_compiled_artifacts_saved]))
"""
"""What a worker does: it calls its plugins, then its model."""
FIRST = """
later = hasattr(vllm.logger, "configure_logging")
if later:
    import logging
    logging.getLogger("vllm").handlers.clear()
load_general_plugins()
if later:
    vllm.logger.configure_logging(LoggingConfig())
print(json.dumps(0))
"""
"""What the first process of a server does: from 0.31.0 on it calls its plugins before it sets up its logging."""
VERSIONS = """
import triton, vllm
from vllm.envs import compile_factors
print(triton.__version__, vllm.__version__, "VLLM_CONFIG_ROOT" in compile_factors())
"""


def files(root: Path) -> dict[str, bytes]:
    place = root / FOLDER
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def call(vllm: Any, tmp_path: Path) -> Any:
    """Call the model in a process of vLLM with a cache of this name; return (what it printed, stderr)."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL)

    def call(cache: str, code: str = CALL, **extra: str) -> Any:
        root = str(tmp_path / cache)
        return vllm(code, folder, VLLM_CACHE_ROOT=root, VLLM_USE_AOT_COMPILE="1", **extra)

    return call


def test_another_process_compiles_nothing(call: Any, tmp_path: Path) -> None:
    assert call("first", GDN_AOT="0")[0] == [4 * 8 * 9.0, False, 1]
    read = read_cache(tmp_path / "first" / FOLDER)
    assert read.record.torch
    packed = {file.path: b"".join(map(read.pieces.__getitem__, file.blobs)) for file in read.record.files}
    found = run([PYTHON, "-c", VERSIONS], tmp_path / "home", {"PYTHONPATH": str(ROOT)}, tmp_path)
    triton, version, counts = found.out.split()[-3:]
    assert ("VLLM_CONFIG_ROOT" in dict(read.record.environment)) is (counts == "True")
    known = {name: getattr(read.record, name) for name in ("torch", "python", "card", "environment")}
    path = str(factory.write_cached(tmp_path, version, packed, triton=triton, **known))
    (tmp_path / "first").rename(tmp_path / "gone")

    _, err = call("unasked", FIRST, GDN_AOT_ARTIFACT=path)
    assert f"{SWITCH}=1 if you trust who built it" in err
    assert files(tmp_path / "unasked") == {}

    got, err = call("second", GDN_AOT_ARTIFACT=path, **{SWITCH: "1"})
    assert got == [4 * 8 * 9.0, True, 0]
    assert f"placed vLLM's compile cache of {Path(path).name[8:-8]}" in err
    there = files(tmp_path / "second")
    assert {name: there.get(name) for name in packed} == packed

    moved = {"GDN_AOT_ARTIFACT": path, SWITCH: "1", "XDG_CONFIG_HOME": str(tmp_path / "x")}
    if counts == "True":
        _, err = call("third", FIRST, **moved)
        assert "is not put in place: it was made with VLLM_CONFIG_ROOT=" in err
        assert files(tmp_path / "third") == {}
    else:
        assert call("third", **moved)[0] == [4 * 8 * 9.0, True, 0]

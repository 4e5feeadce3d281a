"""vLLM inspects no model in a process of its own where an artifact has what it would find out.

Needs an interpreter that has vLLM, named by ``GDN_AOT_TEST_VLLM``; vLLM need not be able to run a model there.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import factory
import pytest
from helpers import ROOT, run

from gdn_aot.launches import Placement, SourceFile

PYTHON = os.environ.get("GDN_AOT_TEST_VLLM", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GDN_AOT_TEST_VLLM names no Python that has vLLM")

MAKE = """
import importlib.metadata, json, logging
logging.disable(logging.INFO)
import msgspec
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_120"))
from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.vllm import workloads
shapes = [find_model(name).shape(1) for name in ("qwen3-next-80b-a3b", "qwen3.5-9b")]
placed, failed = workloads.place(shapes)
import triton
print(json.dumps([importlib.metadata.version("vllm"), triton.__version__, msgspec.to_builtins(placed), failed]))
"""
START = """
import subprocess
from gdn_aot.plugins import vllm_start
commands, run = [], subprocess.run
def recorded(command, *rest, **named):
    commands.append([str(word) for word in command])
    return run(command, *rest, **named)
subprocess.run = recorded
from transformers import Qwen3NextConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models.registry import ModelRegistry
Qwen3NextConfig(architectures=["Qwen3NextForCausalLM"], num_hidden_layers=4).save_pretrained("model")
config = EngineArgs(model="model", skip_tokenizer_init=True, dtype="bfloat16").create_model_config()
def started():
    return sum("vllm.model_executor.models.registry" in command for command in commands)
"""
"""What an engine does first: its arguments, then the configuration of its model. Commands that it starts are noted."""
ASKED = ("Qwen3NextMTP", "Qwen3_5ForConditionalGeneration", "Qwen3_5MTP")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return an artifact for the installed vLLM, and what it has by file name."""
    folder = tmp_path_factory.mktemp("made")
    done = run([PYTHON, "-c", MAKE], folder / "home", {"PYTHONPATH": str(ROOT)}, folder)
    assert done.code == 0, done.err[-3000:]
    version, triton, rows, failed = json.loads(done.out.splitlines()[-1])
    assert failed == []
    placed = [
        (Placement(row["kind"], row["name"], tuple(SourceFile(**source) for source in row["sources"])), text)
        for row, text in rows
    ]
    path = factory.write_placed(folder, version, placed, triton=triton)
    return path, {placement.name: text for placement, text in placed}


def test_no_process_is_started_for_the_model_nor_for_its_drafts(
    vllm: Any, made: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """vLLM's configuration of the model has what its own inspection says; see the next test."""
    path, texts = made
    code = f"""
for name in {ASKED}:
    ModelRegistry.models[name].inspect_model_cls()
print(json.dumps([config.architecture, config.is_hybrid, started()]))
"""
    got, err = vllm(START + code, GDN_AOT_ARTIFACT=str(path))
    assert got == ["Qwen3NextForCausalLM", True, 0]
    assert f"placed inspections of {len(texts)} model classes in" in err
    folder = tmp_path / "cache/modelinfos"
    assert {file.name: file.read_text() for file in folder.iterdir()} == texts
    got, err = vllm(START + code, GDN_AOT_ARTIFACT=str(path))
    assert got[2] == 0
    assert "model classes" not in err


def test_it_is_what_vllm_makes_itself(vllm: Any, made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Without an artifact vLLM starts a process, on this machine's own platform, and writes the same file."""
    got, _ = vllm(START + "print(json.dumps([config.architecture, started()]))", GDN_AOT="0")
    assert got == ["Qwen3NextForCausalLM", 1]
    folder = tmp_path / "cache/modelinfos"
    (file,) = folder.iterdir()
    assert file.read_text() == made[1][file.name]


def test_a_changed_model_is_inspected_by_vllm(vllm: Any, made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Nothing is put in place for it, and vLLM writes its own file, with another digest; other classes are served."""
    found = run([PYTHON, "-c", "import importlib.util as u; print(u.find_spec('vllm').origin)"], tmp_path, {}, tmp_path)
    package = Path(found.out.strip()).parent
    shutil.copytree(package, tmp_path / "changed/vllm", copy_function=os.symlink)
    model = tmp_path / "changed/vllm/model_executor/models/qwen3_next.py"
    text = model.read_text()
    model.unlink()
    model.write_text(text + "# changed\n")
    path, texts = made
    got, _ = vllm(
        START + "print(json.dumps([config.architecture, started()]))", tmp_path / "changed", GDN_AOT_ARTIFACT=str(path)
    )
    assert got == ["Qwen3NextForCausalLM", 1]
    folder = tmp_path / "cache/modelinfos"
    (own,) = (name for name in texts if name.endswith("-Qwen3NextForCausalLM.json"))
    assert json.loads((folder / own).read_text())["hash"] != json.loads(texts[own])["hash"]
    there = {file.name for file in folder.iterdir()}
    others = ("-Qwen3_5ForConditionalGeneration.json", "-Qwen3_5MTP.json")
    assert {name for name in texts if name.endswith(others)} <= there
    assert not [name for name in there if "qwen3_next_mtp" in name]  # it follows from qwen3_next.py too

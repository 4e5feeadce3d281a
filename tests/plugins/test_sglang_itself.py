"""The entry point in SGLang's own processes: its plugin loader, its schedulers, its class ``ModelRunner``.

Needs an interpreter that has SGLang, named by ``GDN_AOT_TEST_SGLANG``; SGLang need not be able to run a model there.
"""

import os
import re
from pathlib import Path
from typing import Any

import factory
import pytest

PYTHON = os.environ.get("GDN_AOT_TEST_SGLANG", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GDN_AOT_TEST_SGLANG names no Python that has SGLang")

SCHEDULER = """
import json, os, sys

class Arguments:
    '''What a scheduler is given: the first thing that is read of it ends the process.'''
    def __init__(self, answer):
        self.__dict__["answer"] = answer
    def __reduce__(self):
        return Arguments, (self.__dict__["answer"],)
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        import gdn_aot
        from sglang.srt.model_executor.model_runner import ModelRunner
        watched = hasattr(ModelRunner.configure_kv_cache_dtype, "__wrapped__")
        with open(self.__dict__["answer"], "w") as file:
            json.dump([name, gdn_aot.report().active, watched], file)
        os._exit(0)
"""


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if "gdn-aot" in line]


def test_sglang_calls_it_before_any_kernel_is_imported(sglang: Any) -> None:
    """In the process that is started. SGLang's logging is not set up yet: the warning comes as Python has it."""
    (installed, kernels), err = sglang("load_plugins(); load_plugins(); print(json.dumps(loaded()))")
    assert installed
    assert kernels == []
    (line,) = ours(err)
    assert line.startswith("gdn-aot: no artifact in the store")
    assert "gdn-aot fetch installs one that is published" in line


def test_lines_have_the_form_that_sglang_gives_its_own(sglang: Any) -> None:
    """Once a process has set its logging up; with another level they are left out."""
    code = """
from types import SimpleNamespace
from gdn_aot.serving import log
from sglang.srt.utils import configure_logger
load_plugins()
for level in ("info", "error"):
    configure_logger(SimpleNamespace(log_level=level), prefix=" TP0")
    log.notice(f"said at level {level}")
print(json.dumps(None))
"""
    _, line = ours(sglang(code)[1])
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d [\d:]{8} TP0\] gdn-aot: said at level info", line)


def test_each_call_of_sglang_is_one_installation(sglang: Any) -> None:
    """As where SGLang's own guard is gone, too."""
    code = """
import sglang.srt.plugins as plugins
for _ in range(3):
    plugins._plugins_loaded = False
    plugins.load_plugins()
from sglang.srt.plugins.hook_registry import HookRegistry
print(json.dumps([loaded()[0], len(HookRegistry._hooks)]))
"""
    got, err = sglang(code)
    assert got == [True, 0]
    assert len(ours(err)) == 1


def test_sglang_plugins_without_us_leaves_us_out(sglang: Any) -> None:
    (installed, _), err = sglang("load_plugins(); print(json.dumps(loaded()))", SGLANG_PLUGINS="another")
    assert not installed
    assert ours(err) == []


@pytest.mark.parametrize("error", ["SystemExit", "GeneratorExit", "BaseException", "ValueError"])
def test_an_error_of_ours_does_not_reach_sglang(sglang: Any, error: str) -> None:
    """SGLang itself catches an ``Exception`` alone, with a traceback."""
    code = f"""
from gdn_aot.serving import loader
def install():
    raise {error}('odd')
loader.install = install
load_plugins()
print(json.dumps(loaded()[0]))
"""
    got, err = sglang(code)
    assert got is True
    assert ours(err) == [f"gdn-aot: nothing is served: {error}: odd"]
    assert "Traceback" not in err


def test_strict_mode_ends_the_process(sglang: Any, tmp_path: Path) -> None:
    _, err = sglang("load_plugins()", exits=4, GDN_AOT_STRICT="1", GDN_AOT_ARTIFACT=str(tmp_path / "none"))
    (line,) = ours(err)
    assert "SGLang is not started" in line


@pytest.mark.parametrize("content", [None, b"no artifact"])
def test_a_broken_artifact_is_one_warning_and_sglang_is_as_it_was(
    sglang: Any, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "artifact.tar.zst"
    if content is not None:
        path.write_bytes(content)
    code = """
load_plugins()
from sglang.srt.model_executor.model_runner import ModelRunner
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction
functions = (ModelRunner.configure_kv_cache_dtype, Autotuner.run, JITFunction.run, JITFunction.create_binder)
owners = {function.__module__ for function in functions}
print(json.dumps([sorted(owners), [type(finder).__module__ for finder in sys.meta_path]]))
"""
    (owners, finders), err = sglang(code, GDN_AOT_ARTIFACT=str(path))
    assert not [name for name in (*owners, *finders) if name.startswith("gdn_aot")]
    assert len(ours(err)) == 1, ours(err)


def test_a_scheduler_that_sglang_spawns_has_it_before_it_reads_its_arguments(sglang: Any, tmp_path: Path) -> None:
    """By then it has imported its kernels; the class that measures memory is watched all the same."""
    find = "from importlib.metadata import version; print(json.dumps([version('sglang'), version('triton')]))"
    (version, triton), _ = sglang(find)
    module = "sglang.kernels.ops.attention.fla.chunk_o"
    artifact = factory.write_of("sglang", version, module, tmp_path, triton=triton)
    (tmp_path / "site/arguments.py").write_text(SCHEDULER)
    code = f"""
import inspect, multiprocessing
from arguments import Arguments
from sglang.srt.managers.scheduler import run_scheduler_process
answer = {str(tmp_path / "answer.json")!r}
parameters = inspect.signature(run_scheduler_process).parameters.values()
wanted = [one.name for one in parameters if one.default is one.empty]
given = [Arguments(answer) if name == "server_args" else 0 for name in wanted]
process = multiprocessing.get_context("spawn").Process(target=run_scheduler_process, args=given)
process.start(); process.join()
print(json.dumps([process.exitcode, json.load(open(answer))]))
"""
    (status, (read, active, watched)), err = sglang(code, GDN_AOT_ARTIFACT=str(artifact))
    assert (status, active, watched) == (0, True, True), err
    assert read


def test_the_runner_that_is_watched_is_the_one_that_loads_the_model(sglang: Any) -> None:
    """What is read of SGLang is there, in the order that is relied on, and the method keeps its signature."""
    code = """
import inspect
from sglang.srt.managers import scheduler
from sglang.srt.model_executor import model_runner
from sglang.srt.models import qwen3_5, qwen3_next
from gdn_aot.plugins import sglang as plugin, sglang_memory
assert plugin.RUNNER == model_runner.__name__
before = model_runner.ModelRunner.configure_kv_cache_dtype
sglang_memory.watch(plugin.RUNNER)
after = model_runner.ModelRunner.configure_kv_cache_dtype
start = inspect.getsource(model_runner.ModelRunner.initialize)
pools = inspect.getsource(model_runner.ModelRunner.alloc_memory_pool)
workers = inspect.getsource(scheduler.Scheduler)
layers = [inspect.getsource(layer) for layer in (qwen3_5.Qwen3_5GatedDeltaNet, qwen3_next.Qwen3GatedDeltaNet)]
print(json.dumps([
    after is not before and after.__wrapped__ is before,
    str(inspect.signature(before)) == str(inspect.signature(after)),
    0 < start.index("self.load_model()") < start.index("self.configure_kv_cache_dtype()"),
    "_memory_pool(" not in start and "pre_model_load_memory" in pools,
    all(f"self.{name} =" in layer for name in sglang_memory._SIZES for layer in layers),
    all("self.conv_kernel_size =" in layer for layer in layers),
    "is_draft_worker" in inspect.signature(model_runner.ModelRunner.__init__).parameters,
]))
"""
    assert sglang(code)[0] == [True] * 7

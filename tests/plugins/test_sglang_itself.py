"""The entry point in SGLang's own processes: its plugin loader, its schedulers, its class ``ModelRunner``.

Needs an interpreter that has SGLang, named by ``GDN_AOT_TEST_SGLANG``; SGLang need not be able to run a model there.
"""

import os
import re
from pathlib import Path
from typing import Any

import factory
import pytest
from helpers import ABSENT, ROOT, run
from plugins.conftest import entry_points

EXAMPLE = ROOT / "examples/sglang/serve.sh"
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


TOOLS = {
    "python3": f"""[ "$1 $2" != "-m sglang.launch_server" ] || {{ echo "started with $*"; exit 3; }}
exec {PYTHON} "$@\"""",
    "gdn-aot": f'exec {PYTHON} -m gdn_aot "$@"',
}


@pytest.fixture
def serve(tmp_path: Path) -> Any:
    """Run commands of a shell with gdn-aot, and with SGLang but for its server; return what the last one said."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "keys").mkdir()
    for name, text in TOOLS.items():
        (tmp_path / "tools" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "tools" / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}",
        "ARCH": "sm_90",
        "GDN_AOT_KEYS": str(tmp_path / "keys"),
    }
    env["PYTHONPATH"] = os.pathsep.join(map(str, (ABSENT, ROOT, entry_points(tmp_path))))

    def serve(*lines: str) -> str:
        for line in (*lines, f"{EXAMPLE} ./registry some/model --tp 2"):
            done = run(["/bin/sh", "-c", line], tmp_path / "home", env, tmp_path)
            assert done.code == 3 * line.startswith(str(EXAMPLE)), done.err[-3000:]
        assert done.out.endswith("started with -m sglang.launch_server --model-path some/model --tp 2\n")
        return done.out + done.err

    return serve


def test_the_example_fetches_says_what_sglang_finds_and_serves(serve: Any) -> None:
    """All but the server: an artifact is built, published and fetched."""
    said = serve(
        "gdn-aot build --provider sglang --arch sm_90 --model qwen3.5-9b --workload decode -j 2 -o dist",
        "gdn-aot publish dist/* --repo ./registry --create",
        "gdn-aot fetch --repo ./registry --arch sm_90 --provider sglang --allow-unsigned",  # to sign takes packages
    )
    assert re.search(r"sglang\S+-sm_90: already installed, ", said)
    assert re.search(r"\d+ kernels for sm_90 \(no device here", said)
    assert "not ok" not in said


@pytest.mark.parametrize("registry", ["none", "unsigned"])
def test_the_example_serves_without_an_artifact_too(serve: Any, tmp_path: Path, registry: str) -> None:
    lines, why = [], "there is no directory"
    if registry == "unsigned":
        artifact = factory.write_of("sglang", "0.5.17", "sglang.kernels.ops.attention.fla.chunk_o", tmp_path)
        lines, why = (
            [f"gdn-aot publish {artifact} --repo ./registry --create"],
            "the signature of index.json is missing",
        )
    said = serve(*lines)
    assert why in said
    assert "--optional: continuing; Triton compiles and benchmarks kernels" in said
    assert re.search(r"not ok: the store \S+ has no artifact", said)


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

"""SGLang's entry point with FLA's kernels as the served ones, and a model runner that has only what is looked at."""

import json
import os
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import ROOT, python, run
from launching import PRELUDE

from gdn_aot.catalogue.providers import build_command
from gdn_aot.plugins import sglang, sglang_memory
from gdn_aot.serving import log

RUNNER = """
class ModelRunner:
    def configure_kv_cache_dtype(self):
        '''SGLang's words.'''
        self.measured = len(self.driver.loaded) if hasattr(self, "driver") else -1
        return 7
"""
START = """
import logging, types
lines = []
class Handler(logging.Handler):
    def emit(self, record):
        lines.append([record.levelname, record.name, record.getMessage()])
logging.basicConfig(level=logging.INFO, handlers=[Handler()], force=True)  # as SGLang does, on the root
from gdn_aot.plugins import sglang as plugin

class Layer:
    def __init__(self, **more):
        sizes = dict(num_k_heads=16, num_v_heads=32, head_k_dim=128, head_v_dim=128, attn_tp_size=1, conv_kernel_size=4)
        self.__dict__.update({**sizes, **more})

def runner(*layers, **more):
    import torch
    torch.cuda.mem_get_info = lambda *_: (1 << 30, 1 << 31)
    torch.cuda.synchronize = lambda *_: None
    from sglang.srt.model_executor.model_runner import ModelRunner
    made = ModelRunner()
    made.driver = driver
    made.model = types.SimpleNamespace(modules=lambda: iter([types.SimpleNamespace(num_v_heads=None), *layers]))
    made.model_config = types.SimpleNamespace(dtype=torch.bfloat16)
    made.__dict__.update(more)
    return made

def said():
    return [line for line in lines if line[1] == "sglang.gdn_aot"]
"""
SCHEDULER = """
import multiprocessing
from gdn_aot.plugins import sglang as plugin

def scheduler(pipe):
    become()
    import fla.ops.gated_delta_rule, fla.modules  # before the plugin is called, as in SGLang's schedulers
    plugin.register()
    decode()
    pipe.send([len(driver.launched), counter.compiled, len(gdn_aot.report().seeded)])

if __name__ == "__main__":
    plugin.register()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=scheduler, args=(there,))
    child.start()
    there.close()
    answer = here.recv()
    child.join()
    print(json.dumps([child.exitcode, *answer]))
"""


@pytest.fixture
def play(sm_90: Built, tmp_path: Path) -> Any:
    """Run code with a package ``sglang`` that has a runner, and the artifact for it in ``GDN_AOT_ARTIFACT``."""
    package = tmp_path / "site/sglang/srt/model_executor"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "model_runner.py").write_text(RUNNER)

    def play(code: str, artifact: str | Path | None = None, **extra: str) -> Any:
        return python(PRELUDE + START + code, home=tmp_path / "home", extra=settings(sm_90, tmp_path, artifact, extra))

    return play


def settings(built: Built, folder: Path, artifact: str | Path | None, extra: dict[str, str]) -> dict[str, str]:
    chosen = {"GDN_AOT_ARTIFACT": str(artifact or built.path), "TRITON_CACHE_DIR": str(folder / "triton")}
    return {**chosen, "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)]), **extra}


def test_kernels_are_loaded_before_the_pools_are_measured_and_one_line_says_so(play: Any) -> None:
    """The model runner of a draft model, which has another shape, loads and says nothing."""
    got = play("""
become()
import fla.ops.gated_delta_rule, fla.modules, sglang.srt.model_executor.model_runner as module
plugin.register(); plugin.register()
early = len(said())
served = runner(Layer(num_k_heads=32, num_v_heads=64, attn_tp_size=2))
answer = served.configure_kv_cache_dtype()
after = len(driver.loaded)
runner(Layer(head_k_dim=64), is_draft_worker=True).configure_kv_cache_dtype()
prefill(); prefill(200, [0, 77, 200], state=True); decode()
done(answer=answer, measured=served.measured, after=after, now=len(driver.loaded), lines=said(), early=early,
    doc=module.ModelRunner.configure_kv_cache_dtype.__doc__)
""")
    assert (got["answer"], got["doc"], got["early"]) == (7, "SGLang's words.", 0)
    assert got["measured"] == got["after"] == got["now"] > 0
    assert (got["compiled"], got["benchmarked"]) == ([], 0)
    ((level, _, text),) = got["lines"]
    assert level == "INFO"
    assert text.startswith(f"gdn-aot: loaded {got['measured']} modules of ")
    assert " kernels from fla0.6.0-triton3.6.0-sm_90, " in text
    assert text.endswith(" MiB, before the memory pools are measured")


@pytest.mark.parametrize(
    ("more", "said"),
    [("", ")"), (", attn=types.SimpleNamespace(lower_bound=-5.0)", ", gate_bound -5.0)")],
    ids=["no bound", "bound"],
)
def test_a_layer_of_kimi_delta_attention_is_of_its_family(play: Any, more: str, said: str) -> None:
    """It has the names of the other layer too, and its heads divided by ``--tp``."""
    got = play(f"""
plugin.register(); become()
import fla.ops.gated_delta_rule, fla.modules
sizes = dict(num_k_heads=32, num_v_heads=32, attn_tp_size=2, local_num_heads=16, head_dim=128, conv_size=4{more})
runner(Layer(**sizes)).configure_kv_cache_dtype()
print(json.dumps(said()))
""")
    ((level, _, text),) = got
    assert level == "WARNING"
    assert f"(heads 16, v_heads 16, k_dim 128, v_dim 128, conv_width 4, dtype bf16, family kda{said}" in text


def test_a_shape_that_no_artifact_has_is_a_warning_with_the_command(play: Any) -> None:
    got = play("""
plugin.register(); become()
import fla.ops.gated_delta_rule, fla.modules
runner(Layer(num_k_heads=8)).configure_kv_cache_dtype()
others = runner().configure_kv_cache_dtype(), len(said())
print(json.dumps([said(), others]))
""")
    (level, _, text), (_, _, other) = got[0]
    assert level == "WARNING"
    assert text.startswith("gdn-aot: no artifact has the served model's shape (heads 8, v_heads 32, ")
    assert "gdn-aot build --arch sm_90 --provider fla" in text
    assert got[1] == [7, 2]
    assert other.startswith("gdn-aot: loaded 0 modules of 0 kernels"), "a model without such layers"


def test_a_spawned_scheduler_is_served(sm_90: Built, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PRELUDE + SCHEDULER)
    done = run([sys.executable, str(program)], tmp_path / "home", settings(sm_90, tmp_path, None, {}))
    assert done.code == 0, done.err
    status, launched, compiled, seeded = json.loads(done.out.splitlines()[-1])
    assert (status, launched, compiled) == (0, 1, [])
    assert seeded == 8


UNTOUCHED = """
plugin.register(); become()
import sglang.srt.model_executor.model_runner as module
from triton.runtime.jit import JITFunction
from triton.backends.nvidia import driver as nvidia
import fla.ops.gated_delta_rule
from fla.ops.gated_delta_rule.fused_recurrent import fused_recurrent_gated_delta_rule_fwd_kernel as kernel
from gdn_aot.triton_internals import layers
decode()
plugin.register()
done(
    lines=said(), method=module.ModelRunner.configure_kv_cache_dtype.__module__,
    caches=type(layers(kernel)[0].device_caches).__name__, utils=nvidia.CudaUtils.__module__,
    finders=[type(finder).__module__ for finder in sys.meta_path],
)
"""


@pytest.mark.parametrize(
    "what", ["missing", "garbage", "truncated", "flipped", "longer", "empty folder", "other release", "no store"]
)
def test_what_does_not_fit_leaves_everything_as_it_was_and_is_one_warning(
    play: Any, sm_90: Built, tmp_path: Path, what: str
) -> None:
    """Of another release all sources are others here; some of which are the same is in the tests of the loader."""
    path, more = tmp_path / "artifact.tar.zst", {}
    match what:
        case "garbage":
            path.write_bytes(b"no artifact" * 100)
        case "truncated":
            path.write_bytes(sm_90.path.read_bytes()[:3000])
        case "flipped":
            data = bytearray(sm_90.path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "longer":
            path.write_bytes(sm_90.path.read_bytes() + b"more")
        case "empty folder":
            path.mkdir()
        case "other release":
            (tmp_path / "site/fla_core-9.9.9.dist-info").mkdir()
            path = sm_90.path
        case "no store":
            more = {"GDN_AOT_ARTIFACT": ""}
    got = play(UNTOUCHED, path, **more)
    ((level, _, text),) = got["lines"]
    assert (level, text.startswith("gdn-aot: no artifact in ")) == ("WARNING", True)
    assert ("gdn-aot fetch installs one" in text) is (what == "no store")
    assert (f"{build_command('', '')} makes one" in text) is (what == "no store")
    assert got["method"] == "sglang.srt.model_executor.model_runner"
    assert got["caches"] == "defaultdict"
    assert got["utils"] == "triton.backends.nvidia.driver"
    assert not [name for name in got["finders"] if name.startswith("gdn_aot")]
    assert got["compiled"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]


@pytest.mark.parametrize("runner", ["class ModelRunner:\n    pass\n", "", "class ModelRunner: load_model = 3\n"])
def test_a_runner_of_another_form_is_left_as_it_is(play: Any, tmp_path: Path, runner: str) -> None:
    (tmp_path / "site/sglang/srt/model_executor/model_runner.py").write_text(runner)
    got = play("""
plugin.register()
import sglang.srt.model_executor.model_runner as module
print(json.dumps([hasattr(getattr(module, "ModelRunner", None), "configure_kv_cache_dtype"), said()]))
""")
    assert got[0] is False
    assert [line[0] for line in got[1]] == ["INFO"]


def test_strict_mode_ends_sglang_where_nothing_fits(play: Any, tmp_path: Path) -> None:
    """SGLang goes on after an `Exception` of a plugin."""
    got = play(
        """
try:
    plugin.register()
except SystemExit as error:
    print(json.dumps([error.code, said()]))
""",
        tmp_path / "none",
        GDN_AOT_STRICT="1",
    )
    assert got[0] == 4
    ((level, _, text),) = got[1]
    assert level == "WARNING"
    assert "fits this process" in text
    assert "GDN_AOT_STRICT is set, so SGLang is not started" in text


def test_where_no_plugin_is_loaded_a_file_installs_the_loader(sm_90: Built, tmp_path: Path) -> None:
    """The line of docs/how-to/sglang.md, in an environment of its own: each Python of it has the loader."""
    page = (ROOT / "docs/how-to/sglang.md").read_text()
    (line,) = (line for line in page.splitlines() if "gdn_aot.pth" in line)
    venv.create(tmp_path / "venv", symlinks=True)
    extra = settings(sm_90, tmp_path, None, {"PATH": f"{tmp_path / 'venv/bin'}{os.pathsep}{os.environ['PATH']}"})
    extra["PYTHONPATH"] += os.pathsep + sysconfig.get_path("purelib")
    assert run(["sh", "-ec", line], tmp_path / "home", extra).code == 0
    child = "import sys; print([name for name in sys.modules if name in ('gdn_aot.auto', 'torch', 'triton')])"
    parent = f"import subprocess; subprocess.run(['python', '-c', {child!r}])"
    done = run(["python", "-c", parent], tmp_path / "home", extra)
    assert (done.code, done.out, done.err) == (0, "['gdn_aot.auto']\n", "")


class Odd(BaseException):
    """Not an `Exception`, and not what ends a process."""


class UnsaidError(Exception):
    """Its words cannot be had."""

    def __init__(self, instead: BaseException) -> None:
        self.instead = instead

    def __repr__(self) -> str:
        return f"UnsaidError({type(self.instead).__name__})"

    def __str__(self) -> str:
        raise self.instead


HELD: list[BaseException] = [
    *(ValueError("x\x1b[2J\ny"), RecursionError(), MemoryError(), ImportError("no")),
    *(Odd(), SystemExit(3), GeneratorExit(), UnsaidError(ValueError()), UnsaidError(SystemExit(9))),
]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    monkeypatch.setattr(log, "warn", heard.append)
    monkeypatch.setattr(log, "detail", lambda _: None)
    monkeypatch.setattr(sglang, "_registered", False)
    return heard


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have what is ours raise an error, in the entry point and while kernels are loaded."""

    def raising(error: BaseException) -> None:
        def function(*_: object) -> None:
            raise error

        monkeypatch.setattr(sglang, "_register", function)
        monkeypatch.setattr(sglang_memory, "shape_of_runner", function)

    return raising


@pytest.mark.parametrize("error", HELD, ids=repr)
def test_nothing_of_ours_reaches_sglang(raising: Any, heard: list[str], error: BaseException) -> None:
    raising(error)
    sglang.register()
    sglang_memory.load(object())
    assert [type(error).__name__ in message for message in heard] == [True, True]
    assert all(message.isprintable() for message in heard)


def test_a_logger_that_raises_does_not_either(raising: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(_: str) -> None:
        raise SystemExit(4)

    monkeypatch.setattr(log, "warn", warn)
    monkeypatch.setattr(sglang, "_registered", False)
    raising(ValueError("no"))
    sglang.register()
    sglang_memory.load(object())


def test_ctrl_c_does(raising: Any, heard: list[str]) -> None:
    raising(KeyboardInterrupt())
    for function in (sglang.register, lambda: sglang_memory.load(object())):
        with pytest.raises(KeyboardInterrupt):
            function()
    assert heard == []

"""The loader on the installed Triton: a real launch from an artifact that this Triton built, and changed internals."""

from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import ROOT, SUPPORT, python
from launching import PRELUDE, TOLD


@pytest.fixture
def serve(decode: Built, tmp_path: Path) -> Any:
    def serve(code: str) -> Any:
        extra = {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
        return python(PRELUDE + code, decode.path, home=tmp_path / "home", extra=extra)

    return serve


def test_a_served_launch(serve: Any, tmp_path: Path) -> None:
    got = serve("install(strict=True); become('sm_120'); decode(); decode(3); done()")
    assert got["compiled"] == []
    assert got["launched"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"] * 2
    assert got["report"]["modules"] == len(got["loaded"]) == 1
    assert not list((tmp_path / "triton").glob("*"))


def test_the_first_launch_imports_nothing(tmp_path: Path) -> None:
    """What Triton's binder imports at its first argument is there when a provider's module has been imported."""
    got = python(
        f"""
import json, sys
sys.path[:0] = [{str(SUPPORT)!r}, {str(ROOT / "tests/triton_versions")!r}]
import launching
launching.start("sm_90")
import kernels
from gdn_aot.triton_internals import Launch, serving
counts = [len(sys.modules)]
def bind():
    Launch(kernels.every, [], kernels.arguments())
    counts.append(len(sys.modules))
serving.ready_binder()
counts.append(len(sys.modules))
bind()
print(json.dumps(counts))
""",
        home=tmp_path,
    )
    before, ready, bound = got
    assert ready - before > 30
    assert bound == ready


def test_the_binder_is_ready_when_a_module_is_served(serve: Any) -> None:
    count = """
from gdn_aot.triton_internals import serving
counts = []
serving.ready_binder = lambda: counts.append(1)
"""
    imported = "import fla.ops.gated_delta_rule; done(counts=counts)"
    assert serve(f"{count}install(strict=True); become('sm_120'); {imported}")["counts"]
    assert serve(f"{count}become('sm_120'); {imported}")["counts"] == []
    later = f"{count}become('sm_120'); import fla.ops.gated_delta_rule; install(strict=True); {imported}"
    assert serve(later)["counts"] == []


@pytest.mark.parametrize(
    "change",
    [
        "del jit.mangle_type",
        "jit.mangle_type = lambda _: fail(ImportError('no gluon'))",
        "jit.mangle_type = lambda _: fail(TypeError('of another Triton'))",
    ],
)
def test_a_binder_that_cannot_be_made_ready_is_left_to_the_first_launch(serve: Any, change: str) -> None:
    """It is tried once, whatever is imported after it, and what it raises reaches nobody."""
    got = serve(f"""
import sys
tried = []
def fail(error):
    tried.append(str(error))
    raise error
install(strict=True); become('sm_120')
from gdn_aot.serving import loader
from triton.runtime import jit
kept = jit.mangle_type
{change}
import fla.ops.gated_delta_rule
loader._on_module(next(iter(loader.state().kernels)).partition(":")[0])
jit.mangle_type = kept
decode(); done(tried=tried)
""")
    assert len(got["tried"]) == ("fail" in change)
    assert got["compiled"] == []
    assert got["report"]["modules"] == 1


def test_others_can_serve_while_the_binder_is_made_ready(serve: Any) -> None:
    """An import takes long, and another thread that imports a provider's module must not wait for the lock."""
    got = serve("""
import threading
free = []
def ready():
    def other():
        free.append(loader.state().lock.acquire(timeout=10))
        loader.state().lock.release()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
from gdn_aot.serving import loader
from gdn_aot.triton_internals import serving
serving.ready_binder = ready
install(strict=True); become('sm_120')
import fla.ops.gated_delta_rule
done(free=free)
""")
    assert got["free"]
    assert all(got["free"])


CHANGES = {
    "JITFunction.run": "jit.JITFunction.run = lambda self, *args, **kwargs: run(self, *args, **kwargs)",
    "JITFunction.create_binder": "jit.JITFunction.create_binder = lambda self: binder(self)",
    "Autotuner.run": "autotuner.Autotuner.run = lambda self, *args, **kwargs: tune(self, *args, **kwargs)",
    "CompiledKernel.launch_metadata": "compiler.CompiledKernel.launch_metadata = lambda *args: None",
    "Triton 4.0.0 is installed": "triton.__version__ = '4.0.0'",
}
"""What is named as changed -> a change of Triton that leaves it working."""


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_internal_is_named_and_triton_goes_on(serve: Any, what: str) -> None:
    got = serve(f"""
install(); become('sm_120')
import triton
from triton import compiler
from triton.runtime import autotuner, jit
run, binder, tune = jit.JITFunction.run, jit.JITFunction.create_binder, autotuner.Autotuner.run
{CHANGES[what]}
decode(); done()
""")
    assert what in got["report"]["problem"]
    assert not got["report"]["active"]
    assert got["compiled"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]
    assert got["launched"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]


def test_a_changed_internal_is_an_error_in_strict_mode(serve: Any) -> None:
    change = "install(strict=True); become('sm_120'); import triton; triton.__version__ = '4.0.0'"
    got = serve(change + TOLD.format("decode()"))
    assert got["error"] == "UnsupportedTritonError"


def test_an_entry_of_another_form_is_left_alone_and_told(serve: Any) -> None:
    """A future Triton whose entry for a device holds its kernels in something else: it goes on, and compiles."""
    got = serve("""
install(); become('sm_120')
import collections
import fla.ops.gated_delta_rule
from gdn_aot.serving import loader
(kernel,) = loader.state().kernels.values()
class Other(collections.UserDict):
    pass
made = kernel.jit.create_binder
kernel.jit.create_binder = lambda: (Other(), *made()[1:])
decode(); done()
""")
    assert "device_caches" in got["report"]["problem"]
    assert not got["report"]["active"]
    assert len(got["compiled"]) == 1


def test_triton_refuses_a_kernel_whose_compiler_options_differ(serve: Any) -> None:
    """``debug`` is part of the launch key: a process that asks for it is not served another binary."""
    got = serve("""
install(); become('sm_120')
import triton
triton.knobs.runtime.debug = True
decode(); done()
""")
    assert len(got["compiled"]) == 1
    assert [miss["what"] for miss in got["report"]["misses"]] == ["binary"]

"""The loader serves real FLA kernels from a real artifact, under a driver that notes what is loaded and launched."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import storing
from builds import Built
from helpers import run
from launching import PRELUDE
from storing import check_store

from gdn_aot.store.store import Store

BOTH = "become(); prefill(); prefill(200, [0, 77, 200], state=True); decode(); done()"


def test_nothing_is_compiled_or_benchmarked(serve: Any, tmp_path: Path) -> None:
    got = serve(f"install(strict=True); {BOTH}")
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    assert len(got["launched"]) == 15
    assert "fused_recurrent_gated_delta_rule_fwd_kernel" in got["launched"]
    assert len(got["loaded"]) == len(set(map(tuple, [[name, i] for i, name in enumerate(got["loaded"])])))
    assert got["report"]["modules"] == len(got["loaded"]) < len(got["launched"])
    assert got["report"]["misses"] == []
    assert got["report"]["refused"] == {}
    assert not list((tmp_path / "triton").glob("*")), "a covered process writes nothing into Triton's cache"


def test_a_second_call_loads_and_looks_up_nothing(serve: Any) -> None:
    got = serve(
        "install(strict=True); become(); prefill(); first = gdn_aot.report(); prefill(); again = gdn_aot.report();"
        "done(same=first == again)"
    )
    assert got["same"]


def test_installed_after_the_provider_was_used(serve: Any) -> None:
    """What Triton compiled before stays in use; what comes after is served."""
    got = serve(
        "become(); import fla.ops.gated_delta_rule; decode(); before = len(counter.compiled); install();"
        "decode(); prefill(); done(before=before)"
    )
    assert got["before"] == len(got["compiled"]) == 1
    assert got["benchmarked"] == 0
    assert len(got["loaded"]) == 1 + got["report"]["modules"]


@pytest.mark.parametrize(
    ("start", "more", "problem"),
    [("", {}, ""), ("gdn_aot.install();", {}, "no artifact in the store"), ("install();", {"GDN_AOT": "0"}, "")],
    ids=["not installed", "no artifact", "switched off"],
)
def test_what_is_not_served_triton_compiles(serve: Any, start: str, more: dict[str, str], problem: str) -> None:
    """Nor is it an error. The counters count: the same calls without the loader compile."""
    got = serve(f"{start} become(); decode(); done()".strip(), **more)
    assert problem in got["report"]["problem"]
    assert not got["report"]["active"]
    assert len(got["compiled"]) == 1


def test_a_second_artifact_is_added(serve: Any, decode: Built) -> None:
    """A process for two architectures: what is installed later serves too."""
    got = serve(f"install(); become('sm_120'); gdn_aot.install({str(decode.path)!r}); decode(); done()")
    assert got["compiled"] == []
    assert len(got["report"]["artifacts"]) >= 2


def test_auto_uses_the_environment(serve: Any, sm_90: Built) -> None:
    got = serve("import gdn_aot.auto; become(); decode(); done()", GDN_AOT_ARTIFACT=str(sm_90.path), GDN_AOT_STRICT="1")
    assert got["compiled"] == []
    assert got["report"]["strict"]


def test_threads_that_launch_at_once_load_each_module_once(serve: Any) -> None:
    got = serve("""
install(strict=True); become()
import threading
import fla.ops.gated_delta_rule
barrier = threading.Barrier(8)
errors = []
def work():
    barrier.wait()
    try:
        decode(); prefill()
    except Exception as error:
        errors.append(repr(error))
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
done(errors=errors)
""")
    assert got["errors"] == []
    assert got["compiled"] == []
    assert len(got["launched"]) == 8 * 8
    assert len(got["loaded"]) == got["report"]["modules"] == 7


CHILD = """
def child(queue):
    if "counter" not in globals():
        install(strict=True)
        become()
    decode(); prefill()
    queue.put([counter.compiled, counter.benchmarked, len(driver.launched), gdn_aot.report().modules])

if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context(sys.argv[2])
    if sys.argv[2] == "fork":
        install(strict=True); become(); import fla.ops.gated_delta_rule
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    got = queue.get()
    process.join()
    print(json.dumps(got))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes(sm_90: Built, method: str, tmp_path: Path) -> None:
    """A forked child goes on with what its parent installed; a spawned one installs for itself."""
    script = tmp_path / "main.py"
    script.write_text(PRELUDE + CHILD)
    more = {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
    done = run([sys.executable, str(script), str(sm_90.path), method], tmp_path / "home", more)
    assert done.code == 0, done.err[-3000:]
    assert json.loads(done.out.splitlines()[-1]) == [[], 0, 8, 7]


def test_another_architecture_is_refused_and_said_once(serve: Any) -> None:
    got = serve("install(); become('sm_120'); decode(); decode(3); done()")
    assert got["compiled"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]
    verdicts = got["report"]["artifacts"]
    assert [verdict["accepted"] for verdict in verdicts] == [True, False]
    assert verdicts[1]["reason"] == "device 0 is sm_120"
    assert got["report"]["loaded"] == {}


def test_two_devices_of_one_process(serve: Any) -> None:
    got = serve("""
install(strict=True); become()
decode(); driver.device = 1; decode(); driver.device = 0; decode()
done(modules=sorted(map(list, gdn_aot.serving.loader.state().modules)))
""")
    assert got["compiled"] == []
    assert [device for device, _, _ in got["modules"]] == [0, 1]
    assert len(got["loaded"]) == 2
    assert len(got["launched"]) == 3


def test_nearest_choice_for_an_unseen_key(serve: Any) -> None:
    """An autotune key that no artifact has is answered from the closest one, and nothing is benchmarked."""
    got = serve("install(); become(); prefill(heads=3, v_heads=6); done()")
    assert got["benchmarked"] == 0
    misses = got["report"]["misses"]
    assert {miss["what"] for miss in misses} == {"choice", "binary"}
    assert all(miss["answer"] == ("nearest" if miss["what"] == "choice" else "triton") for miss in misses)
    assert got["compiled"]


def test_tune_leaves_an_unseen_key_to_triton(serve: Any) -> None:
    got = serve("install(on_miss='tune'); become(); prefill(heads=3, v_heads=6); done()")
    assert got["benchmarked"] > 10
    assert {miss["answer"] for miss in got["report"]["misses"]} == {"triton"}


@pytest.mark.parametrize(
    ("setting", "what"), [({"GDN_AOT_ON_MISS": "error"}, "choice"), ({"GDN_AOT_STRICT": "1"}, "binary")]
)
def test_misses_are_errors_where_asked(serve: Any, setting: dict[str, str], what: str) -> None:
    got = serve(
        """
install(); become()
try:
    prefill(heads=3, v_heads=6)
    error = None
except gdn_aot.serving.loader.GdnAotError as raised:
    error = [type(raised).__name__, raised.hint]
done(error=error)
""",
        **setting,
    )
    assert got["error"][0] == "MissError"
    assert "gdn-aot build --arch sm_90" in got["error"][1]
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    assert what in {miss["what"] for miss in got["report"]["misses"]}


def test_launch_hooks_see_served_kernels(serve: Any) -> None:
    got = serve("""
install(strict=True); become()
import triton
seen = []
triton.knobs.runtime.launch_enter_hook.add(lambda lazy: seen.append(lazy.get()["name"]))
decode(); done(seen=seen)
""")
    assert got["seen"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]


def test_a_served_kernel_looks_like_tritons_own(serve: Any) -> None:
    got = serve("""
install(strict=True); become(); decode()
from triton.compiler import CompiledKernel
from gdn_aot.serving import loader
entries = [entry for one in loader.state().kernels.values() for entry in one.jit.device_caches.values()]
(kernel,) = [kernel for entry in entries for kernel in entry[0].values()]
done(own=isinstance(kernel, CompiledKernel), name=kernel.metadata.name, warps=kernel.metadata.num_warps,
     arch=kernel.metadata.target.arch, registers=kernel.n_regs, code=len(kernel.asm["cubin"]), hash=kernel.hash,
     signature=len(kernel.src.signature))
""")
    assert got["own"]
    assert got["name"] == "fused_recurrent_gated_delta_rule_fwd_kernel"
    assert got["arch"] == 90
    assert got["warps"] in (1, 2, 4, 8)
    assert got["code"] > 1000
    assert got["signature"] > 10


def test_a_global_that_changes_later_is_noticed_by_triton(serve: Any) -> None:
    """As for what Triton compiled itself: a kernel whose globals changed is not launched."""
    got = serve("""
install(strict=True); become(); prefill()
from gdn_aot.serving import loader
names = [(jit, name, holder) for kernel in loader.state().kernels.values() for jit in [kernel.jit]
         for (name, _), (_, holder) in jit.used_global_vals.items()]
jit, name, holder = names[0]
holder[name] = "other"
try:
    prefill(); error = ""
except RuntimeError as raised:
    error = str(raised)
done(error=error, name=name)
""")
    assert f"Global variable {got['name']} has changed" in got["error"]


def test_kernels_are_prepared_at_import_where_cuda_is_initialized(serve: Any) -> None:
    """What a first launch would wait for is done while the provider is imported, short of loading code."""
    got = serve("""
install(strict=True); become()
import torch
torch.cuda.is_initialized = lambda: True
import fla.ops.gated_delta_rule
from gdn_aot.serving import loader
prepared = [list(kernel.jit.device_caches) for kernel in loader.state().kernels.values()]
modules = gdn_aot.report().modules
prefill(); done(prepared=prepared, modules=modules)
""")
    assert got["prepared"]
    assert all(devices == [0] for devices in got["prepared"])
    assert got["modules"] == 0
    assert got["compiled"] == []
    assert got["report"]["modules"] == 6


# A store that cannot be written, and one that is changed under a serving process


DECODE = "fused_recurrent_gated_delta_rule_fwd_kernel"
UNPRIVILEGED = """
import os
import storing
privilege = storing.no_privilege()
privilege.__enter__()
try:
    open(os.environ["GDN_AOT_HOME"] + "/store/probe", "w")
except PermissionError:
    pass
else:
    raise SystemExit("the store can be written all the same")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The home of the processes that serve."""
    return tmp_path / "home"


def test_a_read_only_store_serves(serve: Any, place: Path) -> None:
    serve("install(); become(); done()")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    with storing.read_only(place / "store"):
        got = serve(f"{UNPRIVILEGED}\ngdn_aot.install(strict=True); become(); decode(); prefill(); done()")
        assert (got["compiled"], got["benchmarked"]) == ([], 0)
        got = serve(f"{UNPRIVILEGED}\ninstall(strict=True); become(); decode(); done()")
        assert (got["compiled"], got["benchmarked"]) == ([], 0)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


@pytest.mark.parametrize("change", ["shutil.rmtree(store.root)", "prune(store, keep=0)"])
def test_what_was_opened_outlives_the_store(serve: Any, place: Path, change: str) -> None:
    """A process serves what it found when it was started, whatever becomes of the store."""
    got = serve(f"""
import shutil
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import prune
store = Store({str(place)!r})
install(); become(); decode()
{change}
prefill(); done()
""")
    assert (got["compiled"], got["benchmarked"]) == ([], 0)
    assert Store(str(place)).artifacts() == []


def test_a_file_whose_copy_in_the_store_is_damaged(serve: Any, place: Path) -> None:
    """It is unpacked again."""
    serve("install(); become(); done()")
    storing.place_of(place).joinpath("pack").write_bytes(b"")
    got = serve("install(strict=True); become(); decode(); done()")
    assert got["compiled"] == []
    assert len(check_store(place)) == 1

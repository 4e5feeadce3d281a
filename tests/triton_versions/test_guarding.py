"""What is noticed of functions that Triton is about to compile, on the installed Triton."""

from pathlib import Path
from typing import Any

import pytest
from helpers import SUPPORT, python

CODE = f"""
import json, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(SUPPORT)!r}]
import triton
from gdn_aot.triton_internals import guarding, observing, serving
noted, noted_too = [], []
def note(function):
    noted.append(function.fn.__name__)
    if refuse:
        raise RuntimeError("refused")
refuse = False
guarding.guard_binders(note)
guarding.guard_binders(noted_too.append)
import launching
driver, counter = launching.start("sm_90"), launching.Counter()
import torch
x = torch.zeros(64)
def launch(n=64):
    from kernels import tuned
    tuned.fn[(1,)](x, None, y=x, n=n, WIDE=True, BLOCK=64, num_warps=1)
def refused_twice():
    global refuse
    refuse, errors = True, []
    for _ in range(2):
        try:
            launch()
        except RuntimeError as error:
            errors.append(str(error))
    refuse = False
    return errors
def done(**more):
    print(json.dumps({{"noted": noted, "too": len(noted_too), "compiled": counter.compiled, **more}}))
"""


@pytest.fixture
def guard(tmp_path: Path) -> Any:
    def guard(code: str) -> Any:
        return python(CODE + code, home=tmp_path, extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")})

    return guard


def test_the_first_launch_is_noticed_before_it_compiles(guard: Any) -> None:
    """Once for a device, and by the one that came first."""
    got = guard("""
import triton
before = list(counter.compiled)
launch(); launch(); launch(63)
serving.check_serving()
done(before=before)
""")
    assert got["before"] == []
    assert len(got["noted"]) == 1
    assert got["too"] == 0
    assert got["compiled"]


def test_what_is_raised_reaches_the_caller_each_time(guard: Any) -> None:
    got = guard("""
errors = refused_twice()
launch()
done(errors=errors)
""")
    assert got["errors"] == ["refused", "refused"]
    assert len(got["noted"]) == 3
    assert len(got["compiled"]) == 1


def test_what_is_served_is_not_noticed(guard: Any) -> None:
    got = guard("""
import threading
from kernels import tuned
lock = threading.RLock()
serving.seed_kernels(tuned.fn.fn, lambda device: lambda key: None, lambda: lock, lambda reason: None)
launch()
done()
""")
    assert got["noted"] == []
    assert len(got["compiled"]) == 1


def test_what_was_made_before(guard: Any) -> None:
    """Its next device is noticed, and it is said if it was launched."""
    got = guard("""
triton.runtime.jit.JITFunction.create_binder = observing.unwrapped(triton.runtime.jit.JITFunction.create_binder)
from kernels import tuned, every
jit = tuned.fn.fn
fresh = guarding.guard_made(jit, note)
again = guarding.guard_made(jit, noted_too.append)
launch()
launched = guarding.guard_made(jit, note)
driver.device = 1
launch()
done(said=[fresh, again, launched])
""")
    assert got["said"] == [False, False, True]
    assert (len(got["noted"]), got["too"]) == (2, 0)


def test_what_was_made_before_and_is_held_anywhere(guard: Any) -> None:
    """Each of its compilations is noticed, and those of functions that came later are not noticed twice."""
    got = guard("""
kind = triton.runtime.jit.JITFunction
guarded = kind.create_binder
kind.create_binder = observing.unwrapped(guarded)
from kernels import tuned
made = tuned.fn.fn
kind.create_binder = guarded
errors = refused_twice()
launch(); launch(); launch(63)
done(errors=errors)
""")
    assert got["errors"] == ["refused", "refused"]
    assert (len(got["noted"]), len(got["compiled"])) == (4, 2)


@pytest.mark.parametrize("first", [True, False])
def test_beside_the_recorder(guard: Any, first: bool) -> None:
    """Each sees launches, whoever came first."""
    again = "guarding.guard_binders(note)" if first else ""
    got = guard(f"""
seen, problems = [], []
if not {first}:
    triton.runtime.jit.JITFunction.create_binder = observing.unwrapped(triton.runtime.jit.JITFunction.create_binder)
observer = observing.Observer(seen.append, problems.append)
observer.watch_jit()
{again}
if not {first}:
    guarding.guard_binders(note)
serving.check_serving()
launch()
done(seen=len(seen), problems=list(map(repr, problems)))
""")
    assert (len(got["noted"]), got["seen"], got["problems"]) == (1, 1, [])

"""A binary that is wrong costs its key: what cannot be is not used, what can falls back to Triton."""

from typing import Any

import pytest
from playing import play

CODES: dict[str, str] = {}
"""What tests run, by their names."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return play(CODES, tmp_path_factory)


BINARIES = """
cases = {
    "sound": {},
    "a pointer is an integer": dict(signature=but(aligned="i32")),
    "a constexpr is passed": dict(signature=but(BLOCK="i32")),
    "an argument is none": dict(signature=but(odd="constexpr")),
    "short": dict(signature=short),
    "long": dict(signature=but(more="i32")),
    "renamed": dict(signature=lambda old: {name.upper(): kind for name, kind in old.items()}),
    "other order": dict(signature=lambda old: dict(reversed(old.items()))),
    "no signature": dict(signature=lambda _: None),
    "no constants": dict(constants=lambda _: 7),
    "no name": dict(metadata=short),
    "warps in words": dict(metadata=but(num_warps="four", target=None)),
}
def run(name, changes, code=None, error=None, **policy):
    record = binary(every, arguments, **changes)
    code = code_of(record) if code is None else code
    kernel = serve(every, Found(binaries=[record], code=code), **policy)
    fail.extend([error] * (error is not None))
    errors = [raised(launch_every), raised(launch_every)]
    return name, outcome(kernel, errors=errors)
"""


CODES["binaries"] = (
    BINARIES
    + """
got = dict(run(name, changes) for name, changes in cases.items())
got["empty"] = run("", {}, b"")[1]
got["text"] = run("", {}, b".version 8.0")[1]
got["one more"] = run("", {}, code_of(binary(every, arguments), 4))[1]
got["none"] = run("", {}, make_cubin(every.__name__, arch=90))[1]
got["another"] = run("", {}, make_cubin("another", arch=90))[1]
load = driver.utils.load_binary
def refuse(name, code, shared, device):
    if code == CODE:
        raise RuntimeError("Triton Error [CUDA]: device kernel image is invalid\\x1b[2J")
    return load(name, code, shared, device)
driver.utils.load_binary = refuse
got["refused"] = run("", {})[1]
driver.utils.load_binary = load
got["launch"] = run("", {}, error=RuntimeError("Triton Error [CUDA]: invalid argument\\x1b[2J"))[1]
answer(got)
"""
)


def test_binaries(played: Any) -> None:
    """None of these is ever launched, and the caller sees nothing of it."""
    got = played["binaries"]
    sound = got.pop("sound")
    assert (sound["compiled"], sound["launched"], sound["said"], sound["loaded"]) == (0, 2, [], 1)
    for name, made in got.items():
        assert made["errors"] == [[], []], name
        assert (made["compiled"], made["launched"], made["loaded"]) == (1, 2, 0), (name, made)
        (said,) = made["said"]
        assert said.startswith("kernels:it: its binary cannot be "), name
        assert "\x1b" not in said
        assert [what for what, _, _ in made["misses"]] == ["binary"]
    assert "its signature has i32 for aligned, and the launch *fp32" in got["a pointer is an integer"]["said"][0]
    assert "its signature has constexpr for odd, and the launch i32" in got["an argument is none"]["said"][0]
    assert "its signature has 15 of 16 parameters; see RATIO" in got["short"]["said"][0]
    assert "invalid argument" in got["launch"]["said"][0]
    for name in ("one more", "none", "another"):
        assert "its code takes other parameters than its signature says" in got[name]["said"][0]


CODES["binaries_in_strict_mode"] = (
    BINARIES
    + """
got = dict(run(name, changes, strict=True) for name, changes in cases.items())
got["launch"] = run("", {}, error=RuntimeError("invalid argument"), strict=True)[1]
answer(got)
"""
)


def test_binaries_in_strict_mode(played: Any) -> None:
    got = played["binaries_in_strict_mode"]
    assert got.pop("sound")["errors"] == [[], []]
    for name, made in got.items():
        kinds = [error[0] for error in made["errors"] if error]
        assert kinds == ["MissError"] * (1 if name == "launch" else 2), (name, made)
        assert made["compiled"] == 0
    assert got["launch"]["errors"][0][2] == "RuntimeError"
    assert "its binary cannot be launched: RuntimeError: invalid argument" in got["launch"]["errors"][0][1]


CODES["a_source_that_cannot_be_made_with_the_native_launcher"] = """
from types import SimpleNamespace
from gdn_aot.triton_internals import launching as internal
launched = []
native = SimpleNamespace(
    load_binary=driver.utils.load_binary, make_launcher=lambda *_: lambda *args: launched.append(args)
)
is_driver, internal.uses_cuda_driver = internal.uses_cuda_driver, lambda: True
got = []
for changes in ({}, dict(constants=lambda _: 7)):
    record = binary(every, arguments, **changes)
    kernel = serve(every, Found(binaries=[record], code=code_of(record)), native=native)
    got.append(outcome(kernel, errors=raised(launch_every), native=len(launched)))
internal.uses_cuda_driver = is_driver
answer(got)
"""


def test_a_source_that_cannot_be_made_is_not_launched_with_the_native_launcher(played: Any) -> None:
    """It needs no source itself, but launch hooks do, whose errors would reach the caller."""
    sound, wrong = played["a_source_that_cannot_be_made_with_the_native_launcher"]
    assert [made["errors"] for made in (sound, wrong)] == [[], []]
    assert [(made["compiled"], made["loaded"], made["native"]) for made in (sound, wrong)] == [(0, 1, 1), (1, 0, 1)]
    assert sound["said"] == []
    (said,) = wrong["said"]
    assert said.startswith("kernels:it: its binary cannot be loaded")


CODES["after_its_first_launch_a_kernel_is_its_launcher"] = """
kernel = serve(every, Found(binaries=[binary(every, arguments)]))
made = []
launcher_cls = driver.launcher_cls
driver.launcher_cls = lambda *args: made.append(launcher_cls(*args)) or made[-1]
ready = launch_every()
answer([ready.run is made[0], len(made), ready is every.device_caches[0][0][binary(every, arguments).launch_key]])
"""


def test_after_its_first_launch_a_kernel_is_its_launcher(played: Any) -> None:
    got = played["after_its_first_launch_a_kernel_is_its_launcher"]
    assert got == [True, 1, True]


CODES["what_the_caller_did_wrong_is_told_as_triton_tells_it"] = """
kernel = serve(every, Found(binaries=[binary(every, arguments)]))
both.extend([RuntimeError("Triton's"), RuntimeError("ours")])
errors = [raised(launch_every)]
said_then = [*said]
both.append(ValueError("Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)"))
counter.compiled.clear(); counter.found = 0
errors += [raised(launch_every), raised(launch_every)]
answer(outcome(kernel, errors=errors))
"""


def test_what_the_caller_did_wrong_is_told_as_triton_tells_it(played: Any) -> None:
    """And is not held against the binary."""
    got = played["what_the_caller_did_wrong_is_told_as_triton_tells_it"]
    assert [error[:2] for error in got["errors"][:2]] == [
        ["RuntimeError", "Triton's"],
        ["ValueError", "Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)"],
    ]
    assert got["errors"][2] == []
    assert (got["said"], got["misses"], got["compiled"], got["loaded"]) == ([], [], 0, 1)


for fails in [False, True]:
    CODES[f"launch_hooks_see_one_launch {fails}"] = f"""
from triton import knobs
seen = []
enter, leave = (lambda data: seen.append(["enter", data.get()["name"]])), (lambda _: seen.append(["leave"]))
try:
    knobs.runtime.launch_enter_hook.add(enter); knobs.runtime.launch_exit_hook.add(leave)
except AttributeError:
    knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook = enter, leave
kernel = serve(every, Found(binaries=[binary(every, arguments)]))
fail.extend([RuntimeError("ours")] * {fails})
launch_every()
answer(outcome(kernel, seen=seen))
"""


@pytest.mark.parametrize("fails", [False, True])
def test_launch_hooks_see_one_launch(played: Any, fails: bool) -> None:
    got = played[f"launch_hooks_see_one_launch {fails}"]
    assert got["seen"] == [["enter", "every"], ["leave"]]
    assert (got["compiled"], got["launched"]) == (int(fails), 1)


CODES["what_a_launch_hook_raises_launches_nothing_again"] = """
from triton import knobs
def leave(_): raise RuntimeError("of the hook")
try:
    knobs.runtime.launch_exit_hook.add(leave)
except AttributeError:
    knobs.runtime.launch_exit_hook = leave
kernel = serve(every, Found(binaries=[binary(every, arguments)]))
answer(outcome(kernel, errors=raised(launch_every)))
"""


def test_what_a_launch_hook_raises_launches_nothing_again(played: Any) -> None:
    got = played["what_a_launch_hook_raises_launches_nothing_again"]
    assert got["errors"][:2] == ["RuntimeError", "of the hook"]
    assert (got["compiled"], got["launched"]) == (0, 1)


CODES["threads_whose_binary_or_choice_fails"] = """
kernel = serve(every, Found(binaries=[binary(every, arguments, signature=but(aligned="i32"))]))
first = outcome(kernel, errors=at_once(launch_every)), len(driver.launched)
kernel = serve(tuned, Found(choices=[choice({"BLOCK": 63})]))
answer([*first, outcome(kernel, errors=at_once(launch_tuned)), len(driver.launched)])
"""


def test_threads_whose_binary_or_choice_fails(played: Any) -> None:
    got = played["threads_whose_binary_or_choice_fails"]
    binary, launched, chosen, launched_tuned = got
    assert (binary["errors"], len(binary["said"]), launched) == ([], 1, 8)
    assert (chosen["errors"], launched_tuned, chosen["trial"]) == ([], 8, False)

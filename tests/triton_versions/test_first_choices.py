"""A choice that is wrong costs its key: what cannot be is not used, what can falls back to Triton."""

from typing import Any

import pytest
from playing import play

CODES: dict[str, str] = {}
"""What tests run, by their names."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return play(CODES, tmp_path_factory)


CHOICES = """
inf = float("inf")
cases = {
    "names an argument": dict(kwargs={"x": 1}),
    "unknown": dict(kwargs={"BLOCK": 64, "OTHER\\x1b": 1}),
    "lacks one": dict(kwargs={}),
    "words": dict(kwargs={"BLOCK": "64"}),
    "bool": dict(kwargs={"BLOCK": True}),
    "list": dict(kwargs=["BLOCK"]),
    "3 warps": dict(kwargs={"BLOCK": 64}, num_warps=3),
    "many warps": dict(kwargs={"BLOCK": 64}, num_warps=2**63 - 1),
    "64 warps": dict(kwargs={"BLOCK": 64}, num_warps=64),
    "warps in words": dict(kwargs={"BLOCK": 64}, num_warps="4"),
    "stages": dict(kwargs={"BLOCK": 64}, num_stages=-1),
    "ctas": dict(kwargs={"BLOCK": 64}, num_ctas=17),
    "registers": dict(kwargs={"BLOCK": 64}, maxnreg=0),
    "true warps": dict(kwargs={"BLOCK": 64}, num_warps=True),
    "key": dict(kwargs={"BLOCK": 64}, key=(4096, [1], *["torch.float32"] * 3)),
    "large key": dict(kwargs={"BLOCK": 64}, key=(10**400, False, *["torch.float32"] * 3)),
    "endless key": dict(kwargs={"BLOCK": 64}, key=(inf, False, *["torch.float32"] * 3)),
}
"""


CODES["choices_that_cannot_be"] = (
    CHOICES
    + """
good = choice({"BLOCK": 128}, (2048, False, *["torch.float32"] * 3))
got = {}
for name, fields in cases.items():
    for others in [], [good]:
        kernel = serve(tuned, Found(choices=[choice(**fields), *others]))
        got[f"{name} {len(others)}"] = outcome(kernel, errors=[raised(launch_tuned), raised(launch_tuned)])
answer(got)
"""
)


def test_choices_that_cannot_be(played: Any) -> None:
    """They are as if they were not there: those that can be stand in, else Triton tunes."""
    got = played["choices_that_cannot_be"]
    for name, made in got.items():
        assert made["errors"] == [[], []], name
        assert (made["launched"], made["chosen"], made["trial"]) == (2, 0, False)
        assert made["benchmarked"] == (2 if name.endswith("0") else 0), (name, made)
        dropped, *_ = made["said"]
        assert dropped.startswith("kernels:it: 1 of "), name
        assert not any("\x1b" in said for said in made["said"])
    assert "num_warps is 3, expected a power of two" in got["3 warps 0"]["said"][0]
    assert "one sets x, the provider's own set BLOCK" in got["names an argument 0"]["said"][0]


CODES["a_choice_that_can_be_and_cannot_be_launched"] = """
kernel = serve(tuned, Found(choices=[choice({"BLOCK": 63})]))
answer(outcome(kernel, errors=[raised(launch_tuned), raised(launch_tuned)]))
"""


def test_a_choice_that_can_be_and_cannot_be_launched(played: Any) -> None:
    got = played["a_choice_that_can_be_and_cannot_be_launched"]
    assert (got["errors"], got["launched"], got["benchmarked"]) == ([[], []], 2, 2)
    assert (got["chosen"], got["trial"]) == (0, False)
    assert len([said for said in got["said"] if "its choice cannot be launched: CompilationError" in said]) == 1


for policy in ["strict=True", "on_miss='error'"]:
    CODES[f"a_choice_that_cannot_be_launched_where_that_is_an_error {policy}"] = f"""
from triton.runtime.errors import OutOfResources
def failing(*args, **kwargs): raise OutOfResources(2, 1, "shared memory")
kernel = serve(tuned, Found(choices=[choice({{"BLOCK": 64}})]), {policy})
tuned.run = failing
answer(outcome(kernel, errors=raised(launch_tuned)))
"""


@pytest.mark.parametrize("policy", ["strict=True", "on_miss='error'"])
def test_a_choice_that_cannot_be_launched_where_that_is_an_error(played: Any, policy: str) -> None:
    got = played[f"a_choice_that_cannot_be_launched_where_that_is_an_error {policy}"]
    assert got["errors"][0] == "MissError"
    assert "its choice cannot be launched: OutOfResources" in got["errors"][1]
    assert got["errors"][2] == "OutOfResources"
    assert got["benchmarked"] == 0


CODES["a_call_that_is_wrong_is_told_as_triton_tells_it"] = """
def wrong(): kernels.tuned[lambda _: (1 // 0,)](kernels.STORAGE, kernels.STORAGE, kernels.STORAGE, 4096, WIDE=False)
got = []
for choices in [], [choice({"BLOCK": 64})]:
    kernel = serve(tuned, Found(choices=choices))
    got.append(raised(wrong))
launch_tuned()
answer([*got, outcome(kernel)])
"""


def test_a_call_that_is_wrong_is_told_as_triton_tells_it(played: Any) -> None:
    """And is not held against the choice."""
    plain, told, after = played["a_call_that_is_wrong_is_told_as_triton_tells_it"]
    assert plain == told
    assert told[0] == "ZeroDivisionError"
    assert not any("its choice" in said for said in after["said"])
    assert (after["chosen"], after["trial"]) == (1, False)


CODES["hooks_of_configurations_run_once_for_what_is_launched"] = """
from triton.runtime.errors import OutOfResources
seen, run = [], tuned.run
def hook(data): seen.append(data["BLOCK"])
for config in tuner.configs: config.pre_hook = hook
def picky(*args, **kwargs):
    if kwargs["BLOCK"] == 256: raise OutOfResources(2, 1, "shared memory")
    return run(*args, **kwargs)
tuned.run = picky
kernel = serve(tuned, Found(choices=[choice({"BLOCK": 256}, (2048, False, *["torch.float32"] * 3))]))
launch_tuned(); launch_tuned()
answer(outcome(kernel, seen=seen))
"""


def test_hooks_of_configurations_run_once_for_what_is_launched(played: Any) -> None:
    """The stand-in is dropped for an error of the device; the next configuration has a hook of its own."""
    got = played["hooks_of_configurations_run_once_for_what_is_launched"]
    assert got["seen"] == [256, 64, 64]
    assert (got["launched"], got["benchmarked"], got["trial"]) == (2, 0, False)


CODES["a_kernel_that_is_seeded_again"] = """
kernel = serve(tuned, Found(choices=[choice({"BLOCK": 63})]))
assert raised(lambda: kernels.tuned[lambda _: (1 // 0,)](*[kernels.STORAGE] * 3, 4096, WIDE=False))
again = ServedKernel(kernel._state, "kernels:it", tuned, tuner, kernel._state.found)
again.seed({})
answer(outcome(kernel, errors=[raised(launch_tuned), raised(launch_tuned)]))
"""


def test_a_kernel_that_is_seeded_again(played: Any) -> None:
    """As by a second ``install()``, while a choice waits for its first launch."""
    got = played["a_kernel_that_is_seeded_again"]
    assert (got["errors"], got["launched"], got["trial"]) == ([[], []], 2, False)


CODES["arguments_that_are_set_to_zero"] = """
zeroed = []
tuner.pre_hook = lambda args, reset_only=False: zeroed.append(reset_only)
kernel = serve(tuned, Found(choices=[choice({"BLOCK": 63})]))
launch_tuned(); launch_tuned()
answer(zeroed)
"""


def test_arguments_that_are_set_to_zero(played: Any) -> None:
    """Triton's own tuning, which follows a choice that fails, sets them as it always does."""
    got = played["arguments_that_are_set_to_zero"]
    assert got == [True]


CODES["too_many_choices_are_not_used"] = """
import sys, time
modulus, many = sys.hash_info.modulus, []
for number in range(4097):
    parts = (1 + number % 8 * modulus, 1 + number // 8 % 8 * modulus, 1 + number // 64 % 8 * modulus)
    many.append(choice({"BLOCK": 64}, (*parts, 1 + number // 512 * modulus)))
took = []
for number in 4096, 4097:
    kernel = serve(tuned, Found(choices=many[:number]))
    begun = time.process_time()
    launch_tuned()
    took.append(time.process_time() - begun)
answer(outcome(kernel, took=took))
"""


def test_too_many_choices_are_not_used(played: Any) -> None:
    got = played["too_many_choices_are_not_used"]
    assert isinstance(got, dict), got
    assert "4097 of 4097 choices" in got["said"][0]
    assert "they are more than 4096" in got["said"][0]
    assert got["benchmarked"] == 2
    assert got["took"][0] < 5


CODES["an_index_of_another_form"] = """
import hashlib
from gdn_aot.serving.seed import seed
from gdn_aot.store.index_records import KernelRecord
text = hashlib.sha256(triton_internals.source_text(every).encode()).hexdigest()
sound = KernelRecord("kernels", "every", text, [], [], [], [])
def broken(error):
    def kernels(): raise error
    return kernels
def nested(): return nested()
indices = {
    "too few fields": lambda: [KernelRecord("kernels")],
    "no list": lambda: [record for record in 7],
    "no records": lambda: [["kernels", "every"]],
    "nested": nested,
    "KeyError": broken(KeyError("x\\x1b[2J")),
    "MemoryError": broken(MemoryError()),
    "ValueError": broken(ValueError("x")),
}
records = {
    "qualname": sound._replace(qualname=5),
    "sources": sound._replace(sources=[7]),
    "dependencies": sound._replace(dependencies=None),
    "globals": sound._replace(globals=[("a", "b", "c")]),
    "text": sound._replace(source_sha256=["\\x1b"]),
    "nowhere": sound._replace(qualname="__dict__.\\x1b"),
}
got = {}
cases = {**indices, **{name: (lambda record=record: [record]) for name, record in records.items()}}
for name, kernels_of in cases.items():
    bad, good = Found(), Found(binaries=[binary(every, arguments)])
    state = serve(every, good)._state
    bad.index.kernels, good.index.kernels = kernels_of, lambda: [sound]
    state.found, state.active, state.checked = [bad, good], True, True
    seed(state, "kernels")
    launch_every()
    verdicts = [verdict.reason for verdict in state.verdicts]
    got[name] = outcome(state.kernels["kernels:every"], verdicts=verdicts, refused=state.refused)
unread = {"too few fields": lambda _: [ChoiceRecord(1)], "no list": lambda _: [record for record in 7]}
for name, choices_of in unread.items():
    bad, good = Found(), Found(choices=[choice({"BLOCK": 64})])
    bad.index.choices = choices_of
    kernel = serve(tuned, good)
    kernel._found = [bad, good]
    launch_tuned()
    got["choices: " + name] = outcome(kernel)
answer(got)
"""


def test_an_index_of_another_form(played: Any) -> None:
    """It costs its own artifact or its own kernel: what another artifact has is served."""
    got = played["an_index_of_another_form"]
    assert isinstance(got, dict), got
    assert len(got) == 15
    for name, made in got.items():
        if name.startswith("choices"):
            assert (made["chosen"], made["benchmarked"]) == (1, 0), name
        else:
            assert (made["compiled"], made["loaded"]) == (0, 1), (name, made)
            assert len(made["said"]) <= 1, name
        assert not any("\x1b" in text for text in (*made["said"], *made.get("verdicts", ())))
    assert "its index is damaged: TypeError: " in got["too few fields"]["verdicts"][0]

"""Ways of calling the operators beside those of transformers: each is served in strict mode, or listed as uncovered."""

from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import python
from launching import PRELUDE

_CALLS = """
install(strict=True)
become()
import math
import torch
from gdn_aot.errors import GdnAotError
from fla.ops.gated_delta_rule import chunk_gated_delta_rule as chunk, fused_recurrent_gated_delta_rule as recurrent

BF16, FP32 = torch.bfloat16, torch.float32
told = {}

def call(name, operator, batch, tokens, *, state=None, ends=None, index=torch.int64, final=True, heads=16,
         **more):
    made = inputs(tokens, batch, heads=heads)
    kinds = {key: more.pop(key) for key in ("g", "beta") if key in more}
    made |= {key: made[key].to(kind) for key, kind in kinds.items()}
    count = len(ends) - 1 if ends else batch
    driver.launched.clear()
    try:
        with torch.no_grad():
            operator(
                **made, use_qk_l2norm_in_kernel=True, output_final_state=final,
                initial_state=None if state is None else torch.empty(count, 32, 128, 128, dtype=state),
                cu_seqlens=torch.tensor(ends, dtype=index) if ends else None, **more,
            )
        told[name] = sum(math.prod(grid) > 0 for _, grid in driver.launched)
    except GdnAotError as error:
        told[name] = type(error).__name__

for index in (torch.int32, torch.int64):
    call(f"pack from a state, none back, {index}", chunk, 1, 90, state=FP32, final=False, ends=[0, 40, 90], index=index)
for heads in (16, 32):
    call(f"prompt, {heads} heads", chunk, 2, 90, heads=heads)
    call(f"step, {heads} heads", recurrent, 3, 1, state=FP32, heads=heads)
call("step without state", recurrent, 2, 1)
call("step, none back", recurrent, 2, 1, state=FP32, final=False)
call("step, neither", recurrent, 2, 1, final=False)
for name, more in {
    "scale 1": {"scale": 1}, "a float as scale": {"scale": 0.25}, "gate": {"g": BF16}, "state": {"state": BF16},
    "beta": {"beta": FP32},
}.items():
    call(f"prompt, {name}", chunk, 2, 90, **{"state": FP32, **more})
    call(f"step, {name}", recurrent, 2, 1, **{"state": FP32, **more})
    if name != "beta":
        call(f"pack, {name}", chunk, 1, 90, ends=[0, 40, 90], **{"state": FP32, **more})
call("everything at once", chunk, 1, 90, g=BF16, beta=FP32, state=BF16, scale=1)
call("no tokens", chunk, 2, 0)
call("no batch", chunk, 0, 90)
call("an empty pack", chunk, 1, 0, ends=[0, 0])
call("no pack", chunk, 1, 0, ends=[0])
call("no step", recurrent, 0, 1)
call("uncovered: scale 2", chunk, 1, 90, scale=2)
call("uncovered: pack with beta", chunk, 1, 90, ends=[0, 90], beta=FP32)
call("uncovered: prompt from a state of the model's type, none back", chunk, 1, 90, state=BF16, final=False)
call("uncovered: pack from such a state, none back", chunk, 1, 90, ends=[0, 40, 90], state=BF16, final=False)
call("uncovered: step from such a state, none back", recurrent, 2, 1, state=BF16, final=False)
for name, more in {"scale 1": {"scale": 1}, "gate": {"g": BF16}, "beta": {"beta": FP32}}.items():
    call(f"uncovered: step, {name}, none back", recurrent, 2, 1, state=FP32, final=False, **more)
    call(f"uncovered: step, {name}, without state", recurrent, 2, 1, **more)
    call(f"uncovered: step, {name}, neither", recurrent, 2, 1, final=False, **more)
call("uncovered: step, two at once", recurrent, 2, 1, state=FP32, g=BF16, beta=FP32)
done(told=told)
"""


@pytest.fixture(scope="module")
def told(sm_90: Built, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home: Path = tmp_path_factory.mktemp("home")
    got = python(PRELUDE + _CALLS, sm_90.path, home=home, extra={"TRITON_CACHE_DIR": str(home / "triton")})
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    return got["told"]


def test_calls_that_are_covered_launch_all_their_kernels(told: Any) -> None:
    named = ("prompt", "pack", "step", "everything")
    seen = {name: count for name, count in told.items() if name.startswith(named)}
    assert len(seen) == 24
    assert seen == {name: 1 if name.startswith("step") else 7 for name in seen}


def test_empty_calls_launch_nothing_and_miss_nothing(told: Any) -> None:
    assert {name: told[name] for name in ("no tokens", "no batch", "an empty pack", "no pack", "no step")} == {
        "no tokens": 1,  # the states, which are all zero, are written
        "no batch": 0,
        "an empty pack": 1,
        "no pack": 0,
        "no step": 0,
    }


def test_what_is_listed_as_uncovered_is(told: Any) -> None:
    uncovered = {name: answer for name, answer in told.items() if name.startswith("uncovered")}
    assert len(uncovered) == 15
    assert uncovered == dict.fromkeys(uncovered, "MissError")

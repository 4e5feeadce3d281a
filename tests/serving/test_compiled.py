"""Callers that ``torch.compile`` compiled: what Triton is asked for is served, what Inductor compiles is told."""

from pathlib import Path
from typing import Any

import pytest
from builds import Built
from copying import HUB, copy_fla
from helpers import ROOT, python
from launching import PRELUDE

CODE = """
import torch

def prepare(*targets):
    become(*targets)
    kept = torch.zeros(16, dtype=torch.uint8)  # where a real device keeps the state of its generator
    torch.cuda.get_rng_state, torch.cuda.set_rng_state = (lambda *_, **__: kept), (lambda *_, **__: None)
    properties = torch.cuda.get_device_properties(0)  # which Inductor's cache has in its keys
    properties.gcnArchName = ""

def step(given, state):
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule as operator
    out, last = operator(**given, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True)
    return out * 2, last

def chunk(given):
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule as operator
    return operator(**given, output_final_state=True, use_qk_l2norm_in_kernel=True)[0] * 2

def steps(function, batch=2, count=3):
    import fla.ops.gated_delta_rule
    state = torch.empty(batch, 32, 128, 128)
    with torch.no_grad():
        for _ in range(count):
            _, state = function(inputs(1, batch), state)
    return state
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Any:
    """Run code in a process of its own."""

    def compiled(code: str, built: Built) -> Any:
        caches = {
            "TRITON_CACHE_DIR": str(tmp_path / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        path = f"import sys; sys.path.insert(0, {str(ROOT / 'examples/compiled')!r})\n"
        return python(PRELUDE + path + CODE + code, built.path, home=tmp_path / "home", extra=caches)

    return compiled


def test_decode_steps(compiled: Any, decode: Built) -> None:
    """Dynamo names every option of the launch; the artifact has the key that FLA's own launch has."""
    got = compiled(
        """
install(strict=True); prepare("sm_120")
for backend in "eager", "aot_eager":
    steps(torch.compile(step, backend=backend, fullgraph=True))
    torch._dynamo.reset()
steps(step)
done()
""",
        decode,
    )
    assert got["compiled"] == []
    assert got["report"]["misses"] == []
    assert got["launched"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"] * 9
    assert got["report"]["modules"] == len(got["loaded"]) == 1


def test_prefill(compiled: Any, sm_90: Built) -> None:
    """FLA keeps its operator for prompts out of the graph, under any backend."""
    got = compiled(
        """
install(strict=True); prepare("sm_90")
with torch.no_grad():
    for backend in "eager", "aot_eager", "inductor":
        torch.compile(chunk, backend=backend)(inputs(300))
done()
""",
        sm_90,
    )
    assert (got["compiled"], got["benchmarked"], got["report"]["misses"]) == ([], 0, [])
    assert got["launched"].count("chunk_fwd_kernel_o") == 3


def test_options_that_are_not_the_default_are_another_launch(compiled: Any, decode: Built) -> None:
    """The kernel called with two warps from compiled code: no artifact has that."""
    got = compiled(
        """
install(); prepare("sm_120")
import fla.ops.gated_delta_rule.fused_recurrent as module
kernel = module.fused_recurrent_gated_delta_rule_fwd_kernel
class Wide:
    def __getitem__(self, grid):
        return lambda **given: kernel[grid](**{**given, "num_warps": 2})
module.fused_recurrent_gated_delta_rule_fwd_kernel = Wide()
steps(torch.compile(step, backend="eager"), count=1)
done()
""",
        decode,
    )
    assert len(got["compiled"]) == 1
    assert [miss["what"] for miss in got["report"]["misses"]] == ["binary"]


INDUCTOR = """
import logging
said = []
class Handler(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
logging.getLogger("gdn_aot").addHandler(Handler())
install({policy}); prepare("sm_120")
try:
    for _ in range(2):
        torch._dynamo.reset()
        try:
            steps(torch.compile(step, backend="inductor"), count=1)
        except Exception as error:  # without a device Inductor has nothing to compile for
            told = str(error)
finally:
    done(told=told, said=[text for text in said if "Inductor" in text])
"""


def test_what_inductor_compiles_itself_is_told_once(compiled: Any, decode: Built) -> None:
    got = compiled(INDUCTOR.format(policy=""), decode)
    (miss,) = got["report"]["misses"]
    assert (miss["what"], miss["answer"]) == ("binary", "inductor")
    assert "Inductor (torch.compile) compiles it itself" in miss["reason"]
    (said,) = got["said"]
    assert "docs/how-to/compiled.md" in said
    assert "MissError" not in got["told"]


def test_what_inductor_compiles_itself_is_an_error_in_strict_mode(compiled: Any, decode: Built) -> None:
    got = compiled(INDUCTOR.format(policy="strict=True"), decode)
    assert "MissError" in got["told"]
    assert "Inductor (torch.compile) compiles it itself" in got["told"]


DECODE = "ops/gated_delta_rule/fused_recurrent.py"
KERNEL = "fused_recurrent_gated_delta_rule_fwd_kernel"
CHANGED = {DECODE: ("        b_q = b_q * scale\n", "        b_q = (b_q) * scale\n")}


def _of_copy(code: str, root: str, folder: Path) -> str:
    """Return the code of `INDUCTOR` with the operator of another package."""
    called = CODE[CODE.index("def step(") : CODE.index("def chunk(")].replace("from fla.ops", f"from {root}.ops")
    return f"import sys; sys.path.insert(0, {str(folder)!r})\n{called}{code}"


@pytest.mark.parametrize("strict", [False, True])
def test_a_copy_that_differs_is_told_when_inductor_compiles_it(
    compiled: Any, decode: Built, tmp_path: Path, strict: bool
) -> None:
    copy_fla(tmp_path / HUB, edits=CHANGED)
    got = compiled(_of_copy(INDUCTOR.format(policy="strict=True" if strict else ""), HUB, tmp_path), decode)
    said = f"{HUB}.ops.gated_delta_rule.fused_recurrent:{KERNEL} is not served: the body of {KERNEL} is not the one"
    if strict:
        assert f"MissError: {said}" in got["told"]
        assert got["said"] == []
    else:
        (told,) = got["said"]
        assert told.startswith(said)
        assert "Inductor (torch.compile) compiles it" in told
        assert "--package" in told
        assert "MissError" not in got["told"]


@pytest.mark.parametrize("strict", [False, True])
def test_a_refused_kernel_of_the_provider_is_told_when_inductor_compiles_it(
    compiled: Any, decode: Built, tmp_path: Path, strict: bool
) -> None:
    """Another FLA than the artifact was built with."""
    copy_fla(tmp_path / "fla", edits=CHANGED)
    got = compiled(_of_copy(INDUCTOR.format(policy="strict=True" if strict else ""), "fla", tmp_path), decode)
    (miss,) = got["report"]["misses"]
    assert miss["kernel"].endswith(KERNEL)
    assert "fused_recurrent.py is not the file" in miss["reason"]
    assert miss["answer"] == ("error" if strict else "inductor")
    assert ("MissError" in got["told"]) == strict
    assert len(got["said"]) == (not strict)


def test_inductor_with_the_operator_of_the_example(compiled: Any, decode: Built) -> None:
    """Real code of Inductor around the operator: no break of the graph, and the launch is FLA's own."""
    got = compiled(
        """
install(strict=True); prepare("sm_120")
import decode as example
state = steps(torch.compile(step, backend="inductor", fullgraph=True))
done(shape=list(state.shape))
""",
        decode,
    )
    assert (got["compiled"], got["report"]["misses"]) == ([], [])
    assert got["launched"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"] * 3
    assert got["shape"] == [2, 32, 128, 128]


def test_inductor_with_the_function_left_out(compiled: Any, decode: Built) -> None:
    """One line, and a break of the graph at every layer."""
    got = compiled(
        """
install(strict=True); prepare("sm_120")
import fla.ops.gated_delta_rule.fused_recurrent as module
module.fused_recurrent_gated_delta_rule_fwd = torch.compiler.disable(module.fused_recurrent_gated_delta_rule_fwd)
steps(torch.compile(step, backend="inductor"))
done()
""",
        decode,
    )
    assert (got["compiled"], got["report"]["misses"]) == ([], [])
    assert got["launched"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"] * 3

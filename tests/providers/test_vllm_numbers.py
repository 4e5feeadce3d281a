"""What vLLM computes in Triton's interpreter, which needs no GPU: its layer against float64, its convolutions."""

import importlib.metadata
import importlib.util
from pathlib import Path

import cache_lines
import pytest
from helpers import SUPPORT, python

FOUND = importlib.util.find_spec("vllm") is not None
VERSION = importlib.metadata.version("vllm") if FOUND else ""
RELAXED_UP_TO = (0, 26)
INTERPRETED = {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}

pytestmark = pytest.mark.skipif(not FOUND, reason="vLLM is not installed here; make vllm runs this where it is")


@pytest.mark.skipif(VERSION != "0.24.0", reason="the interpreter cannot run the kernels of the other versions")
def test_the_layer_gives_what_the_float64_form_says(tmp_path: Path) -> None:
    """In Triton's interpreter, which runs vLLM's convolution and its sigmoid update, but not its other kernels."""
    program = Path(__file__).with_name("vllm_interpreted.py").read_text()
    got = python(program, SUPPORT, home=tmp_path, extra=INTERPRETED)
    assert {(row["layer"], row["kind"]) for row in got} == {
        (layer, kind) for layer in ("qwen3-next", "qwen3.5") for kind in ("decode", "speculative")
    }
    for row in got:
        assert row["wrong"] is None, row
        assert row["compared"] >= 3
        assert "state" in row["with another state"], "a wrong state is noticed"


@pytest.mark.skipif(
    FOUND and tuple(map(int, VERSION.split(".")[:2])) > RELAXED_UP_TO,
    reason="the number of cache lines is no constant in this version",
)
def test_convolutions_are_the_same_with_the_number_that_stands_for_all(tmp_path: Path) -> None:
    """In Triton's interpreter, with the least and the greatest number of pages."""
    cache_lines.check(cache_lines.rows_of(tmp_path, extra=INTERPRETED))

"""``preload``: what it says that the card has lost, on a card that is made up."""

from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import python
from launching import PRELUDE

CARD = """
install(); become("sm_120")
import contextlib, logging, torch
import gdn_aot.serving.preload as preload
MIB = 1 << 20
card = {"free": 80000 * MIB, "reserved": 300 * MIB}
class Handler(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
lines = []
logging.getLogger("gdn_aot").addHandler(Handler())
logging.getLogger("gdn_aot").setLevel(logging.INFO)

def lose(own, pool):
    card["free"] -= (own + pool) * MIB
    card["reserved"] += pool * MIB

def touch(rows, device):
    "Make the first launches: local memory, and a call of many tokens that PyTorch's pool grows by."
    assert driver.loaded, "modules come first"
    lose(3014, 240)

def told(device):
    assert device == 0
    return card["free"], 141000 * MIB

whole, preload._touch = preload._touch, touch
torch.cuda.device = lambda _: contextlib.nullcontext()
torch.cuda.synchronize = lambda *_: None
torch.cuda.mem_get_info = told
torch.cuda.memory_reserved = lambda _: card["reserved"]
"""


def _mib(taken: int) -> float:
    return taken / (1 << 20)


@pytest.fixture
def preloaded(decode: Built, tmp_path: Path) -> Any:
    """Run code on such a card, and preload; return what that gave, and what was said of it."""

    def preloaded(code: str = "") -> tuple[int, list[str]]:
        told = 'taken = gdn_aot.preload(model="qwen3.5-9b", tp=1)\ndone(taken=taken, lines=lines)'
        got = python(f"{PRELUDE}{CARD}\n{code}\n{told}", decode.path, home=tmp_path)
        assert type(got["taken"]) is int
        return got["taken"], [line for line in got["lines"] if "preload" in line or "free" in line]

    return preloaded


def test_what_the_first_launches_take_beside_pytorchs_own_memory(preloaded: Any) -> None:
    taken, lines = preloaded()
    assert _mib(taken) == 3014
    assert lines == ["preload took 3014.0 MiB of device 0 beside PyTorch's own memory"]


def test_memory_that_another_process_gives_back_is_no_gain(preloaded: Any) -> None:
    taken, lines = preloaded("lose = lambda own, pool: card.update(free=90000 * MIB)")
    assert taken == 0
    assert lines == ["preload took 0.0 MiB of device 0 beside PyTorch's own memory"]


@pytest.mark.parametrize("call", ["mem_get_info", "memory_reserved", "synchronize"])
def test_a_pytorch_that_cannot_tell_is_preloaded_all_the_same(preloaded: Any, call: str) -> None:
    taken, lines = preloaded(f"def broken(*_):\n    raise RuntimeError('no such thing')\ntorch.cuda.{call} = broken")
    assert taken == 0
    assert lines == ["how much memory is free is not known: RuntimeError: no such thing"]


CALLS = """
from types import SimpleNamespace
from gdn_aot import providers
providers.load = lambda _: SimpleNamespace(WORKLOADS=dict.fromkeys(preload._inference("fla"), Workload))
providers.makes = lambda *_: True
torch.random.fork_rng = lambda **_: contextlib.nullcontext()
torch.device = lambda *_: contextlib.nullcontext()
preload._touch = whole
"""
"""Has the calls made of a class ``Workload``."""


def test_a_call_for_which_the_card_is_full_is_left_out(preloaded: Any) -> None:
    _, lines = preloaded(
        """
class Workload:
    def warm(self, shape, tokens):
        yield from range(4)
    def run(self, shape, call):
        if call == 0:
            raise torch.cuda.OutOfMemoryError("no memory")
        if call == 2:
            raise RuntimeError("Triton Error [CUDA]: out of memory")
        lines.append(f"preload made call {call}")
"""
        + CALLS
    )
    kinds = [line for line in lines if "is full" in line]
    assert kinds
    assert lines[: 3 * len(kinds)] == [
        line for said in kinds for line in ("preload made call 1", "preload made call 3", said)
    ]
    assert all("2 calls" in said for said in kinds)


def test_memory_of_small_calls_is_given_back_and_that_of_large_ones_kept(preloaded: Any) -> None:
    """Small calls of 100 MiB each, of which nothing is reused, and one of 1000 MiB per kind of calls at last."""
    _, lines = preloaded(
        """
class Workload:
    def warm(self, shape, tokens):
        yield from [100] * 7
        if tokens:
            yield tokens
    def run(self, shape, call):
        card["reserved"] += call * MIB
        lines.append(f"preload {call}: {card['reserved'] // MIB}")
def empty_cache():
    card["reserved"] = 300 * MIB
torch.cuda.empty_cache = empty_cache
of = preload.preload
gdn_aot.preload = lambda **given: of(tokens=1000, **given)
rows = preload._rows
preload._rows = lambda *given: [*rows(*given)] * 2
"""
        + CALLS
    )
    small = [line for line in lines if line.startswith("preload 100:")]
    large = [line for line in lines if line.startswith("preload 1000:")]
    assert [line.split()[2] for line in small] == [str(400 + 100 * (number % 3)) for number in range(len(small))]
    assert small
    assert len(large) == len(small) // 7
    assert len(large) % 2 == 0, "of both rows"
    assert lines[len(small) : len(small) + len(large)] == large, "they come last"
    left = 300 + 100 * (len(small) % 3)
    assert [line.split()[2] for line in large] == [str(left + 1000 * number) for number in range(1, len(large) + 1)]


def test_an_allocator_that_cannot_tell_keeps_its_memory(preloaded: Any) -> None:
    _, lines = preloaded(
        """
class Workload:
    def warm(self, shape, tokens):
        yield 0
    def run(self, shape, call):
        lines.append("preload made it")
def broken(*_):
    raise RuntimeError("no such thing")
torch.cuda.memory_reserved = broken
torch.cuda.empty_cache = lambda: lines.append("preload gave back")
"""
        + CALLS
    )
    assert "preload made it" in lines
    assert "preload gave back" not in lines

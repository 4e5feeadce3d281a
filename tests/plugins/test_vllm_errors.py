"""What goes wrong in the plugin stays in it: vLLM goes on."""

from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.plugins import vllm, vllm_memory
from gdn_aot.serving import loader, log


class Odd(BaseException):
    """Not an `Exception`, and not what ends a process."""


HELD: list[BaseException] = [ValueError("x\x1b[2J\ny"), RecursionError(), MemoryError(), Odd(), ImportError("no")]
ENDS: list[BaseException] = [KeyboardInterrupt(), SystemExit(3), GeneratorExit()]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "warn", said.append)
    monkeypatch.setattr(log, "detail", lambda _: None)
    monkeypatch.setattr(vllm, "_registered", False)
    return said


def raising(error: BaseException) -> Any:
    def function(*_: object) -> None:
        raise error

    return function


@pytest.mark.parametrize("error", HELD, ids=repr)
def test_what_is_held_back(monkeypatch: pytest.MonkeyPatch, said: list[str], error: BaseException) -> None:
    monkeypatch.setattr(vllm, "_register", raising(error))
    vllm.register()
    monkeypatch.setattr(vllm_memory, "shape_of_worker", raising(error))
    vllm_memory.load(SimpleNamespace())
    assert [type(error).__name__ in message for message in said] == [True, True]
    assert all(message.isprintable() for message in said)


@pytest.mark.parametrize("error", ENDS, ids=repr)
def test_what_is_to_end_the_process(monkeypatch: pytest.MonkeyPatch, said: list[str], error: BaseException) -> None:
    monkeypatch.setattr(vllm, "_register", raising(error))
    with pytest.raises(type(error)):
        vllm.register()
    monkeypatch.setattr(vllm_memory, "shape_of_worker", raising(error))
    with pytest.raises(type(error)):
        vllm_memory.load(SimpleNamespace())
    assert said == []


def test_a_loader_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    import sys

    monkeypatch.delattr("gdn_aot.serving.loader")
    monkeypatch.setitem(sys.modules, "gdn_aot.serving.loader", None)  # type: ignore[arg-type]
    monkeypatch.setattr(log, "send_to", lambda _: None)
    vllm.register()
    (message,) = said
    assert message.startswith("nothing is served: ")
    assert loader is not None

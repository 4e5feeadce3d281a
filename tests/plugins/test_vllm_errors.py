"""What goes wrong in the plugin stays in it: vLLM goes on."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.plugins import vllm, vllm_memory, vllm_start
from gdn_aot.serving import loader, log, placing


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
    monkeypatch.delattr("gdn_aot.serving.loader")
    monkeypatch.setitem(sys.modules, "gdn_aot.serving.loader", None)  # type: ignore[arg-type]
    monkeypatch.setattr(log, "send_to", lambda _: None)
    vllm.register()
    (message,) = said
    assert message.startswith("nothing is served: ")
    assert loader is not None


@pytest.mark.parametrize("error", HELD, ids=repr)
def test_files_that_cannot_be_put_in_place(
    monkeypatch: pytest.MonkeyPatch, said: list[str], error: BaseException
) -> None:
    """vLLM inspects models itself: one line, and nothing of a cache that cannot be written."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__file__="/site/vllm/__init__.py"))
    monkeypatch.setitem(sys.modules, "vllm.envs", SimpleNamespace(VLLM_CACHE_ROOT="/cache"))
    monkeypatch.setattr(placing, "place", raising(error))
    index, header = SimpleNamespace(placed=list), {"distribution": "vllm", "placed": 1}
    artifact = SimpleNamespace(header=header, index=index, read_blob=None)
    vllm_start.place([artifact])
    assert [type(error).__name__ in message for message in said] == [True]
    monkeypatch.setattr(placing, "place", raising(PermissionError(13, "denied")))
    vllm_start.place([artifact])
    assert len(said) == 1


@pytest.mark.parametrize("header", [{"distribution": "vllm"}, {"distribution": "fla-core", "placed": 1}], ids=str)
def test_nothing_is_read_where_there_is_nothing_to_put(monkeypatch: pytest.MonkeyPatch, header: dict[str, Any]) -> None:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__file__="/site/vllm/__init__.py"))
    monkeypatch.setitem(sys.modules, "vllm.envs", SimpleNamespace(VLLM_CACHE_ROOT="/cache"))
    monkeypatch.setattr(placing, "place", raising(AssertionError("read")))
    vllm_start.place([SimpleNamespace(header=header)])


def test_nothing_is_put_in_place_on_amd(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    """There a class may be another one, of the same package."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__file__="/site/vllm/__init__.py"))
    monkeypatch.setitem(sys.modules, "vllm.envs", SimpleNamespace(VLLM_CACHE_ROOT="/cache"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(version=SimpleNamespace(hip="7.2")))
    vllm_start.place([SimpleNamespace(header={"distribution": "vllm", "placed": 1})])
    assert said == []

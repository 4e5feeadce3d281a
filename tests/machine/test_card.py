"""What is asked of nvidia-smi, with a program of that name that answers as a driver does."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gdn_aot.errors import UsageError
from gdn_aot.machine import card as device

H100 = "0, NVIDIA H100 80GB HBM3, 580.159.04, 9.0, 81559, {busy}, GPU-1a"
L4 = "1, NVIDIA L4, 580.159.04, 8.9, 23034, 0, GPU-2b"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put an ``nvidia-smi`` that prints these cards and processes first on the path."""

    def install(cards: list[str], processes: list[str] | None = None, *, code: int = 0) -> None:
        answers = {"gpu": "\n".join(cards), "apps": "\n".join(processes or [])}
        program = tmp_path / "nvidia-smi"
        program.write_text(
            f"#!/usr/bin/env python3\nimport sys\nanswers = {json.dumps(answers)}\n"
            "print(answers['apps' if 'compute-apps' in sys.argv[1] else 'gpu'])\n"
            f"sys.exit({code})\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def test_an_idle_card(smi: Callable[..., None]) -> None:
    smi([H100.format(busy=0), L4])
    card = device.probe()
    assert (card.name, card.driver, card.target.name) == ("NVIDIA H100 80GB HBM3", "580.159.04", "sm_90")
    assert card.memory == 81559 << 20
    assert card.warning() is None


def test_a_card_in_use_is_said(smi: Callable[..., None]) -> None:
    smi([H100.format(busy=0)], ["4711, /usr/bin/python3, 70000", f"{os.getpid()}, pytest, 12", "[N/A], x, [N/A]"])
    warning = device.probe().warning()
    assert warning == "the card is in use by python3 (pid 4711, 70000 MiB): times will be noisy"


def test_a_busy_card_without_known_processes_is_said(smi: Callable[..., None]) -> None:
    smi([H100.format(busy=97)])
    assert device.probe().warning() == "the card is 97 % busy: times will be noisy"


@pytest.mark.parametrize(
    ("visible", "target"), [("1,0", "sm_89"), ("GPU-2b", "sm_89"), ("0", "sm_90"), ("GPU-1", "sm_90")]
)
def test_the_first_visible_card_counts(
    smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str, target: str
) -> None:
    smi([H100.format(busy=0), L4])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.probe().target.name == target


@pytest.mark.parametrize("visible", ["", "7", "GPU-9"])
def test_no_visible_card_is_an_error(smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    smi([H100.format(busy=0)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UsageError, match="shows no card"):
        device.probe()


def test_a_driver_that_does_not_work_is_an_error(smi: Callable[..., None]) -> None:
    smi(["NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."], code=9)
    with pytest.raises(UsageError, match="couldn't communicate") as caught:
        device.probe()
    assert "--prepare" in caught.value.hint


def test_no_card_is_an_error(smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    smi([])
    with pytest.raises(UsageError, match="lists none"):
        device.probe()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="not installed"):
        device.probe()


def test_a_card_that_is_no_target_is_an_error(smi: Callable[..., None]) -> None:
    smi(["0, Tesla K80, 470.1, 3.7, 11441, 0, GPU-3c"])
    with pytest.raises(UsageError, match="sm_37"):
        device.probe()

"""A compile cache read from a machine's folder: what is packed, what is left out, and what is refused."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factory
import pytest
from factory import CACHE, HASH
from helpers import Done

from gdn_aot.artifact import cached
from gdn_aot.building import compile_cache
from gdn_aot.building.compile_cache import made_on, read_cache
from gdn_aot.errors import UsageError

FACTORS = "0123456789/rank_0_0/backbone/cache_key_factors.json"


class SystemInfo:
    """As PyTorch's, of the same name and with the same fields in the same order."""

    def __init__(self, torch: object = "2.11.0+cu130", card: str | None = "NVIDIA H200") -> None:
        self.python_version = "3.12.3"
        self.torch_version = torch
        self.toolkit_version = "13.0"
        self.triton_version = (3, 6)
        self.gpu_name = card


class Version(str):
    """A string of a class of its own, as PyTorch's version is."""

    __slots__ = ()


def compiled(info: object, protocol: int = 5) -> bytes:
    """Return what PyTorch writes of a compiled function, as far as it is looked at."""
    return pickle.dumps({"names": ("gpu_name", "torch_version"), "system_info": info, "more": "text"}, protocol)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / cached.FOLDER
    for path, data in CACHE.items():
        write(folder / path, data)
    return folder


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_every_file_is_read(folder: Path) -> None:
    read = read_cache(folder)
    expected, pieces = factory.make_cache(CACHE)
    assert read.record == expected
    assert read.pieces == pieces
    assert read.size == sum(map(len, CACHE.values()))


def test_what_processes_leave_that_write_is_left_out(folder: Path) -> None:
    for name in (".123.456.tmp", "0123456789/.tmp/x", "0123456789/locks/x.lock", f"{HASH}/inductor_cache/.x"):
        write(folder / name, b"half")
    assert read_cache(folder).record == factory.make_cache(CACHE)[0]


def test_the_machine_that_made_it(folder: Path) -> None:
    write(folder / f"{HASH}/rank_0_0/model", compiled(SystemInfo()))
    env = {"VLLM_CONFIG_ROOT": "/root/.config/vllm", "VLLM_X": "relative", "VLLM_N": 3, "CUDA_HOME": "/usr/local/cuda"}
    import json

    write(folder / FACTORS, json.dumps({"env": env, "code_hash": "0"}).encode())
    record = read_cache(folder).record
    assert (record.torch, record.python, record.card) == ("2.11.0+cu130", "3.12.3", "NVIDIA H200")
    assert record.environment == (("VLLM_CONFIG_ROOT", "/root/.config/vllm"),)
    other = FACTORS.replace("0123456789", "9876543210")
    write(folder / other, json.dumps({"env": {**env, "VLLM_CONFIG_ROOT": "/y"}}).encode())
    assert read_cache(folder).record.environment == ()


@pytest.mark.parametrize("protocol", [4, 5])  # what Python writes unless it is told otherwise
@pytest.mark.parametrize("version", ["2.11.0+cu130", Version("2.11.0+cu130")], ids=type)
def test_what_pytorch_says_of_a_machine(version: str, protocol: int) -> None:
    found = made_on(compiled(SystemInfo(version), protocol))
    assert (found["torch_version"], found["python_version"], found["gpu_name"]) == (version, "3.12.3", "NVIDIA H200")
    assert made_on(compiled(SystemInfo(version, None), protocol))["gpu_name"] == ""


def test_pytorch_s_own(tmp_path: Path) -> None:
    """The class and its pickle are those of the installed PyTorch."""
    import platform

    import torch
    from torch._dynamo.package import SystemInfo as Own

    found = made_on(compiled(Own.current()))
    assert (found["torch_version"], found["python_version"]) == (torch.__version__, platform.python_version())
    assert found["gpu_name"] == ""


class Harmful:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\x80\x05h\xff.",
        compiled(SystemInfo())[:-40],
        pickle.dumps(Harmful()),
        b"\x80\x05" + 99 * b"\x94",
    ],
)
def test_pickles_are_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(folder.parent)
    write(folder / f"{HASH}/rank_0_0/model", content)
    assert read_cache(folder).record.card == ""
    assert not Path("harm").exists()


def test_files_of_the_key_that_are_none(folder: Path) -> None:
    for content in (b"", b"[]", b"{}", b'{"env": 3}', b'{"env": {"VLLM_X": ["/x"]}}', 10000 * b"["):
        write(folder / FACTORS, content)
        assert read_cache(folder).record.environment == ()


def linked(folder: Path) -> None:
    (folder / "0123456789/link").symlink_to("/etc/hostname")


def linked_folder(folder: Path) -> None:
    (folder / "linked").symlink_to(folder / "0123456789")


def piped(folder: Path) -> None:
    os.mkfifo(folder / "0123456789/pipe")


def several(folder: Path) -> None:
    for number, card in enumerate(("NVIDIA H100", "NVIDIA H200")):
        write(folder / f"torch_aot_compile/{number}/rank_0_0/model", compiled(SystemInfo(card=card)))


def emptied(folder: Path) -> None:
    folder.rename(folder.with_name("full"))
    folder.mkdir()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (linked, "link is neither a regular file nor a folder"),
        (linked_folder, "linked is neither a regular file nor a folder"),
        (piped, "pipe is neither"),
        (several, "several GPUs: NVIDIA H100, NVIDIA H200"),
        (emptied, "has nothing that vLLM compiled"),
        (lambda folder: write(folder / "0123456789/a b", b"x"), "a b is no file that vLLM puts there"),
        (lambda folder: write(folder / "0123456789/a\x1b[2J", b"x"), "is no file that vLLM puts there"),
        (lambda folder: write(folder / "loose.py", b"x"), "loose.py is no file that vLLM puts there"),
        (lambda folder: write(folder / "torch_aot_compile/model", b"x"), "is no file that vLLM puts there"),
        (lambda folder: write(folder / cached.FOLDER / "0/x", b"x"), "but has it in torch_compile_cache"),
    ],
)
def test_what_is_refused(folder: Path, change: Callable[[Path], None], what: str) -> None:
    change(folder)
    with pytest.raises(UsageError) as caught:
        read_cache(folder)
    assert what in caught.value.message
    assert caught.value.message.isprintable()


def test_more_than_an_artifact_may_have(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "MAX_BYTES", cached.PIECE)
    with pytest.raises(UsageError, match=f"has more than {cached.PIECE} bytes"):
        read_cache(folder)
    monkeypatch.setattr(compile_cache, "MAX_FILES", 3)
    with pytest.raises(UsageError, match="more than 3 files"):
        read_cache(folder)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--model", "qwen3.5-9b", "--arch", "sm_90"), "not for provider fla"),
        (("--only", "fla0.6.0-triton3.6.0-sm_90"), "--compile-cache cannot stand beside --only"),
        (("--provider", "vllm", "--model", "qwen3.5-9b", "--arch", "sm_90"), "a compile cache is of one deployment"),
        (
            ("--provider", "vllm", "--model", "qwen3.5-9b", "--deployment", "card=NVIDIA L4"),
            "was made on NVIDIA H200, and the deployment is on NVIDIA L4",
        ),
    ],
    ids=["provider", "row", "alone", "card"],
)
def test_options_that_it_needs(folder: Path, command: Callable[..., Done], options: tuple[str, ...], what: str) -> None:
    write(folder / f"{HASH}/rank_0_0/model", compiled(SystemInfo()))
    done = command("build", *options, "--compile-cache", folder, code=2)
    assert what in done.err

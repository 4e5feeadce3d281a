"""Input and surroundings that a build refuses: exit code, one hint, no traceback, and the same as JSON."""

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import pytest
from commands import refused
from helpers import gdn_aot

from gdn_aot.machine import installed

_GOOD = ("--arch", "sm_90", "--model", "qwen3.5-9b", "--workload", "transformers-decode")
_DECODE = ("--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-decode")


@pytest.fixture
def refuse(tmp_path: Path) -> Any:
    """Run a build that must be refused; check both forms of the error and return the JSON one."""

    def refuse(*arguments: object, code: int, kind: str, output: object = None) -> dict[str, str]:
        line, home = ("build", *arguments, "-o", output or tmp_path / "out"), tmp_path / "home"
        plain = gdn_aot(*line, home=home, code=code)
        assert plain.out == ""
        assert sum(text.startswith("Hint: ") for text in plain.err.splitlines()) == 1
        error = refused(*line, home=home, code=code, kind=kind)
        assert not list(tmp_path.rglob("*.tar.zst"))
        return error

    return refuse


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--arch", "sm_12", "--model", "qwen3.5-9b"), "unknown target 'sm_12'", "did you mean sm_12"),
        (("--arch", "native", "--model", "qwen3.5-9b"), "explicit target", "--arch sm_90"),
        (("--model", "qwen3.5-9b"), "no target given", "--arch sm_90"),
        (("--arch", "sm_90"), "no model given", "--model"),
        (("--arch", "sm_90", "--model", "qwen3.5-99b"), "unknown model 'qwen3.5-99b'", "did you mean qwen3.5-9b"),
        ((*_GOOD, "--provider", "fla2"), "unknown provider 'fla2'", "did you mean fla?"),
        ((*_GOOD, "--provider", "zzz"), "unknown provider 'zzz'", "gdn-aot providers"),
        ((*_GOOD, "--tp", "0"), "--tp: 0 is not positive", "1,2,4,8"),
        ((*_GOOD, "--dtype", "fp8"), "unknown dtype 'fp8'", "use bf16, fp16 or fp32"),
        ((*_GOOD, "--workload", "nope"), "matches 'nope'", "transformers-prefill"),
        ((*_GOOD, "--workload", "*-train"), "no inference workload", "transformers-prefill"),
        ((*_GOOD, "--max-tokens", "0"), "--max-tokens", "--help"),
        ((*_GOOD, "--jobs", "0"), "--jobs", "--help"),
        ((*_GOOD, "--timeout", "0"), "--timeout", "--help"),
        (("--arch", "sm_90", "--shape", "head=1"), "unknown key 'head'", "did you mean heads?"),
    ],
)
def test_usage(refuse: Any, arguments: tuple[str, ...], message: str, hint: str) -> None:
    error = refuse(*arguments, code=2, kind="usage")
    assert message in error["message"]
    assert hint in error["hint"]


def test_nothing_selected(refuse: Any) -> None:
    error = refuse("--arch", "sm_90", "--model", "olmo-hybrid-7b", "--tp", "4", code=3, kind="nothing-selected")
    assert "which 4 does not divide" in error["message"]
    error = refuse(*_GOOD, "--exclude-workload", "transformers-*", code=3, kind="nothing-selected")
    assert "excluded" in error["message"]


def test_provider_not_installed(refuse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = installed.version
    monkeypatch.setattr(installed, "version", lambda name: None if name == "fla-core" else real(name))
    error = refuse(*_GOOD, code=2, kind="provider-missing")
    assert "fla-core, which is not installed" in error["message"]
    assert "pip install" in error["hint"]


@pytest.mark.parametrize("version", ["3.5.1", "4.0.0", "3.10.0", "3.5.0+git12", None])
def test_unsupported_triton(refuse: Any, monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    real = installed.version
    monkeypatch.setattr(installed, "version", lambda name: version if name == "triton" else real(name))
    error = refuse(*_GOOD, code=2, kind="unsupported-triton" if version else "toolchain-missing")
    assert (f"Triton {version}" if version else "not installed") in error["message"]
    assert ("3.6" if version else "gdn-aot[build]") in error["hint"]


def test_output_that_cannot_be_written(refuse: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refuse(*_GOOD, code=9, kind="not-writable", output=tmp_path / "file" / "out")
    assert "Not a directory" in error["message"]
    error = refuse(*_GOOD, code=9, kind="not-writable", output=tmp_path / "file")
    assert str(tmp_path / "file") in error["message"]
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("file", ["home", "home/build/cubins"])
def test_build_cache_that_cannot_be_written(tmp_path: Path, file: str) -> None:
    """Not at all, or once the trace is stored, for the first compiled kernel: the same error, not failed kernels."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    extra = {"GDN_AOT_HOME": str(tmp_path / "home")}
    error = refused("build", *_GOOD, "-o", tmp_path / "out", home=tmp_path, extra=extra, code=9, kind="not-writable")
    assert "GDN_AOT_HOME" in error["hint"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_while_packing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    gdn_aot("build", *_DECODE, "-o", out, home=tmp_path)
    (old,) = out.iterdir()
    before = old.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    error = refused("build", *_DECODE, "-o", out, home=tmp_path, code=9, kind="not-writable")
    assert "No space left on device" in error["message"]
    assert list(out.iterdir()) == [old]
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ('{"format": 9, "target": "", "provider": {}}', "format: 9 is not a known format version")],
)
def test_a_bad_tuning_record(refuse: Any, tmp_path: Path, text: str, message: str) -> None:
    version = importlib.metadata.version("fla-core")
    path = tmp_path / "records" / "sm_90" / f"fla-core-{version}.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    error = refuse(*_GOOD, "--tuning", tmp_path / "records", code=2, kind="usage")
    assert message in error["message"]
    assert str(path) in error["message"]


def test_a_tuning_directory_that_is_not_there(refuse: Any, tmp_path: Path) -> None:
    error = refuse(*_GOOD, "--tuning", tmp_path / "none", code=2, kind="usage")
    assert "is not a directory" in error["message"]

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import factory
import msgspec
import pytest

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.manifest_json import to_json
from gdn_aot.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path


def run_json(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, Any]:
    code = run(args)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, json.loads(captured.out)


def broken(path: Path) -> Path:
    value = factory.plain()
    value["kernels"][1]["choices"][0]["config"]["num_warps"] = "4"
    value["mode"] = "both"
    parts = factory.members()
    path.write_bytes(factory.pack([factory.member("manifest.json", factory.dump(value)), *parts[1:]]))
    return path


PROBLEMS = [
    {"where": "mode", "what": "expected inference or train, got 'both'"},
    {"where": "kernels[1].choices[0].config.num_warps", "what": "expected int, got str"},
]


def test_verify_sound(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = sound.read_bytes()
    code, document = run_json(capsys, "verify", "--json", str(sound))
    assert code == 0
    about = {"path": str(sound), "sha256": factory.sha256(data), "size": len(data)}
    assert document == {"ok": True, "problems": [], **about}
    assert run(["verify", str(sound)]) == 0
    assert factory.sha256(data) in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_every_problem_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = broken(tmp_path / "a.tar.zst")
    code, document = run_json(capsys, command, "--json", str(path))
    assert code == 5
    if command == "verify":
        assert document["ok"] is False
        assert document["problems"] == PROBLEMS
        assert document["size"] == path.stat().st_size
    else:
        assert document["error"]["problems"] == PROBLEMS
    assert document["error"]["code"] == "verification"
    assert document["error"]["message"].endswith("is not a sound artifact: 2 problems")
    assert document["error"]["hint"]
    assert run([command, str(path)]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    for problem in PROBLEMS:
        assert f"{problem['where']}: {problem['what']}" in captured.err


def test_unknown_format_is_its_own_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(factory.pack([factory.member("manifest.json", b'{"format":2}')]))
    for command in ("verify", "inspect"):
        code, document = run_json(capsys, command, "--json", str(path))
        assert (code, document["error"]["code"]) == (5, "unknown-format")
        assert "upgrade gdn-aot" in document["error"]["hint"]


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_paths_that_are_not_files(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "none"):
        code, document = run_json(capsys, command, "--json", str(path))
        assert (code, document["error"]["code"]) == (2, "usage")


def test_inspect_json_is_the_manifest_with_sizes(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run_json(capsys, "inspect", "--json", str(sound))
    assert code == 0
    assert document.pop("sizes") == {
        "file": sound.stat().st_size,
        "uncompressed": len(factory.unpack(sound.read_bytes())),
        "manifest": len(to_json(factory.full_manifest())),
        "blobs": sum(map(len, factory.make_blobs().values())),
    }
    manifest = factory.full_manifest()
    kernels = document["kernels"]
    assert [kernel["choices"][0]["config"]["kwargs"] for kernel in kernels] == [{"BK": 64, "BV": 128}] * 2
    for choice in (choice for kernel in kernels for choice in kernel["choices"]):
        choice["config"]["kwargs"] = list(choice["config"]["kwargs"].items())
    assert msgspec.convert(document, m.Manifest) == manifest


def test_inspect_for_people(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(sound)]) == 0
    text = capsys.readouterr().out
    for expected in (
        "fla0.6.0-triton3.6.0-sm_120",
        "fla-core 0.6.0",
        "MIT",
        "ptxas 12.9.86",
        "qwen3.5-9b",
        "chunk_fwd_kernel_o",
        "1 default, 1 measured",
        "fla.ops.x:y (1 autotune keys): needs 98304 bytes",
        f"{sound.stat().st_size} bytes",
    ):
        assert expected in text


def test_inspect_escapes_what_a_terminal_would_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = factory.plain()
    value["numerics"]["detail"] = "\x1b[2J\r\u202e"
    parts = factory.members(factory.dump(value))
    path = tmp_path / "a.tar.zst"
    path.write_bytes(factory.pack(parts))
    assert run(["inspect", str(path)]) == 0
    assert "numerics    not run \\x1b[2J\\r\\u202e\n" in capsys.readouterr().out

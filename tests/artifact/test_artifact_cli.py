from collections.abc import Callable
from pathlib import Path

import factory
import msgspec
import pytest
from helpers import Done

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.manifest_json import to_json

Command = Callable[..., Done]


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


def test_verify_sound(sound: Path, command: Command) -> None:
    data = sound.read_bytes()
    about = {"path": str(sound), "sha256": factory.sha256(data), "size": len(data)}
    assert command("verify", "--json", sound).json == {"ok": True, "problems": [], **about}
    assert factory.sha256(data) in command("verify", sound).out


@pytest.mark.parametrize("name", ["verify", "inspect"])
def test_every_problem_is_named(name: str, tmp_path: Path, command: Command) -> None:
    path = broken(tmp_path / "a.tar.zst")
    document = command(name, "--json", path, code=5).json
    assert document["error"]["code"] == "verification"
    assert document["error"]["message"].endswith("is not a sound artifact: 2 problems")
    assert document["error"]["problems"] == PROBLEMS
    assert document["error"]["hint"]
    if name == "verify":
        assert document["ok"] is False
        assert document["problems"] == PROBLEMS
        assert document["size"] == path.stat().st_size
    done = command(name, path, code=5)
    assert done.out == ""
    for problem in PROBLEMS:
        assert f"{problem['where']}: {problem['what']}" in done.err


@pytest.mark.parametrize("name", ["verify", "inspect"])
def test_errors_of_their_own(name: str, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(factory.pack([factory.member("manifest.json", b'{"format":2}')]))
    error = command(name, "--json", path, code=5).json["error"]
    assert error["code"] == "unknown-format"
    assert "upgrade gdn-aot" in error["hint"]
    for path in (tmp_path, tmp_path / "none"):
        assert command(name, "--json", path, code=2).json["error"]["code"] == "usage"


def test_inspect_json_is_the_manifest_with_sizes(sound: Path, command: Command) -> None:
    document = command("inspect", "--json", sound).json
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


def test_inspect_for_people(sound: Path, command: Command) -> None:
    text = command("inspect", sound).out
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


def test_inspect_escapes_what_a_terminal_would_obey(tmp_path: Path, command: Command) -> None:
    value = factory.plain()
    value["numerics"]["detail"] = "\x1b[2J\r\u202e"
    path = tmp_path / "a.tar.zst"
    path.write_bytes(factory.pack(factory.members(factory.dump(value))))
    assert "numerics    not run \\x1b[2J\\r\\u202e\n" in command("inspect", path).out

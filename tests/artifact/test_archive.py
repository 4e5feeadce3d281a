import errno
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import factory
import msgspec
import pytest
from helpers import Done
from hypothesis import given, settings
from msgspec.structs import replace
from strategies import contents

from gdn_aot.artifact import archive, container
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.manifest_json import to_json
from gdn_aot.artifact.verify import examine, open_artifact
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.errors import NotWritableError, UsageError, VerificationError
from gdn_aot.providers import uncovered


@settings(max_examples=60)
@given(contents())
def test_pack_then_read_is_identity(content: tuple[m.Manifest, dict[str, bytes]]) -> None:
    manifest, blobs = content
    with tempfile.TemporaryDirectory() as directory:
        written = write_artifact(manifest, blobs, Path(directory) / "a.tar.zst")
        assert not examine(written.path).problems
        artifact = open_artifact(written.path)
        assert replace(artifact.manifest, blobs=()) == manifest
        assert dict(artifact.iter_blobs()) == blobs
        assert all(artifact.read_blob(digest) == data for digest, data in blobs.items())
        data = written.path.read_bytes()
        assert (written.size, written.sha256) == (len(data), factory.sha256(data))
        assert (artifact.size, artifact.sha256) == (len(data), factory.sha256(data))


def test_same_bytes_elsewhere_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = factory.write(tmp_path).read_bytes()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.chdir(tmp_path)
    os.umask(os.umask(0o077))
    blobs = dict(reversed(factory.make_blobs().items()))
    second = write_artifact(factory.make_manifest(), blobs, Path("new/dir/other.tar.zst")).path
    assert second.read_bytes() == first


def test_layout(sound: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(factory.unpack(sound.read_bytes()))) as archive_file:
        members = archive_file.getmembers()
        names = ["manifest.json", *(f"blobs/{digest}" for digest in factory.make_blobs())]
        assert [member.name for member in members] == names
        for member in members:
            assert member.isreg()
            found = (member.mode, member.uid, member.gid, member.uname, member.gname, member.mtime)
            assert found == (0o644, 0, 0, "", "", 0)
        data = archive_file.extractfile("manifest.json")
        assert data is not None
        assert data.read() == to_json(factory.full_manifest())


@pytest.mark.skipif(not (shutil.which("zstd") and shutil.which("tar")), reason="no zstd or tar here")
def test_ordinary_tools_unpack_it(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        ["tar", "--zstd", "-xf", str(sound), "-C", str(out)], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert (out / "manifest.json").read_bytes() == to_json(factory.full_manifest())
    for digest, data in factory.make_blobs().items():
        assert (out / "blobs" / digest).read_bytes() == data
    assert subprocess.run(["zstd", "-q", "-t", str(sound)], check=False).returncode == 0


def test_trailer_is_the_digest_of_all_before_it(sound: Path) -> None:
    data = sound.read_bytes()
    assert data[-39:-32] == b"gdn-aot"
    assert data[-32:] == hashlib.sha256(data[:-47]).digest()


def test_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert archive.epoch_from_environment() == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    assert archive.epoch_from_environment() == 1790000000
    for bad in ("", "-1", "1.5", "now", "99999999999", "9" * 5000, "\u0661"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", bad)
        with pytest.raises(UsageError):
            archive.epoch_from_environment()


def test_what_does_not_belong_together_is_not_written(tmp_path: Path) -> None:
    manifest, blobs = factory.make_manifest(), factory.make_blobs()
    digest = next(iter(blobs))
    for wrong in (
        {**blobs, factory.sha256(b"more"): b"more"},
        {key: value for key, value in blobs.items() if key != digest},
        {**blobs, digest: b"other"},
    ):
        with pytest.raises(VerificationError):
            write_artifact(manifest, wrong, tmp_path / "a.tar.zst")
    with pytest.raises(VerificationError):
        write_artifact(replace(manifest, identifier="x"), blobs, tmp_path / "a.tar.zst")
    assert list(tmp_path.iterdir()) == []


class FullDisk(io.BytesIO):
    """A file on a disk with no space left; small writes succeed and the rest fails."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("keep", [False, True])
def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    path = tmp_path / "a.tar.zst"
    if keep:
        path.write_bytes(b"what was there before")

    def open_full(file: int, mode: str) -> Any:
        assert mode == "wb"
        os.close(file)
        return nullcontext(FullDisk())

    monkeypatch.setattr(os, "fdopen", open_full)
    with pytest.raises(NotWritableError, match="No space left") as caught:
        factory.write(path)
    assert caught.value.exit_code == 9
    assert list(tmp_path.iterdir()) == ([path] if keep else [])
    assert not keep or path.read_bytes() == b"what was there before"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_device_fails_on_the_real_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def open_full(file: int, mode: str) -> Any:
        assert mode == "wb"
        assert Path(f"/proc/self/fd/{file}").readlink().parent == tmp_path
        os.close(file)
        return Path("/dev/full").open("wb", buffering=0)

    monkeypatch.setattr(os, "fdopen", open_full)
    with pytest.raises(NotWritableError, match="No space left"):
        factory.write(tmp_path)


def test_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        factory.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [128 << 20, 1000])
def test_file_that_changes_after_verification(sound: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """What is in memory is what was verified, whether or not blobs are kept decompressed."""
    monkeypatch.setattr("gdn_aot.artifact.verify._KEPT", kept)
    artifact, lazy = open_artifact(sound), open_artifact(sound, lazy=True)
    sound.write_bytes(b"")
    for _ in range(2):
        assert dict(artifact.iter_blobs()) == dict(lazy.iter_blobs()) == factory.make_blobs()
    with pytest.raises(KeyError):
        artifact.read_blob("0" * 64)


def test_blobs_that_are_checked_as_they_are_read(tmp_path: Path) -> None:
    parts, path = factory.members(), tmp_path / "a"
    first, *_ = factory.make_blobs()
    for broken in ([*parts[:2], parts[2][:600] + b"x" + parts[2][601:], *parts[3:]], [*parts[:2], parts[3], parts[2]]):
        path.write_bytes(factory.pack(broken))
        with pytest.raises(VerificationError):
            open_artifact(path)
        read: list[tuple[str, bytes]] = []
        with pytest.raises(VerificationError, match="is not a sound artifact"):
            read.extend(open_artifact(path, lazy=True).iter_blobs())
        assert [sha256 for sha256, _ in read] == [first]
    path.write_bytes(factory.pack([*parts, parts[1]]))
    with pytest.raises(VerificationError, match="is not a sound artifact"):
        open_artifact(path, lazy=True)


def test_accepting_comes_first(tmp_path: Path) -> None:
    def refuse(*found: object) -> None:
        raise NotWritableError(str(found))

    (tmp_path / "a").write_bytes(b"no artifact")
    with pytest.raises(NotWritableError, match=factory.sha256(b"no artifact")):
        open_artifact(tmp_path / "a", refuse)


def test_a_frame_gives_no_more_than_it_is_asked_for() -> None:
    size = 200 << 20
    body = container.compressor(size).compress(bytes(size))
    frame = container.Frame(memoryview(body))
    assert (frame.content_size, frame.leftover) == (size, 0)
    assert frame.read(10) == bytes(10)
    assert container.Frame(memoryview(body + b"more")).leftover == 4


# The commands


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
    fla = PROVIDERS["fla"]
    of_its_models = [name for name in fla.on_request if "gdn" in fla.families_of([name])]
    assert document.pop("on_request") == of_its_models
    assert len(of_its_models) < len(fla.on_request), "none of another family"
    assert document.pop("uncovered") == [list(call) for call in uncovered("fla")]
    assert document.pop("cost")["code"] == sum(map(len, factory.CUBINS))
    assert set(document.pop("expected_error")) == {"default", "measured"}
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

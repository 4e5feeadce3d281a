"""The build cache: what is put is got, and what is damaged is never used."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import zstandard
from jobs import make_job
from traces import make_kernel

from gdn_aot.building import pipeline
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache, default_cache, digest, launch_digest
from gdn_aot.errors import NotWritableError, VerificationError
from gdn_aot.launches import CompiledKernel, Outcome, Specialization
from gdn_aot.tracing.records import UNUSABLE, Trace

OBJECT, LAUNCH, TRACE, OTHER = (letter * 64 for letter in "abcd")
DEEP = b'{"x":' * 100_000
METADATA = {"shared": 4096, "num_warps": 4, "name": "kernel"}


@pytest.fixture
def cache(tmp_path: Path) -> BuildCache:
    return BuildCache(tmp_path / "cache")


def _fill(cache: BuildCache) -> CompiledKernel:
    made = cache.put_object(OBJECT, b"\x7fELF cubin", dict(METADATA), registers=64, local=8)
    cache.put_launch(LAUNCH, object_key=OBJECT)
    return made


def _only(cache: BuildCache, kind: str) -> Path:
    (path,) = (path for path in (cache.root / kind).rglob("*") if path.is_file())
    return path


def test_round_trip(cache: BuildCache) -> None:
    made = _fill(cache)
    assert cache.launch(LAUNCH) == Outcome(object=made)
    assert cache.object(OBJECT) == made
    assert cache.cubin(made.cubin) == b"\x7fELF cubin"
    assert (made.shared, made.threads, made.registers, made.local) == (4096, 128, 64, 8)
    cache.put_trace(TRACE, b"{}" * 1000)
    assert cache.trace(TRACE) == b"{}" * 1000
    cache.put_launch(OTHER, rejected="needs too much")
    assert cache.launch(OTHER) == Outcome(rejected="needs too much")
    assert not [path for path in cache.root.rglob("*") if path.name.startswith(".tmp")]


def test_a_file_has_its_name_and_no_other_when_it_is_whole(cache: BuildCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compile worker may be killed at any moment: what is not whole yet must not stay."""
    seen: list[list[str]] = []

    def link(source: str, name: str, *, dst_dir_fd: int) -> None:
        seen.append(os.listdir(dst_dir_fd))
        seen.append([Path(source).read_text()])
        real(source, name, dst_dir_fd=dst_dir_fd)

    real = os.link
    monkeypatch.setattr(os, "link", link)
    cache.put_cubin(OTHER, b"cubin")
    assert seen == [[], ["cubin"]]
    assert [path.name for path in (cache.root / "cubins" / OTHER[:2]).iterdir()] == [OTHER]
    cache.put_cubin(OTHER, b"cubin")
    assert len(seen) == 2, "it is there: nothing is written"


def test_a_file_system_without_unnamed_files_is_written_all_the_same(
    cache: BuildCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *arguments: Any, **more: Any) -> int:
        if path == ".":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, *arguments, **more)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    assert cache.launch(LAUNCH) is None
    made = _fill(cache)
    assert cache.launch(LAUNCH) == Outcome(object=made)


def test_an_empty_cache_knows_nothing(cache: BuildCache) -> None:
    assert cache.trace(TRACE) is None
    assert cache.launch(LAUNCH) is None
    assert cache.object(OBJECT) is None
    with pytest.raises(OSError, match=OTHER):
        cache.cubin(OTHER)


@pytest.mark.parametrize("kind", ["cubins", "objects"])
def test_a_launch_that_lacks_a_file_is_a_miss(cache: BuildCache, kind: str) -> None:
    _fill(cache)
    _only(cache, kind).unlink()
    assert cache.object(OBJECT) is None
    assert cache.launch(LAUNCH) is None


def test_a_changed_cubin_is_refused_and_then_a_miss(cache: BuildCache) -> None:
    made = _fill(cache)
    _only(cache, "cubins").write_bytes(b"\x7fELF cubim")
    with pytest.raises(VerificationError, match="changed on disk"):
        cache.cubin(made.cubin)
    assert cache.launch(LAUNCH) is None


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"object": 3}', b'{"cubin": "x"}', DEEP])
@pytest.mark.parametrize("kind", ["launches", "objects"])
def test_a_damaged_record_is_a_miss(cache: BuildCache, kind: str, bad: bytes) -> None:
    _fill(cache)
    _only(cache, kind).write_bytes(bad)
    assert cache.launch(LAUNCH) is None


@pytest.mark.parametrize("bad", [b"", b"garbage", None], ids=["empty", "garbage", "truncated"])
def test_a_damaged_trace_is_a_miss(cache: BuildCache, bad: bytes | None) -> None:
    cache.put_trace(TRACE, os.urandom(1000))
    path = _only(cache, "traces")
    path.write_bytes(path.read_bytes()[:-100] if bad is None else bad)
    assert cache.trace(TRACE) is None


_BOMB = zstandard.compress(bytes(200 << 20))
_UNSAID = zstandard.ZstdCompressor(write_content_size=False).compress(b"{}")


@pytest.mark.parametrize("bad", [_BOMB, _UNSAID, zstandard.compress(b"\xff") + b"more"], ids=["bomb", "unsaid", "more"])
def test_what_expands_without_bounds_is_a_miss(cache: BuildCache, bad: bytes) -> None:
    made = _fill(cache)
    cache.put_trace(TRACE, b"{}")
    cache.put_ptx(made.cubin, ".version")
    for kind in ("traces", "ptx"):
        _only(cache, kind).write_bytes(bad)
    assert cache.trace(TRACE) is None
    with pytest.raises(VerificationError, match="is not in the build cache"):
        cache.ptx(made.cubin)
    assert not cache.has_ptx(made.cubin), "so that building again makes it"


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _huge(path: Path) -> None:
    os.truncate(path, 200 << 20)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("replace", [_fifo, _link, _huge])
def test_what_is_no_plain_file_of_some_size_is_a_miss_and_replaced(
    cache: BuildCache, replace: Callable[[Path], None]
) -> None:
    made = _fill(cache)
    cache.put_trace(TRACE, b"{}")
    cache.put_ptx(made.cubin, ".version")
    paths = {kind: _only(cache, kind) for kind in ("cubins", "ptx", "traces", "objects", "launches")}
    for path in paths.values():
        replace(path)
    assert cache.trace(TRACE) is None
    assert cache.launch(LAUNCH) is None
    assert not cache.has_cubin(made.cubin)
    assert not cache.has_ptx(made.cubin)
    with pytest.raises(OSError, match=made.cubin):
        cache.cubin(made.cubin)
    with pytest.raises(VerificationError, match="is not in the build cache"):
        cache.ptx(made.cubin)
    _fill(cache)
    assert cache.launch(LAUNCH) == Outcome(object=made)
    assert all(paths[kind].is_file() and not paths[kind].is_symlink() for kind in ("cubins", "objects", "launches"))


@pytest.mark.parametrize("key", ["", "k", "../../../x", "a" * 63, "A" * 64, OBJECT + "\n", "a\0", f"/{OBJECT}"])
def test_a_key_is_a_digest_and_no_path(cache: BuildCache, key: str, tmp_path: Path) -> None:
    put: tuple[Callable[[str], object], ...] = (
        cache.trace, cache.launch, cache.object, cache.cubin, cache.ptx, cache.has_cubin, cache.has_ptx,
        lambda key: cache.put_trace(key, b""), lambda key: cache.put_launch(key, rejected="x"),
        lambda key: cache.put_cubin(key, b""), lambda key: cache.put_ptx(key, ""),
        lambda key: cache.put_object(key, b"", {}, 1, 1), lambda key: cache.put_launch(OTHER, object_key=key),
    )  # fmt: skip
    for function in put:
        with pytest.raises(ValueError, match="is not the key"):
            function(key)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_launch_that_names_a_path_is_a_miss(cache: BuildCache, tmp_path: Path) -> None:
    _fill(cache)
    (tmp_path / "object").write_bytes(_only(cache, "objects").read_bytes())
    _only(cache, "launches").write_bytes(json.dumps({"object": str(tmp_path / "object")}).encode())
    assert cache.launch(LAUNCH) is None


@pytest.mark.parametrize("depth", [0, 1])
def test_no_link_is_written_or_removed_through(cache: BuildCache, tmp_path: Path, depth: int) -> None:
    made = _fill(cache)
    folder = _only(cache, "cubins").parents[1 - depth]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (place,) = (path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file())
    place.write_bytes(b"theirs")
    with pytest.raises(NotWritableError, match=f"{folder}: is a symbolic link") as caught:
        cache.put_cubin(made.cubin, b"ours")
    assert "remove the link" in caught.value.hint
    with pytest.raises(VerificationError, match="changed on disk"):
        cache.cubin(made.cubin)
    assert place.read_bytes() == b"theirs"


def test_the_cache_as_a_whole_may_be_elsewhere_and_the_umask_counts(cache: BuildCache, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    cache.root.symlink_to(tmp_path / "elsewhere")
    before = os.umask(0o027)
    try:
        made = _fill(cache)
    finally:
        os.umask(before)
    assert cache.launch(LAUNCH) == Outcome(object=made)
    path = _only(cache, "objects")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o640, 0o750)


def test_a_full_disk_leaves_no_temporary_file(cache: BuildCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **_options: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NotWritableError, match="No space left on device"):
        _fill(cache)
    assert not [path for path in cache.root.rglob("*") if path.is_file()]


def test_launch_keys_depend_on_everything() -> None:
    kernel = make_kernel("k")
    compiler = {"target": "sm_90", "triton": "3.6.0", "ptxas": "12.9"}
    first, other = (Specialization({"x": kind}, (), (), {}) for kind in ("i32", "i64"))
    keys = [
        launch_digest(kernel, first, compiler),
        launch_digest(kernel, other, compiler),
        launch_digest(make_kernel("k", "ac" * 32), first, compiler),
        *(launch_digest(kernel, first, {**compiler, name: "other"}) for name in compiler),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == launch_digest(kernel, first, dict(reversed(compiler.items())))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDN_AOT_HOME", str(tmp_path))
    assert default_cache().root == tmp_path / "build"
    monkeypatch.delenv("GDN_AOT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache().root == tmp_path / "xdg" / "gdn-aot" / "build"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache().root == tmp_path / "home" / ".cache" / "gdn-aot" / "build"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        (f"{UNUSABLE}: ModuleNotFoundError: No module named 'cpuinfo'", False),
        ("its source differs from the recorded one", True),
    ],
)
def test_a_trace_is_kept_unless_more_could_be_imported_another_time(
    cache: BuildCache, reason: str, *, kept: bool
) -> None:
    job = make_job(cache.root, cache.root)
    trace = Trace(provider_version="1", triton_version="2", ptxas_version="3", left_out=[("m:k", reason)])
    made = []

    class Worker:
        def trace(self, *args: object, **options: object) -> bytes:
            made.append((args, options))
            return trace.to_json()

    for _ in range(2):
        assert pipeline.traced(job, get_target("sm_90"), cast("Any", Worker)) == trace
    assert len(made) == (1 if kept else 2)
    if kept:
        path = _only(cache, "traces")
        for bad in (b"[]", b"{", b'{"launches": 3}', DEEP):
            cache.put_trace(path.name, bad)
            assert pipeline.traced(job, get_target("sm_90"), cast("Any", Worker)) == trace
        assert len(made) == 5

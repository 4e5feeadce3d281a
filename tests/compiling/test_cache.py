"""The build cache: what is put is got, and what is damaged is never used."""

import os
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from jobs import make_job
from traces import make_kernel

from gdn_aot.building import pipeline
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache, default_cache, digest, launch_digest
from gdn_aot.errors import NotWritableError
from gdn_aot.launches import CompiledKernel, Outcome, Specialization
from gdn_aot.tracing.records import UNUSABLE, Trace

METADATA = {"shared": 4096, "num_warps": 4, "name": "kernel"}


@pytest.fixture
def cache(tmp_path: Path) -> BuildCache:
    return BuildCache(tmp_path / "cache")


def _fill(cache: BuildCache) -> CompiledKernel:
    made = cache.put_object("object-key", b"\x7fELF cubin", dict(METADATA), registers=64, local=8)
    cache.put_launch("launch-key", object_key="object-key")
    return made


def _only(cache: BuildCache, kind: str) -> Path:
    (path,) = (path for path in (cache.root / kind).rglob("*") if path.is_file())
    return path


def test_round_trip(cache: BuildCache) -> None:
    made = _fill(cache)
    assert cache.launch("launch-key") == Outcome(object=made)
    assert cache.object("object-key") == made
    assert cache.cubin(made.cubin) == b"\x7fELF cubin"
    assert (made.shared, made.threads, made.registers, made.local) == (4096, 128, 64, 8)
    cache.put_trace("trace-key", b"{}" * 1000)
    assert cache.trace("trace-key") == b"{}" * 1000
    cache.put_launch("other", rejected="needs too much")
    assert cache.launch("other") == Outcome(rejected="needs too much")
    assert not [path for path in cache.root.rglob("*") if path.name.startswith(".tmp")]


def test_an_empty_cache_knows_nothing(cache: BuildCache) -> None:
    assert cache.trace("k") is None
    assert cache.launch("k") is None
    assert cache.object("k") is None
    with pytest.raises(OSError, match="k"):
        cache.cubin("k")


@pytest.mark.parametrize("kind", ["cubins", "objects"])
def test_a_launch_that_lacks_a_file_is_a_miss(cache: BuildCache, kind: str) -> None:
    _fill(cache)
    _only(cache, kind).unlink()
    assert cache.object("object-key") is None
    assert cache.launch("launch-key") is None


def test_a_changed_cubin_is_refused_and_then_a_miss(cache: BuildCache) -> None:
    made = _fill(cache)
    _only(cache, "cubins").write_bytes(b"\x7fELF cubim")
    with pytest.raises(ValueError, match="changed on disk"):
        cache.cubin(made.cubin)
    assert cache.launch("launch-key") is None


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"object": 3}', b'{"cubin": "x"}'])
@pytest.mark.parametrize("kind", ["launches", "objects"])
def test_a_damaged_record_is_a_miss(cache: BuildCache, kind: str, bad: bytes) -> None:
    _fill(cache)
    _only(cache, kind).write_bytes(bad)
    assert cache.launch("launch-key") is None


@pytest.mark.parametrize("bad", [b"", b"garbage", None], ids=["empty", "garbage", "truncated"])
def test_a_damaged_trace_is_a_miss(cache: BuildCache, bad: bytes | None) -> None:
    cache.put_trace("k", os.urandom(1000))
    path = _only(cache, "traces")
    path.write_bytes(path.read_bytes()[:-100] if bad is None else bad)
    assert cache.trace("k") is None


def test_a_full_disk_leaves_no_temporary_file(cache: BuildCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: object, _destination: object) -> NoReturn:
        raise OSError(28, "No space left on device")

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

"""``gdn-aot seed``: what it writes is found by plain FLA in a process of its own, and it does no harm to a cache.

In that process Triton itself computes every key and reads the directory. Only the card is a stand-in: the stub driver,
with binaries that load and launch to nothing.
"""

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import factory
import pytest
from builds import Built
from commands import contents, refused
from helpers import NO_BYTECODE, ROOT, expect_error, gdn_aot, python, run
from msgspec.structs import replace

from gdn_aot.artifact import archive, names
from gdn_aot.artifact import manifest as manifests
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.building import seed
from gdn_aot.catalogue.targets import get_target
from gdn_aot.machine import installed
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.triton_internals.disk_cache import Place, cubin_name, group_name, group_text, keeps_choice

Refuse = Callable[..., dict[str, str]]
_SERVE = (ROOT / "examples" / "plain_calls.py").read_text(encoding="utf-8")


def _seed(built: Built, into: object, home: Path, **options: Any) -> dict[str, Any]:
    document: dict[str, Any] = gdn_aot("seed", built.path, "--into", into, "--json", home=home, **options).json
    return document


@pytest.fixture
def refuse(decode: Built, tmp_path: Path) -> Refuse:
    """Seed what must be refused; return the error."""

    def refuse(path: Path = decode.path, *, into: object = tmp_path / "cache", **options: Any) -> dict[str, str]:
        error = refused("seed", path, "--into", into, home=tmp_path / "home", **options)
        assert not (tmp_path / "cache").exists()
        return error

    return refuse


@pytest.fixture(scope="session")
def cache(decode: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the smallest artifact in it, not to be changed."""
    root = tmp_path_factory.mktemp("cache")
    _seed(decode, root, tmp_path_factory.mktemp("home"))
    return root


@pytest.fixture
def copy(cache: Path, tmp_path: Path) -> Path:
    """A copy of the cache with the paths of the copy in its lists."""
    root = tmp_path / "copy"
    shutil.copytree(cache, root)
    for group in root.rglob("__grp__*"):
        group.write_text(group_text(str(root), _place(group)))
    return root


def _place(group: Path) -> Place:
    """Return the place of an entry from the path of its list."""
    return Place(directory=group.parent.name, name=group.name.removeprefix("__grp__"))


@pytest.mark.parametrize(("name", "populated"), [("sm_120", False), ("sm_90", True)])
def test_plain_fla_compiles_and_measures_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, *, populated: bool
) -> None:
    built: Built = request.getfixturevalue(name)
    root = tmp_path / "cache"
    if populated:  # somebody else's entry
        (root / "OTHER").mkdir(parents=True)
        (root / "OTHER" / "kernel.json").write_text("{}")
    done = _seed(built, root, tmp_path)
    (skipped,) = done["skipped"]
    assert skipped["reason"] == "one binary serves every B: only the loader can use it", "batches of several prompts"
    assert done["written"] == done["binaries"] + done["choices"]
    assert done["choices"] > sum(len(kernel.choices) for kernel in built.manifest.kernels), "also between powers of two"
    before = contents(root)
    served = python(_SERVE, built.manifest.target.name, "bf16", home=tmp_path, extra={"TRITON_CACHE_DIR": str(root)})
    assert served["misses"] == []
    assert served["benchmarks"] == []
    # It is worth something only if many kernels were launched, from many files.
    assert served["own"] >= 60
    assert served["launches"] >= 300
    assert len(served["kernels"]) >= 7
    assert served["hits"] >= served["binaries"] >= 20
    assert contents(root) == before, "Triton had to write"


def test_the_environment_of_the_shell_counts(sm_90: Built, tmp_path: Path) -> None:
    """The same process with other variables misses, so the proof above can fail."""
    root = tmp_path / "cache"
    line_info = {"TRITON_DISABLE_LINE_INFO": "1"}
    done = _seed(sm_90, root, tmp_path, extra=line_info)
    where = {"TRITON_CACHE_DIR": str(root)}
    served = python(_SERVE, "sm_90", "bf16", home=tmp_path, extra={**where, **line_info})
    assert (served["misses"], served["benchmarks"]) == ([], [])
    missed = run([sys.executable, "-c", _SERVE, "sm_90", "bf16"], tmp_path, where)
    assert missed.code != 0
    assert "there is nothing to measure with" in missed.err
    assert _seed(sm_90, root, tmp_path)["written"] == done["written"], "the keys of a plain environment are others"


def test_again_writes_nothing(decode: Built, copy: Path, tmp_path: Path) -> None:
    before = contents(copy)
    times = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    again = _seed(decode, copy, tmp_path)
    assert again["written"] == 0
    assert again["kept"] == again["binaries"] > 0
    assert {"path", "binaries", "choices", "written", "kept", "skipped", "seconds"} == set(again)
    assert again["path"] == str(copy)
    assert contents(copy) == before
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == times
    plain = gdn_aot("seed", decode.path, "--into", copy, home=tmp_path)
    assert plain.out == f"{copy}: {again['binaries']} binaries and 0 choices; 0 written, {again['kept']} kept\n"


def test_paths_are_absolute_and_modes_follow_the_umask(decode: Built, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    script = f'umask 027; exec {sys.executable} -m gdn_aot seed "$0" --into some/cache'
    done = run(["/bin/sh", "-c", script, str(decode.path)], tmp_path, cwd=work)
    assert done.code == 0, done.err
    root = work / "some" / "cache"
    groups = list(root.rglob("__grp__*"))
    assert groups
    for group in groups:
        place = _place(group)
        assert {path.name for path in group.parent.iterdir()} == {group_name(place), cubin_name(place), place.name}
        for name, path in json.loads(group.read_bytes())["child_paths"].items():
            assert path == str(group.parent / name)
            assert Path(path).is_file()
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()} == {0o640}
    assert {path.stat().st_mode & 0o777 for path in (root, *root.iterdir())} == {0o750}


def test_eight_processes_at_once(decode: Built, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: _seed(decode, root, tmp_path, process=True), range(8)))
    assert all(one["written"] + one["kept"] == one["binaries"] for one in done)
    assert sum(one["written"] for one in done) >= done[0]["binaries"]
    found = {name: data.replace(os.fsencode(root), os.fsencode(cache)) for name, data in contents(root).items()}
    assert found == contents(cache), "no more files, none less, all whole"


def _entry(root: Path) -> tuple[Place, Path]:
    """Return the first binary of a cache and the list of its files."""
    group = min(root.rglob("__grp__*"))
    return _place(group), group


_DAMAGE = ("cubin cut", "cubin gone", "metadata cut", "metadata of another", "list cut", "list gone", "list empty")


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_broken_entry_is_repaired(copy: Path, damage: str) -> None:
    before = contents(copy)
    place, group = _entry(copy)
    cubin, metadata = group.parent / cubin_name(place), group.parent / place.name
    code, text = cubin.read_bytes(), metadata.read_text()
    match damage:
        case "cubin cut":
            cubin.write_bytes(code[:-100])
        case "cubin gone":
            cubin.unlink()
        case "metadata cut":
            metadata.write_text(text[:50])
        case "metadata of another":
            metadata.write_text(json.dumps({**json.loads(text), "hash": "0" * 64}))
        case "list cut":
            group.write_bytes(group.read_bytes()[:20])
        case "list gone":
            group.unlink()
        case _:
            group.write_text('{"child_paths": {}}')
    writer = seed._Writer(copy)
    writer.binary(place, text, code)
    writer.binary(place, text, code)
    assert (writer.written, writer.kept) == (1, 1)
    assert contents(copy) == before


def test_only_what_is_broken_is_written(decode: Built, copy: Path, tmp_path: Path) -> None:
    """An entry that Triton itself wrote has line information and more files; other entries have other names."""
    before = contents(copy)
    place, group = _entry(copy)
    (group.parent / cubin_name(place)).write_bytes(b"")
    foreign = max(copy.rglob("__grp__*"))
    cubin, ptx = next(foreign.parent.glob("*.cubin")), foreign.parent / "kernel.ptx"
    cubin.write_bytes(cubin.read_bytes() + b"lines")
    ptx.write_text(".version 8.8")
    paths = {**json.loads(foreign.read_bytes())["child_paths"], ptx.name: str(ptx)}
    foreign.write_text(json.dumps({"child_paths": paths}, indent=1))
    (copy / "OTHER").mkdir()
    (copy / "OTHER" / "notes").write_bytes(b"\x00\xff")
    (copy / "loose").write_text("x")
    theirs = {name: data for name, data in contents(copy).items() if place.directory not in name}
    assert _seed(decode, copy, tmp_path)["written"] == 1
    assert contents(copy) == {**before, **theirs}


def test_which_choices_stay() -> None:
    seeded = json.dumps({"key": [1], "configs_timings": [[{"kwargs": {"B": 1}, "num_warps": 2}, [0.0, 0.0, 0.0]]]})
    measured = seeded.replace("[0.0, 0.0, 0.0]", "[0.1, 0.1, 0.2]")
    other = seeded.replace('"num_warps": 2', '"num_warps": 4')
    assert keeps_choice(seeded.encode(), seeded)
    assert keeps_choice(measured.encode(), seeded), "somebody measured on the card itself"
    assert not keeps_choice(other.encode(), seeded), "seeded from another artifact"
    for broken in ("", "{", "[]", "{}", '{"configs_timings": []}', '{"configs_timings": [[1, 2]]}', measured[:-9]):
        assert not keeps_choice(broken.encode(), seeded)


@pytest.mark.parametrize("where", ["file", "below a file", "/proc/gdn-aot"])
def test_a_place_that_cannot_be_written(refuse: Refuse, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("mine")
    into = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}.get(where, where)
    error = refuse(into=into, code=9, kind="not-writable")
    assert str(into) in error["message"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_no_half_written_file(decode: Built, tmp_path: Path) -> None:
    """A limit on the size of a file is what a full disk is: writing stops in the middle."""
    root = tmp_path / "cache"
    script = f'ulimit -f 16; exec {sys.executable} -m gdn_aot seed "$0" --into "$1" --json'
    done = run(["/bin/sh", "-c", script, str(decode.path), str(root)], tmp_path, NO_BYTECODE)
    expect_error(done, 9, "not-writable")
    assert contents(root) == {}


def test_a_read_only_cache_that_has_all_is_fine(decode: Built, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, not even to see whether it could be."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(seed._Writer, "_put", refuse)
    done = seed.seed(open_artifact(decode.path), cache)
    assert (done.written, done.kept) == (0, done.binaries)


def test_a_corrupted_artifact(refuse: Refuse, decode: Built, tmp_path: Path) -> None:
    data = bytearray(decode.path.read_bytes())
    data[len(data) // 2] ^= 1
    broken = tmp_path / "broken.tar.zst"
    broken.write_bytes(data)
    refuse(broken, code=5, kind="verification")


def test_other_versions_are_refused(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version", lambda _: "3.7.0")
    assert "installed is 3.7.0" in refuse(code=2, kind="usage")["message"]
    monkeypatch.undo()
    monkeypatch.setattr(seed, "assembler_version", lambda _: "13.1.2")
    assert "Triton would use 13.1.2" in refuse(code=2, kind="usage")["message"]


@pytest.mark.parametrize("name", ["TRITON_INTERPRET", "TRITON_ALWAYS_COMPILE", "DISABLE_PTXAS_OPT", "PTXAS_OPTIONS"])
def test_an_environment_that_compiles_other_code_is_refused(refuse: Refuse, name: str) -> None:
    assert name in refuse(code=2, kind="usage", extra={name: "1"})["message"]


def test_options_of_the_environment_are_compared(refuse: Refuse) -> None:
    """What no list of variables knows shows in the options: here assertions, which change the code."""
    error = refuse(code=4, kind="no-artifact", extra={"TRITON_DEBUG": "1"})
    assert "debug=True here, False in the artifact" in error["message"]


def _changed(built: Built, path: Path, **changes: Any) -> Path:
    """Write an artifact whose first kernel has other fields."""
    artifact = open_artifact(built.path)
    first, *rest = artifact.manifest.kernels
    manifest = replace(artifact.manifest, kernels=(replace(first, **changes), *rest), blobs=())
    archive.write_artifact(manifest, dict(artifact.iter_blobs()), path)
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"cache_key": "0" * 64}, "source differs"), ({"qualname": "no_such_kernel"}, "no_such_kernel")],
)
def test_nothing_fits(refuse: Refuse, decode: Built, tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    path = _changed(decode, tmp_path / "all.tar.zst", **changes)
    assert reason in refuse(path, code=4, kind="no-artifact")["message"]


def test_a_kernel_with_another_source_is_left_out(sm_90: Built, tmp_path: Path) -> None:
    path = _changed(sm_90, tmp_path / "one.tar.zst", cache_key="0" * 64)
    first, *rest = sm_90.manifest.kernels
    done = gdn_aot("seed", path, "--into", tmp_path / "cache", "--json", home=tmp_path)
    name = f"{first.module}:{first.qualname}"
    (row,) = (row for row in done.json["skipped"] if row["kernel"] == name)
    assert row["reason"] == "the kernel's source differs from the artifact's"
    assert (row["binaries"], row["choices"]) == (len(first.binaries), len(first.choices))
    assert done.json["choices"] > sum(len(kernel.choices) for kernel in rest) > 0
    assert f"Warning: {row['kernel']}" in done.err


# Of several artifacts, and of what fits in the store


def for_arch(content: bytes, arch: int) -> bytes:
    """A cubin of sm_120 that says it is for another architecture of its layout; other content as it is."""
    if not content.startswith(b"\x7fELF"):
        return content
    (flags,) = struct.unpack_from("<I", content, 48)
    return content[:48] + struct.pack("<I", flags & ~0xFF00 | arch << 8) + content[52:]


@pytest.fixture
def store(decode: Built, tmp_path: Path) -> list[Path]:
    """A store with the artifact, one of another identifier with the same content, and one for another Triton."""
    artifact = open_artifact(decode.path)
    blobs = {digest: bytes(content) for digest, content in artifact.iter_blobs()}
    found = []
    for target, triton in (("sm_120", artifact.manifest.triton.version), ("sm_121", artifact.manifest.triton.version),
                           ("sm_120", "3.1.0")):  # fmt: skip
        row, plain = get_target(target), artifact.manifest
        arch = int(target.removeprefix("sm_"))
        moved = {digest: for_arch(content, arch) for digest, content in blobs.items()}
        manifest = replace(
            plain,
            identifier=names.make_identifier(plain.provider.name, plain.provider.version, triton, target),
            target=manifests.GPU(name=row.name, capability=row.capability, warp_size=32, max_shared=row.max_shared),
            triton=replace(plain.triton, version=triton),
            kernels=tuple(
                replace(
                    kernel,
                    binaries=tuple(
                        replace(
                            binary,
                            metadata={
                                **binary.metadata,
                                "arch": f"sm{arch}",
                                "target": {**binary.metadata["target"], "arch": arch},
                            },
                            cubin=factory.sha256(moved[binary.cubin]),
                        )
                        for binary in kernel.binaries
                    ),
                )
                for kernel in plain.kernels
            ),
            blobs=(),
        )
        moved_blobs = {factory.sha256(content): content for content in moved.values()}
        path = archive.write_artifact(manifest, moved_blobs, tmp_path / names.file_name(manifest.identifier)).path
        found.append(Path(install(Store(str(tmp_path / "home")), open_artifact(path)).place))
    return found


def test_without_a_file_what_fits_in_the_store_is_seeded(store: list[Path], tmp_path: Path) -> None:
    home, into = tmp_path / "home", tmp_path / "cache"
    done = gdn_aot("seed", "--into", into, "--json", home=home).json
    names = [item["identifier"] for item in done["artifacts"]]
    assert sorted(names) == sorted(StoredArtifact(str(place)).manifest.identifier for place in store[:2])
    for name in ("binaries", "choices", "written", "kept"):
        assert done[name] == sum(item[name] for item in done["artifacts"])
    assert done["path"] == str(into)
    before = contents(into)
    lines = "\n".join(map(str, store[:2]))
    other = tmp_path / "other"
    again = gdn_aot("seed", lines, "--into", other, "--quiet", home=home)
    assert (again.out, again.err) == (f"{other}\n", "")
    assert contents(other).keys() == before.keys()
    third = tmp_path / "third"
    assert gdn_aot("seed", *store[:2], "--into", third, home=home).out.count("binaries") == 2
    assert contents(third).keys() == before.keys()


def test_nothing_in_the_store_fits(store: list[Path], tmp_path: Path) -> None:
    for place in store[:2]:
        shutil.rmtree(place)
    arguments = ("seed", "--into", tmp_path / "cache")
    error: Any = refused(*arguments, home=tmp_path / "home", code=4, kind="no-artifact")
    assert "made for triton 3.1.0" in error["problems"][0]["what"]
    refused(*arguments, home=tmp_path / "empty", code=4, kind="no-artifact")
    for given in ("", " \n"):
        refused(*arguments, given, home=tmp_path / "empty", code=2, kind="usage")
    assert not (tmp_path / "cache").exists()

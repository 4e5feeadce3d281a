"""``gdn-aot lock``, and ``fetch --locked``, which accepts nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from doctoring import distribution
from helpers import expect_error, gdn_aot

from gdn_aot.errors import UnknownFormatError, VerificationError
from gdn_aot.registry.lockfile import LOCK_FORM, LockedArtifact, LockFile, read_lock, write_lock
from gdn_aot.registry.open import open_registry
from registry.making import SM_90, SM_120, WANTED, make
from registry.registries import installed, put, store_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from helpers import Done

    from gdn_aot.artifact.archive import Written


def sample() -> LockFile:
    return LockFile(
        repository="hf://org/name",
        revision="v1",
        commit="c" * 40,
        artifacts=(
            LockedArtifact(identifier=SM_120, sha256="a" * 64, size=1000),
            LockedArtifact(identifier=SM_90, sha256="b" * 64, size=2000),
        ),
    )


def test_round_trip() -> None:
    data = LOCK_FORM.encode(sample())
    assert LOCK_FORM.decode(data) == sample()
    assert data.endswith(b"}\n")
    first = sample().artifacts[0]
    assert (first.provider, first.version, first.triton, first.target) == ("fla", "0.6.0", "3.6.0", "sm_120")
    local = msgspec.structs.replace(first, identifier="vllm0.33.0.dev1+g12ab-triton3.6.0+git9-sm_121")
    assert (local.provider, local.version, local.triton, local.target) == (
        "vllm", "0.33.0.dev1+g12ab", "3.6.0+git9", "sm_121",
    )  # fmt: skip


def dumped(raw: Any) -> bytes:
    return json.dumps(raw, indent=2).encode() + b"\n"


def broken(path: tuple[str | int, ...], value: Any) -> bytes:
    raw = json.loads(LOCK_FORM.encode(sample()))
    inner = raw
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return dumped(raw)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("repository",), "http://evil", "repository"),
        (("repository",), "org/name", "repository"),
        (("repository",), "hf://org/name@v1", "repository"),
        (("repository",), 5, "repository"),
        (("revision",), "../v1", "revision"),
        (("commit",), "v1", "commit"),
        (("commit",), ..., "commit"),
        (("token",), "hf_x", "token"),
        (("artifacts",), [], "artifacts"),
        (("artifacts", 0, "sha256"), "A" * 64, "artifacts[0].sha256"),
        (("artifacts", 1, "size"), 0, "artifacts[1].size"),
        (("artifacts", 1, "size"), "2000", "artifacts[1].size"),
        (("artifacts", 1, "identifier"), "../../etc/passwd", "artifacts[1].identifier"),
        (("artifacts", 1, "identifier"), SM_120, "artifacts[1].identifier"),
        (("artifacts", 0, "identifier"), "flax", "artifacts[0].identifier"),
    ],
)
def test_what_is_wrong_has_its_path(path: tuple[str | int, ...], value: Any, where: str) -> None:
    with pytest.raises(VerificationError) as caught:
        LOCK_FORM.decode(broken(path, value))
    assert where in [problem.where for problem in caught.value.problems]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"format": "1"}', b'{"format": 1, "format": 1}'])
def test_what_is_no_lock_file(data: bytes) -> None:
    with pytest.raises(VerificationError):
        LOCK_FORM.decode(data)


def test_another_format() -> None:
    with pytest.raises(UnknownFormatError, match="unknown lock file format 2"):
        LOCK_FORM.decode(broken(("format",), 2))


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gdn-aot.lock"
    assert write_lock(path, sample()) is True
    before = path.stat().st_mtime_ns
    assert write_lock(path, sample()) is False
    assert path.stat().st_mtime_ns == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


# Both commands, in one working directory: the home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def lock(registry: object, *args: object, home: Path, code: int = 0) -> Done:
    return gdn_aot("lock", "--repo", registry, *WANTED, *args, home=home, code=code)


def locked(*args: object, home: Path, code: int = 0, extra: Mapping[str, str] | None = None) -> Done:
    return gdn_aot("fetch", "--locked", *args, home=home, code=code, extra=extra)


def edit(home: Path, of: str | None = None, **changes: Any) -> None:
    """Change fields of the lock file, or of one artifact in it."""
    path = home / "gdn-aot.lock"
    raw = json.loads(path.read_bytes())
    row = raw if of is None else next(row for row in raw["artifacts"] if row["identifier"] == of)
    row.update(changes)
    raw["artifacts"].sort(key=lambda row: row["identifier"])
    path.write_bytes(dumped(raw))


def test_what_it_writes(registry: Path, home: Path, sm_90: Written) -> None:
    done = lock(registry, "--arch", "all", home=home)
    head = open_registry(str(registry)).refs().branches["v1"]
    lines = done.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [SM_120, SM_90]
    found = read_lock(home / "gdn-aot.lock")
    assert (found.repository, found.revision, found.commit) == (str(registry), "v1", head)
    assert found.artifacts[1] == LockedArtifact(identifier=SM_90, sha256=sm_90.sha256, size=sm_90.size)
    assert not (home / "store").exists()
    first = (home / "gdn-aot.lock").read_bytes()
    again = lock(registry, "--arch", "all", "--json", home=home).json
    assert again["changed"] is False
    assert again["commit"] == head
    assert (home / "gdn-aot.lock").read_bytes() == first
    assert lock(registry, "--arch", "all", "-q", "-o", "other.lock", home=home).out == "other.lock\n"
    assert (home / "other.lock").read_bytes() == first


def test_a_missing_target_leaves_the_file_alone(registry: Path, home: Path) -> None:
    lock(registry, "--arch", "sm_90", home=home)
    before = (home / "gdn-aot.lock").read_bytes()
    done = lock(registry, "--arch", "sm_90,sm_100", "--json", home=home, code=4)
    assert "for sm_100" in expect_error(done, 4, "no-artifact")["message"]
    assert (home / "gdn-aot.lock").read_bytes() == before


def test_check(registry: Path, home: Path, artifacts: Path) -> None:
    expect_error(lock(registry, "--arch", "sm_90", "--check", "--json", home=home, code=2), 2, "usage")
    lock(registry, "--arch", "sm_90", home=home)
    lock(registry, "--arch", "sm_90", "--check", home=home)
    before = (home / "gdn-aot.lock").read_bytes()
    put(registry, make(artifacts, "sm_90", build=2), tag="v1.1.0")
    done = lock(registry, "--arch", "all", "--check", "--json", home=home, code=5)
    problems: Any = expect_error(done, 5, "verification")["problems"]
    assert [problem["where"] for problem in problems] == ["commit", SM_120, SM_90]
    assert problems[1]["what"] == "would be added"
    done = lock(registry, "--arch", "sm_120", "--check", "--json", home=home, code=5)
    assert {"where": SM_90, "what": "would be left out"} in done.json["error"]["problems"]
    assert (home / "gdn-aot.lock").read_bytes() == before


def test_locked_is_what_was_pinned(registry: Path, home: Path, artifacts: Path) -> None:
    """The branch moved on, and nobody names a target."""
    lock(registry, "--arch", "all", home=home)
    pinned = {row.identifier: row.sha256 for row in read_lock(home / "gdn-aot.lock").artifacts}
    put(registry, make(artifacts, build=2), make(artifacts, "sm_90", build=2), tag="v1.1.0")
    done = locked(*WANTED, "--json", home=home)
    assert {row["identifier"]: row["sha256"] for row in done.json["artifacts"]} == pinned
    assert sorted(installed(home)) == [f"{name}-{digest[:16]}" for name, digest in sorted(pinned.items())]
    registry.rename(registry.with_name("away"))
    done = locked(*WANTED, "--json", home=home)
    assert done.json["asked"] is False
    assert [row["state"] for row in done.json["artifacts"]] == ["already-installed"] * 2


def test_locked_narrowed(registry: Path, home: Path) -> None:
    lock(registry, "--arch", "all", home=home)
    locked(*WANTED, "--arch", "sm_90", home=home)
    assert [name.rpartition("-")[0] for name in installed(home)] == [SM_90]
    done = locked(*WANTED, "--arch", "sm_90,sm_75", "--json", home=home, code=4)
    assert done.json["missing"] == ["fla 0.6.0 with Triton 3.6.0 for sm_75"]
    done = locked(*WANTED, "--arch", "sm_75", "--json", home=home, code=4)
    error = expect_error(done, 4, "no-artifact")
    assert error["message"] == "the lock file has no artifact of fla 0.6.0 with Triton 3.6.0 for sm_75"
    assert error["hint"].startswith("gdn-aot lock")


def test_locked_for_what_is_not_installed_here(registry: Path, home: Path, tmp_path: Path) -> None:
    """It would not be used: an old lock file must not look like success after an upgrade."""
    lock(registry, "--arch", "sm_90", home=home)
    distribution(tmp_path / "site", "fla_core", "0.6.0")
    extra = distribution(tmp_path / "site", "triton", "3.9.1")
    done = locked("--json", home=home, code=4, extra=extra)
    problems: Any = expect_error(done, 4, "no-artifact")["problems"]
    assert problems == [{"where": SM_90, "what": "is for Triton 3.6.0; 3.9.1 is installed"}]
    fitting = {**extra, **distribution(tmp_path / "fitting", "triton", "3.6.0")}
    fitting["PYTHONPATH"] += f"{os.pathsep}{tmp_path / 'site'}"
    locked(home=home, extra=fitting)
    assert len(installed(home)) == 1


def test_a_relative_registry_is_found_from_elsewhere(registry: Path, home: Path, tmp_path: Path) -> None:
    lock("../registry", "--arch", "sm_90", home=home)
    assert json.loads((home / "gdn-aot.lock").read_bytes())["repository"] == "../registry"
    gdn_aot(
        "fetch", "--lock-file", home / "gdn-aot.lock", *WANTED, home=tmp_path / "elsewhere",
        extra={"GDN_AOT_HOME": str(home)},
    )  # fmt: skip
    assert len(installed(home)) == 1
    (tmp_path / "sub").mkdir()
    gdn_aot("lock", "--repo", "./registry", *WANTED, "--arch", "sm_90", "-o", "sub/own.lock", home=tmp_path)
    assert json.loads((tmp_path / "sub/own.lock").read_bytes())["repository"] == "../registry"


def nothing_came(done: Done, home: Path, code: int, kind: str) -> dict[str, str]:
    error = expect_error(done, code, kind)
    assert store_files(home) == {}
    return error


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": 17}])
def test_another_digest(registry: Path, home: Path, changes: dict[str, Any]) -> None:
    lock(registry, "--arch", "all", home=home)
    edit(home, SM_120, **changes)
    error = nothing_came(locked(*WANTED, "--json", home=home, code=5), home, 5, "verification")
    problems: Any = error["problems"]
    (problem,) = problems
    assert problem["where"] == SM_120
    assert str(next(iter(changes.values()))) in problem["what"]


def test_what_the_commit_does_not_have(registry: Path, home: Path) -> None:
    lock(registry, "--arch", "all", home=home)
    edit(home, SM_120, identifier="fla0.6.0-triton3.6.0-sm_100")
    error = nothing_came(locked(*WANTED, "--json", home=home, code=5), home, 5, "verification")
    assert error["problems"] == [{"where": "fla0.6.0-triton3.6.0-sm_100", "what": "is not in the registry"}]


def test_another_commit(registry: Path, home: Path) -> None:
    lock(registry, "--arch", "all", home=home)
    edit(home, commit="0" * 40)
    nothing_came(locked(*WANTED, "--json", home=home, code=7), home, 7, "revision-missing")


def test_digests_that_are_swapped(registry: Path, home: Path) -> None:
    """The store has both files: what it has must not make up for what the lock file gets wrong."""
    lock(registry, "--arch", "all", home=home)
    locked(*WANTED, home=home)
    before = store_files(home)
    first, second = (item.sha256 for item in read_lock(home / "gdn-aot.lock").artifacts)
    edit(home, SM_120, sha256=second)
    edit(home, SM_90, sha256=first)
    for args in ((), ("--dry-run",)):
        done = locked(*WANTED, *args, "--json", home=home, code=5)
        error = expect_error(done, 5, "verification")
        assert error["problems"] == [{"where": SM_120, "what": f"has the SHA-256 {second}, which is that of {SM_90}"}]
        assert "the lock file" in error["message"]
    assert store_files(home) == before


def test_another_registry(registry: Path, home: Path) -> None:
    lock(registry, "--arch", "all", home=home)
    done = locked(*WANTED, "--repo", "hf://org/name", "--json", home=home, code=2)
    assert str(registry) in nothing_came(done, home, 2, "usage")["message"]
    locked(*WANTED, "--repo", registry, home=home, extra={"GDN_AOT_REPO": "hf://not/asked"})


def test_revision_and_locked(registry: Path, home: Path) -> None:
    lock(registry, "--arch", "all", home=home)
    nothing_came(locked(*WANTED, "--revision", "v1", "--json", home=home, code=2), home, 2, "usage")


def test_no_lock_file(home: Path) -> None:
    error = nothing_came(locked("--json", home=home, code=2), home, 2, "usage")
    assert error["hint"] == "gdn-aot lock writes it"


def test_a_damaged_lock_file(registry: Path, home: Path) -> None:
    lock(registry, "--arch", "all", home=home)
    edit(home, commit="v1")
    error = nothing_came(locked(*WANTED, "--json", home=home, code=5), home, 5, "verification")
    problems: Any = error["problems"]
    assert problems[0]["where"] == "commit"
    assert "gdn-aot.lock" in error["message"]


def test_a_directory_that_cannot_be_written(registry: Path, home: Path) -> None:
    (home / "file").write_bytes(b"")
    done = lock(registry, "--arch", "all", "-o", "file/gdn-aot.lock", "--json", home=home, code=9)
    expect_error(done, 9, "not-writable")

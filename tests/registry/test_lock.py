"""``gdn-aot lock``, and ``fetch --locked``, which accepts nothing else."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doctoring import distribution
from helpers import expect_error, gdn_aot
from making import SM_90, SM_120, WANTED, changed, expected, make
from registries import Here, put

from gdn_aot.artifact.archive import Written
from gdn_aot.artifact.names import make_identifier
from gdn_aot.errors import UnknownFormatError, VerificationError
from gdn_aot.registry.lockfile import LOCK_FORM, LockedArtifact, LockFile, read_lock
from gdn_aot.registry.open import open_registry


def pinned(target: str, digest: str, size: int) -> LockedArtifact:
    name = make_identifier("fla", "0.6.0", "3.6.0", target)
    return LockedArtifact(
        identifier=name,
        provider="fla",
        version="0.6.0",
        triton="3.6.0",
        target=target,
        sha256=digest,
        size=size,
        key=None,
        serial=None,
    )


def dumped(raw: Any) -> bytes:
    return json.dumps(raw, indent=2).encode() + b"\n"


def broken(path: tuple[str | int, ...], value: Any) -> bytes:
    artifacts = (pinned("sm_120", "a" * 64, 1000), pinned("sm_90", "b" * 64, 2000))
    lock = LockFile(repository="hf://org/name", revision="v1", commit="c" * 40, artifacts=artifacts)
    return dumped(changed(LOCK_FORM, lock, path, value))


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("repository",), "http://evil", "repository"),
        (("repository",), "org/name", "repository"),
        (("repository",), "hf://org/name@v1", "repository"),
        (("revision",), "../v1", "revision"),
        (("commit",), "v1", "commit"),
        (("commit",), ..., "commit"),
        (("token",), "hf_x", "token"),
        (("artifacts",), [], "artifacts"),
        (("artifacts", 0, "sha256"), "A" * 64, "artifacts[0].sha256"),
        (("artifacts", 1, "size"), 0, "artifacts[1].size"),
        (("artifacts", 1, "identifier"), "../../etc/passwd", "artifacts[1].identifier"),
        (("artifacts", 1, "identifier"), SM_120, "artifacts[1].identifier"),
        (("artifacts", 0, "identifier"), "flax", "artifacts[0].identifier"),
        (("artifacts", 0, "version"), "0.6.0/..", "artifacts[0].identifier"),
        (("artifacts", 0, "target"), "sm", "artifacts[0].target"),
        (("artifacts", 0, "key"), "A" * 32, "artifacts[0].key"),
        (("artifacts", 0, "key"), ..., "artifacts[0].key"),
        (("artifacts", 1, "serial"), -1, "artifacts[1].serial"),
    ],
)
def test_what_is_wrong_has_its_path(path: tuple[str | int, ...], value: Any, where: str) -> None:
    with pytest.raises(VerificationError) as caught:
        LOCK_FORM.decode(broken(path, value))
    assert where in [problem.where for problem in caught.value.problems]


@pytest.mark.parametrize("number", [1, 3])
def test_another_format(number: int) -> None:
    with pytest.raises(UnknownFormatError, match=f"unknown lock file format {number}"):
        LOCK_FORM.decode(broken(("format",), number))


# Both commands, in one working directory: the home


def edit(here: Here, of: str | None = None, **changes: Any) -> None:
    """Change fields of the lock file, or of one artifact in it."""
    raw = json.loads(here.lock_file.read_bytes())
    row = raw if of is None else next(row for row in raw["artifacts"] if row["identifier"] == of)
    row.update(changes)
    raw["artifacts"].sort(key=lambda row: row["identifier"])
    here.lock_file.write_bytes(dumped(raw))


def refused(here: Here, *args: object, code: int = 5, kind: str = "verification") -> dict[str, Any]:
    """Fetch what is locked, and see that nothing of it reaches the store."""
    before = here.files()
    error: dict[str, Any] = expect_error(here.locked(*args, "--json", code=code), code, kind)
    assert here.files() == before
    return error


def test_what_it_writes(here: Here, sm_90: Written) -> None:
    lines = here.lock().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [SM_120, SM_90]
    head = open_registry(str(here.registry)).refs().branches["v1"]
    found = read_lock(here.lock_file)
    assert (found.repository, found.revision, found.commit) == (str(here.registry), "v1", head)
    assert found.artifacts[1] == pinned("sm_90", sm_90.sha256, sm_90.size)
    assert here.files() == {}
    first = here.lock_file.read_bytes()
    again = here.lock("--json").json
    assert (again["changed"], again["commit"]) == (False, head)
    assert again["artifacts"][1] == msgspec.to_builtins(found.artifacts[1])
    assert here.lock_file.read_bytes() == first
    assert here.lock("-q", "-o", "other.lock").out == "other.lock\n"
    assert (here.home / "other.lock").read_bytes() == first
    done = here.lock("--arch", "sm_90,sm_100", "--json", code=4)
    assert "for sm_100" in expect_error(done, 4, "no-artifact")["message"]
    assert here.lock_file.read_bytes() == first
    (here.home / "file").write_bytes(b"")
    expect_error(here.lock("-o", "file/gdn-aot.lock", "--json", code=9), 9, "not-writable")


def test_check(here: Here, artifacts: Path) -> None:
    expect_error(here.lock("--arch", "sm_90", "--check", "--json", code=2), 2, "usage")
    here.lock("--arch", "sm_90")
    here.lock("--arch", "sm_90", "--check")
    before = here.lock_file.read_bytes()
    put(here.registry, make(artifacts, "sm_90", build=2), tag="v1.1.0")
    problems: Any = expect_error(here.lock("--check", "--json", code=5), 5, "verification")["problems"]
    assert [problem["where"] for problem in problems] == ["commit", SM_120, SM_90]
    assert problems[1]["what"] == "would be added"
    done = here.lock("--arch", "sm_120", "--check", "--json", code=5)
    assert {"where": SM_90, "what": "would be left out"} in done.json["error"]["problems"]
    assert here.lock_file.read_bytes() == before


def test_locked_is_what_was_pinned(here: Here, sm_120: Written, sm_90: Written, artifacts: Path) -> None:
    """The branch moved on, and nobody names a target."""
    here.lock()
    put(here.registry, make(artifacts, build=2), make(artifacts, "sm_90", build=2), tag="v1.1.0")
    done = here.locked("--json").json
    assert {row["identifier"]: row["sha256"] for row in done["artifacts"]} == expected(sm_120, sm_90)
    assert here.has(sm_90, sm_120)
    here.registry.rename(here.registry.with_name("away"))
    done = here.locked("--json").json
    assert done["asked"] is False
    assert [row["state"] for row in done["artifacts"]] == ["already-installed"] * 2


def test_locked_narrowed(here: Here, sm_90: Written) -> None:
    here.lock()
    here.locked("--arch", "sm_90")
    assert here.has(sm_90)
    done = here.locked("--arch", "sm_90,sm_75", "--json", code=4)
    assert done.json["missing"] == ["fla 0.6.0 with Triton 3.6.0 for sm_75"]
    error = refused(here, "--arch", "sm_75", code=4, kind="no-artifact")
    assert error["message"] == "the lock file has no artifact of fla 0.6.0 with Triton 3.6.0 for sm_75"
    assert error["hint"].startswith("gdn-aot lock")


def test_locked_for_what_is_not_installed_here(here: Here, sm_90: Written, tmp_path: Path) -> None:
    """It would not be used: an old lock file must not look like success after an upgrade."""
    here.lock("--arch", "sm_90")
    distribution(tmp_path / "site", "fla_core", "0.6.0")
    extra = distribution(tmp_path / "site", "triton", "3.9.1")
    wanted = ("fetch", "--locked", "--allow-unsigned")
    done = gdn_aot(*wanted, "--json", home=here.home, code=4, extra=extra)
    problems: Any = expect_error(done, 4, "no-artifact")["problems"]
    assert problems == [{"where": SM_90, "what": "is for Triton 3.6.0; 3.9.1 is installed"}]
    fitting = {**extra, **distribution(tmp_path / "fitting", "triton", "3.6.0")}
    fitting["PYTHONPATH"] += f"{os.pathsep}{tmp_path / 'site'}"
    gdn_aot(*wanted, home=here.home, extra=fitting)
    assert here.has(sm_90)


def test_a_relative_registry_is_found_from_elsewhere(here: Here, sm_90: Written, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for cwd, repo, output in ((here.home, "../registry", here.lock_file), (tmp_path, "./registry", "sub/own.lock")):
        gdn_aot("lock", "--allow-unsigned", "--repo", repo, *WANTED, "--arch", "sm_90", "-o", output, home=cwd)
        assert json.loads((cwd / output).read_bytes())["repository"] == "../registry"
    elsewhere = {"home": tmp_path / "elsewhere", "extra": {"GDN_AOT_HOME": str(here.home)}}
    gdn_aot("fetch", "--allow-unsigned", "--lock-file", here.lock_file, *WANTED, **elsewhere)
    assert here.has(sm_90)


@pytest.mark.parametrize(
    ("of", "changes", "code", "kind"),
    [
        (SM_120, {"sha256": "0" * 64}, 5, "verification"),
        (SM_120, {"size": 17}, 5, "verification"),
        (SM_120, {"target": "sm_100", "identifier": "fla0.6.0-triton3.6.0-sm_100"}, 5, "verification"),
        (None, {"commit": "0" * 40}, 7, "revision-missing"),
        (None, {"commit": "v1"}, 5, "verification"),
    ],
)
def test_what_is_not_pinned_does_not_come(
    here: Here, of: str | None, changes: dict[str, Any], code: int, kind: str
) -> None:
    here.lock()
    edit(here, of, **changes)
    error = refused(here, code=code, kind=kind)
    value = [*changes.values()][-1]
    if of:
        (problem,) = error["problems"]
        assert problem["where"] == changes.get("identifier", SM_120)
        assert problem["what"] == "is not in the registry" or str(value) in problem["what"]
    elif code == 5:
        assert error["problems"][0]["where"] == "commit"
        assert "gdn-aot.lock" in error["message"]


def test_digests_that_are_swapped(here: Here) -> None:
    """The store has both files: what it has must not make up for what the lock file gets wrong."""
    here.lock()
    here.locked()
    first, second = (item.sha256 for item in read_lock(here.lock_file).artifacts)
    edit(here, SM_120, sha256=second)
    edit(here, SM_90, sha256=first)
    for args in ((), ("--dry-run",)):
        error = refused(here, *args)
        assert error["problems"] == [{"where": SM_120, "what": f"has the SHA-256 {second}, which is that of {SM_90}"}]
        assert "the lock file" in error["message"]


def test_options_that_contradict_it(here: Here) -> None:
    here.home.mkdir()
    assert refused(here, code=2, kind="usage")["hint"] == "gdn-aot lock writes it"
    here.lock()
    assert str(here.registry) in refused(here, "--repo", "hf://org/name", code=2, kind="usage")["message"]
    refused(here, "--revision", "v1", code=2, kind="usage")
    here.locked("--repo", here.registry, extra={"GDN_AOT_REPO": "hf://not/asked"})

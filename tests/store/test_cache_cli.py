"""``gdn-aot cache``."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import storing
from helpers import TIMEOUT, environment, expect_error, gdn_aot
from storing import check_store

from gdn_aot.artifact.verify import Artifact
from gdn_aot.store import lock
from gdn_aot.store.folder import Folder
from gdn_aot.store.install import size_of
from gdn_aot.store.store import Store

SM_90 = "fla0.6.0-triton3.6.0-sm_90"
SM_120 = "fla0.6.0-triton3.6.0-sm_120"


def places(home: Path) -> list[str]:
    return Store(str(home)).artifacts()


def test_ls(home: Path, three: list[Artifact]) -> None:
    done = gdn_aot("cache", "ls", home=home)
    head, *lines = done.out.splitlines()
    heads = "artifact target provider triton bytes installed from use sha256"
    assert head.split() == heads.split()
    assert [line.split()[0] for line in lines] == [SM_120, SM_90, SM_120]
    assert [line.split()[-2] for line in lines] == ["preferred", "preferred", "superseded"]
    assert [line.split()[-1] for line in lines] == [three[number].sha256[:16] for number in (2, 1, 0)]
    assert f"hf://org/name@{'c' * 12}" in lines[1]
    assert done.err.splitlines()[0].startswith(f"store {home}/store: 3 artifacts, ")
    document = gdn_aot("cache", "ls", "--json", home=home).json
    assert document["store"]["path"] == f"{home}/store"
    assert document["store"]["format"] == "1"
    assert document["store"]["bytes"] == sum(
        path.stat().st_size for path in (home / "store").rglob("*") if path.is_file()
    )
    assert [item["sha256"] for item in document["artifacts"]] == [three[number].sha256 for number in (2, 1, 0)]
    second = document["artifacts"][1]
    assert second == {
        "path": places(home)[1], "identifier": SM_90, "sha256": three[1].sha256, "target": "sm_90", "provider": "fla",
        "version": "0.6.0", "triton": "3.6.0", "size": second["size"], "installed": 1001.0,
        "origins": [{"repo": "hf://org/name", "revision": "v1", "commit": "c" * 40}], "preferred": True,
        "readable": True, "problem": "",
    }  # fmt: skip


@pytest.mark.usefixtures("three")
def test_quiet(home: Path) -> None:
    before = places(home)
    names = [Path(place).name for place in before]
    done = gdn_aot("cache", "ls", "-q", home=home)
    assert (done.out.splitlines(), done.err) == (names, "")
    done = gdn_aot("cache", "verify", "--quiet", home=home)
    assert (done.out, done.err) == ("", "")
    for more in (["--dry-run"], []):
        done = gdn_aot("cache", "prune", "--quiet", *more, home=home)
        assert (done.out, done.err) == (f"{before[2]}\n", "")
    done = gdn_aot("cache", "rm", names[0], "--quiet", home=home)
    assert (done.out, done.err) == (f"{before[0]}\n", "")
    assert places(home) == before[1:2]
    Path(places(home)[0], "index").write_bytes(b"x")
    done = gdn_aot("cache", "verify", "-q", home=home, code=5)
    assert (done.out, done.err.startswith("Error: ")) == ("", True)
    done = gdn_aot("cache", "verify", "--repair", "-q", home=home)
    assert (done.out, done.err) == (f"{before[1]}\n", "")


def test_an_empty_store(home: Path) -> None:
    assert gdn_aot("cache", "ls", home=home).out == ""
    document = gdn_aot("cache", "ls", "--json", home=home).json
    assert document == {
        "store": {"path": f"{home}/store", "format": None, "bytes": 0}, "artifacts": [],
    }  # fmt: skip
    for more in ([], ["--repair"]):
        assert gdn_aot("cache", "verify", *more, home=home).out == f"there is no store at {home}/store\n"
    document = gdn_aot("cache", "verify", "--json", home=home).json
    assert (document["ok"], document["exists"], document["artifacts"]) == (True, False, 0)
    assert gdn_aot("cache", "verify", "--quiet", home=home).out == ""
    assert gdn_aot("cache", "prune", home=home).out == ""
    expect_error(gdn_aot("cache", "rm", "*", "--json", home=home, code=3), 3, "nothing-selected")
    assert not (home / "store").exists()
    (home / "store").mkdir(parents=True)
    assert gdn_aot("cache", "verify", home=home).out == f"{home}/store: ok, 0 artifacts, 0 blobs, 0 bytes\n"
    assert gdn_aot("cache", "verify", "--json", home=home).json["exists"]


def test_rm(home: Path, three: list[Artifact]) -> None:
    place = places(home)[1]
    dry = gdn_aot("cache", "rm", "--dry-run", SM_90, home=home)
    assert dry.out == f"{place}\n"
    assert dry.err.startswith("would remove 1 artifact; free ")
    assert len(check_store(home)) == 3
    document = gdn_aot("cache", "rm", three[1].sha256[:6], "--json", home=home).json
    assert (document["dry_run"], document["leftovers"]) == (False, [])
    assert [item["path"] for item in document["removed"]] == [place]
    assert f"free {document['freed']} bytes" in dry.err
    assert check_store(home) == [three[2].sha256, three[0].sha256]


def test_prune(home: Path, three: list[Artifact]) -> None:
    (home / "store/artifacts/.tmp-1").write_bytes(b"x" * 10)
    dry = gdn_aot("cache", "prune", "--dry-run", "--json", home=home).json
    assert dry["leftovers"] == [f"{home}/store/artifacts/.tmp-1"]
    assert (home / "store/artifacts/.tmp-1").exists()
    done = gdn_aot("cache", "prune", "--json", home=home).json
    assert done == {**dry, "dry_run": False}
    assert check_store(home) == [three[2].sha256, three[1].sha256]
    assert gdn_aot("cache", "prune", "--keep", 0, home=home).err.startswith("removed 2 artifacts; ")
    assert "--keep" in gdn_aot("cache", "prune", "--keep", -1, home=home, code=2).err


def test_ls_tells_of_damage(home: Path, three: list[Artifact]) -> None:
    Path(places(home)[0], "index").write_bytes(b"x")
    done = gdn_aot("cache", "ls", home=home)
    assert f"Warning: {places(home)[0]}/index: it is not an index" in done.err
    assert done.out.splitlines()[1].split()[-2] == "damaged"


def test_verify(home: Path, three: list[Artifact]) -> None:
    size = size_of(f"{home}/store/artifacts")
    assert gdn_aot("cache", "verify", home=home).out == f"{home}/store: ok, 3 artifacts, 9 blobs, {size} bytes\n"
    document = gdn_aot("cache", "verify", "--json", home=home).json
    assert document == {
        "ok": True, "store": f"{home}/store", "exists": True, "artifacts": 3, "blobs": 9, "bytes": size,
        "problems": [], "removed": [], "freed": 0,
    }  # fmt: skip


def test_verify_and_repair(home: Path, three: list[Artifact]) -> None:
    place = Path(places(home)[1])
    blob = storing.cubins(place)[0]
    storing.flip_blob(place, blob)
    problem = {"where": f"{place}/pack", "what": f"the content of blob {blob} is not what its name says"}
    done = gdn_aot("cache", "verify", "--json", home=home, code=5)
    assert done.json["ok"] is False
    assert done.json["error"]["code"] == "verification"
    assert "gdn-aot cache verify --repair" in done.json["error"]["hint"]
    assert done.json["problems"] == [problem]
    done = gdn_aot("cache", "verify", home=home, code=5)
    assert f"  {problem['where']}: {problem['what']}\n" in done.err
    assert done.out == ""
    done = gdn_aot("cache", "verify", "--repair", home=home)
    assert done.out.startswith(f"{home}/store: removed what was damaged, freed ")
    assert f"{SM_90} was removed; to have it again: gdn-aot fetch --repo hf://org/name --arch sm_90" in done.err
    assert check_store(home) == [three[2].sha256, three[0].sha256]
    assert gdn_aot("cache", "verify", "--repair", "--json", home=home).json["problems"] == []


def test_a_read_only_store(home: Path, three: list[Artifact]) -> None:
    """Inside this process: a privilege that a thread gave up comes back with the next program that root starts."""
    from gdn_aot.cli.main import run

    with pytest.MonkeyPatch.context() as patch, storing.read_only(home):
        patch.setenv("GDN_AOT_HOME", str(home))
        assert [run(["cache", *args]) for args in (["ls"], ["verify"], ["rm", "*", "--dry-run"])] == [0, 0, 0]
        assert [run(["cache", *args]) for args in (["rm", "*"], ["prune"], ["verify", "--repair"])] == [9, 9, 9]
    assert len(check_store(home)) == len(three)


def test_a_newer_store(home: Path, three: list[Artifact]) -> None:
    (home / "store/format").write_text("3\n")
    for args in (["ls"], ["verify"], ["rm", "*"], ["prune"], ["prune", "--dry-run"], ["verify", "--repair"]):
        expect_error(gdn_aot("cache", *args, "--json", home=home, code=5), 5, "unknown-format")
    (home / "store/format").write_text("1\n")
    assert len(check_store(home)) == len(three)


def test_help_and_wrong_commands(home: Path) -> None:
    assert "verify" in gdn_aot("cache", home=home).out
    assert gdn_aot("cache", "-h", home=home).out == gdn_aot("cache", home=home).out
    assert "Did you mean 'prune'?" in gdn_aot("cache", "prone", home=home, code=2).err
    assert "Commands are ls, rm, prune, verify." in gdn_aot("cache", "xyz", home=home, code=2).err


def test_waiting_is_told_and_can_be_interrupted(home: Path, three: list[Artifact]) -> None:
    with Folder.at(f"{home}/store") as root, lock.locked(root):
        process = subprocess.Popen(
            [sys.executable, "-m", "gdn_aot", "cache", "prune"],
            env=environment(home), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        start = time.monotonic()
        said = process.stderr.readline()
        assert time.monotonic() - start > 1.9
        assert said == f"waiting for process {os.getpid()}, which is using the store {home}/store\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, error.strip()) == (130, "Error: interrupted")
    assert len(check_store(home)) == len(three)

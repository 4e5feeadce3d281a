"""Hosts that only fetch: other systems than Linux, a Python without parts of it, and one without torch and Triton."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, SUPPORT, Done, environment, run
from making import WANTED, Written, make
from processes import fork, wait

ELSEWHERE = SUPPORT / "programs/elsewhere.py"
_SYSTEMS = ("windows", "bare")
_BUILDING = (
    ("build", "--arch", "sm_90", "--model", "qwen3.5-9b"),
    ("coverage", "FILE"),
    ("seed", "FILE", "--into", "cache"),
    ("tune", "--prepare", "--arch", "sm_90", "--model", "qwen3.5-9b"),
    ("check", "--prepare", "--arch", "sm_90", "--model", "qwen3.5-9b"),
)


@pytest.fixture(scope="module")
def sm_120(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return make(tmp_path_factory.mktemp("made"), "sm_120")


@pytest.fixture(params=_SYSTEMS)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Done]:
    """Run a command on another system."""

    def there(*words: object, code: int = 0) -> Done:
        done = run([sys.executable, str(ELSEWHERE), request.param, *map(str, words)], tmp_path / "home")
        assert done.code == code, done
        assert "Traceback" not in done.err
        return done

    return there


def test_all_that_needs_no_kernel(there: Callable[..., Done], sm_120: Written, tmp_path: Path) -> None:
    registry, home = tmp_path / "registry", tmp_path / "home"
    there("publish", sm_120.path, "--repo", registry, "--create", "--tag", "v1.0.0")
    wanted = ("--allow-unsigned", "--repo", registry, "--arch", "sm_120", *WANTED)
    there("lock", *wanted, "-o", tmp_path / "gdn-aot.lock")
    assert ": installed" in there("fetch", *wanted).out
    locked = ("fetch", "--locked", "--allow-unsigned", "--lock-file", tmp_path / "gdn-aot.lock")
    assert ": already installed" in there(*locked).out
    (place,) = home.glob("store/artifacts/[!.]*")
    assert (home / "store/.lock").read_text() == ""
    assert "ok" in there("verify", sm_120.path).out
    assert there("inspect", sm_120.path, "--json").json["identifier"]
    assert there("list", "--json", "--repo", registry).json["artifacts"][0]["path"] == str(place)
    assert len(there("cache", "ls", "--json").json["artifacts"]) == 1
    assert ": ok, 1 artifact" in there("cache", "verify").out

    (place / "pack").write_bytes(b"x")
    there("cache", "verify", code=5)
    assert "freed" in there("cache", "verify", "--repair").out
    assert ": installed" in there(*locked).out
    (home / "store/.tmp-0123").write_text("left")
    assert json.loads(there("cache", "prune", "--json").out)["leftovers"]
    there("cache", "rm", "*")
    assert list(home.glob("store/artifacts/*")) == []
    for words in (("models",), ("targets",), ("providers",), ("matrix", "--matrix", ROOT / "artifacts/matrix.toml")):
        assert there(*words).out
    there("doctor", code=4)


@pytest.mark.parametrize("plant", ["link", "folder-link", "folder"])
def test_no_link_is_followed(there: Callable[..., Done], sm_120: Written, tmp_path: Path, plant: str) -> None:
    """Where the system cannot refuse links itself, they are looked for."""
    registry, home, outside = tmp_path / "registry", tmp_path / "home", tmp_path / "outside"
    there("publish", sm_120.path, "--repo", registry, "--create")
    there("fetch", "--allow-unsigned", "--repo", registry, "--arch", "sm_120", *WANTED)
    (place,) = home.glob("store/artifacts/[!.]*")
    outside.mkdir()
    planted = place if plant == "folder-link" else place / "index"
    planted.rename(outside / "moved")
    if plant == "folder":
        planted.mkdir()
    else:
        planted.symlink_to(outside / "moved")
    error = there("cache", "verify", code=5).err
    assert ("is a symbolic link" if plant != "folder" else "is not a regular file") in error
    there("cache", "verify", "--repair", code=9 if plant == "folder" else 0)  # which is none of ours, and stays
    assert (outside / "moved").exists()


def test_one_at_a_time(there: Callable[..., Done], sm_120: Written, tmp_path: Path) -> None:
    """Many fetch into one store at once: each finds it whole."""
    registry = tmp_path / "registry"
    there("publish", sm_120.path, "--repo", registry, "--create")
    words = ("fetch", "--allow-unsigned", "--repo", registry, "--arch", "sm_120", *WANTED, "--quiet")
    pids = [fork(lambda: there(*words)) for _ in range(4)]
    assert wait(pids) == [0] * 4
    assert ": ok, 1 artifact" in there("cache", "verify").out


def test_who_waits_says_for_whom(there: Callable[..., Done], sm_120: Written, tmp_path: Path) -> None:
    registry, lock = tmp_path / "registry", tmp_path / "home/store/.lock"
    there("publish", sm_120.path, "--repo", registry, "--create")
    there("fetch", "--allow-unsigned", "--repo", registry, "--arch", "sm_120", *WANTED)
    code = (
        "import fcntl, os, sys\n"
        f"file = os.open({str(lock)!r}, os.O_RDWR)\n"
        "os.write(file, str(os.getpid()).encode())\n"
        "fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX, 1, 1 << 40)\n"
        "print('held', flush=True); sys.stdin.readline()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    letting_go = threading.Timer(5, holder.communicate, ["\n"])
    letting_go.start()
    assert f"waiting for process {holder.pid}" in there("cache", "prune").err
    letting_go.join()


@pytest.mark.parametrize("words", _BUILDING, ids=lambda words: str(words[0]))
def test_what_builds_needs_more(sm_120: Written, tmp_path: Path, words: tuple[str, ...]) -> None:
    """torch and Triton are found by their metadata, so they are away here if their packages are."""
    code = (
        "import sys; from gdn_aot.cli.main import run; from gdn_aot.machine import installed\n"
        "real = installed.version\n"
        "installed.version = lambda name: None if name in ('torch', 'triton') else real(name)\n"
        "sys.modules['torch'] = sys.modules['triton'] = sys.modules['fla'] = None\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    arguments = [str(sm_120.path) if word == "FILE" else word for word in words]
    done = run([sys.executable, "-c", code, *arguments, "--json"], tmp_path)
    assert done.code == 2
    assert done.json["error"]["code"] == "toolchain-missing"
    assert "gdn-aot[build]" in done.json["error"]["hint"]


def test_serving_processes_start_without_them(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['triton'] = None\n"
        "import gdn_aot, gdn_aot.auto\n"
        "gdn_aot.install()\n"
        "assert gdn_aot.preload() == 0\n"
        "print(gdn_aot.report().problem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert "no artifact" in done.stdout

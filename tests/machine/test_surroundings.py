"""What child processes find around them: no code of the current directory, no secrets, and scratch that goes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, TIMEOUT, environment

from gdn_aot.machine import scratch
from gdn_aot.machine.child import Child
from gdn_aot.machine.cluster import Cluster
from gdn_aot.machine.environment import find_program, without_secrets

_PLANTED = (
    "resource", "json", "torch", "triton", "fla", "sitecustomize", "usercustomize", "ray", "mmap", "tempfile", "fcntl",
)  # fmt: skip
_PROGRAM = """
import os, pathlib, subprocess, sys, tempfile
from gdn_aot.machine.child import serve

class Server:
    def __init__(self, channel, first):
        import resource
        subprocess.run([sys.executable, "-c", "import resource"], check=True)  # as libraries do
        parent = pathlib.Path(f"/proc/{os.getppid()}/environ").read_bytes().decode()
        channel.send({"event": "made", "path": sys.path, "cwd": os.getcwd(), "temporary": tempfile.gettempdir(),
                      "own": dict(os.environ), "parent": parent})

def main():
    serve(Server)
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Make the current directory one whose modules leave a mark when they are imported; return what says which did."""
    here, marks = tmp_path / "here", tmp_path / "marks"
    for folder in (here, marks):
        folder.mkdir()
    for name in _PLANTED:
        (here / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()\n")
    monkeypatch.chdir(here)
    return lambda: sorted(path.name for path in marks.iterdir())


@pytest.fixture
def modules(tmp_path: Path) -> str:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "surrounded.py").write_text(_PROGRAM)
    (folder / "torch").mkdir()  # quick to import
    (folder / "torch/__init__.py").write_text("from torch import cuda\n")
    (folder / "torch/cuda.py").write_text("def _is_in_bad_fork(): return False\n")
    return str(folder)


@pytest.mark.parametrize("path", ["{}", "{}:", ":{}", ".:{}", "./:..:{}"])
def test_a_child_runs_no_code_of_the_current_directory(
    planted: Callable[[], list[str]], modules: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", path.format(modules))
    monkeypatch.setenv("PYTHONNOUSERSITE", "")
    with Child("surrounded") as child:
        child.send({})
        told = child.receive()
        assert told["cwd"] == told["temporary"] == child.scratch
    assert planted() == []
    assert all(map(os.path.isabs, told["path"]))
    assert not {str(Path.cwd()), "/"} & {*told["path"]}


def test_ray_is_started_elsewhere(
    planted: Callable[[], list[str]], modules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the processes of a job import from the directory of its driver."""
    Path(modules, "ray.py").write_text("import os\ndef init(**_): assert os.getcwd() == '/'\n")
    monkeypatch.setenv("PYTHONPATH", modules)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.syspath_prepend(modules)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    here = Path.cwd()
    with Cluster("auto") as cluster:
        monkeypatch.setattr("ray.shutdown", lambda: None, raising=False)
        assert cluster.address == "auto"
    assert Path.cwd() == here
    assert planted() == []
    del sys.modules["ray"]


def test_a_program_is_none_of_the_current_directory(
    planted: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    del planted
    Path("nvidia-smi").write_text("#!/bin/sh\n")
    Path("nvidia-smi").chmod(0o755)
    for path in (".", "", "./", f".:{Path.cwd().parent}"):
        monkeypatch.setenv("PATH", path)
        assert find_program("nvidia-smi") is None
    monkeypatch.setenv("PATH", f".:{Path.cwd()}")
    assert find_program("nvidia-smi") == str(Path("nvidia-smi").absolute())


def test_a_build_runs_no_code_of_the_current_directory(planted: Callable[[], list[str]], tmp_path: Path) -> None:
    """With a shape of few calls: what a build imports does not depend on that."""
    words = ["build", "--arch", "sm_90", "--shape", "heads=1,v_heads=2,k_dim=64,v_dim=64,dtype=bf16"]
    words += ["--workload", "gated-norm", "--max-tokens", "64", "--max-batch", "1", "-o", str(tmp_path / "out")]
    program = "import sys; sys.path[:] = filter(None, sys.path); from gdn_aot.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment(tmp_path / "home"), capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert planted() == []


def test_children_and_their_zygote_get_no_secrets(modules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        name: f"kept-from-children-{number}"
        for number, name in enumerate((
            "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GITHUB_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_URL", "AZURE_CLIENT_ID", "GOOGLE_APPLICATION_CREDENTIALS", "OPENAI_API_KEY",
            "pgpassword", "MY_PASSWD", "SOME_SECRET", "RAY_AUTH_MODE", "SSH_AUTH_SOCK", "SIGNING_KEY",
        ))
    }  # fmt: skip
    secrets["HTTPS_PROXY"] = "http://me:kept-from-children@proxy:8080"
    secrets["SOME_URL"] = "https://:kept-from-children@a/b"
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for name in ("CUDA_DEVICE_ORDER", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", modules)
    with Child("surrounded") as child:
        child.send({})
        told = child.receive()
    assert "kept-from-children" not in json.dumps(told)
    assert not secrets.keys() & told["own"].keys()
    assert {"PATH", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS"} <= told["own"].keys()


@pytest.mark.parametrize(
    "name",
    [
        "CR_PAT", "JWT", "MY_JWT_FILE", "OPENAI_KEY", "WANDB_KEY", "NGC_KEY", "SSH_KEY", "DEPLOY_KEY", "KEYS", "key",
        "MYSQL_PWD", "DB_PASS", "SENTRY_DSN", "SLACK_WEBHOOK_URL", "SESSION_COOKIE", "HF_HOME_TOKEN", "HF_HUB_CACHE",
        "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_OURS_USERNAME",
    ],
)  # fmt: skip
def test_a_secret_is_known_by_the_words_of_its_name(name: str) -> None:
    assert without_secrets({name: "x"}) == {}


@pytest.mark.parametrize(
    "value", ["https://abc@host/simple", "a https://u:p@host", "postgres://u@h", "git+ssh://x@y/z"]
)
def test_an_address_with_credentials_is_a_secret(value: str) -> None:
    assert without_secrets({"SOME": value}) == {}


def test_what_is_no_secret_is_kept() -> None:
    kept = {
        "PATH": "/bin", "HOME": "/", "CUDA_VISIBLE_DEVICES": "0", "LD_LIBRARY_PATH": "/x", "HTTPS_PROXY": "http://a:1",
        "TRITON_PTXAS_PATH": "/p", "VLLM_USE_V1": "1", "CC": "gcc", "LANG": "C", "KEYMAP": "us",
        "PWD": "/x", "OLDPWD": "/y", "HF_HOME": "/h", "HF_HUB_OFFLINE": "1", "KEYBOARD": "k",
        "HF_DATASETS_OFFLINE": "1", "PATTERN": "p", "COMPASS": "c", "XKEY": "k", "MAIL": "me@host", "DOCS": "http://a/@b",
    }  # fmt: skip
    assert without_secrets(kept) == kept


_HOLDER = """
import sys, time
from gdn_aot.machine import scratch
open(scratch.make("x") + "/file", "w").close()
print(scratch.root(), flush=True)
time.sleep(600)
"""


def _holder(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_scratch_of_the_dead_is_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    theirs = [tmp_path / name for name in ("gdn-aot-scratch-ABCDEFGH", "gdn-aot-scratch-aaaaaaaa", "gdn-aot-mine", "x")]
    for folder in theirs:
        folder.mkdir(mode=0o755)
    (tmp_path / "gdn-aot-scratch-bbbbbbbb").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "gdn-aot-scratch-cccccccc").touch(mode=0o700)
    before = sorted(tmp_path.iterdir())
    living, dead = _holder(tmp_path), _holder(tmp_path)
    dead[0].kill()
    dead[0].communicate()
    assert (dead[1] / "file").parent.is_dir()
    assert dead[1].stat().st_mode & 0o777 == 0o700
    (dead[1] / "link").symlink_to(tmp_path / "elsewhere")
    scratch.sweep(str(tmp_path))
    try:
        assert sorted(tmp_path.iterdir()) == sorted([*before, living[1]])
        assert (tmp_path / "elsewhere" / "file").exists()
    finally:
        living[0].terminate()
        living[0].communicate()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = Path(scratch.make("one"))
    assert not living[1].exists()
    assert mine.parent.parent == tmp_path
    scratch.sweep(str(tmp_path))
    assert mine.is_dir()
    scratch.remove(str(mine.parent))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_command_leaves_no_scratch(tmp_path: Path, number: signal.Signals) -> None:
    """Its zygote removes the folder, also if it is still importing what it preloads."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "torch.py").touch()
    (tmp_path / "waiting.py").write_text("import time\ndef main(): time.sleep(600)\n")
    program = """
import signal
from gdn_aot.machine.child import Child
signal.signal(signal.SIGINT, signal.default_int_handler)
with Child('waiting') as child:
    print(child.pid, flush=True)
    child.receive()
"""
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    assert [*temporary.iterdir()] != []
    process.send_signal(number)
    process.communicate(timeout=TIMEOUT)
    end = time.monotonic() + 60
    while [*temporary.iterdir()] and time.monotonic() < end:
        time.sleep(0.05)
    assert [*temporary.iterdir()] == []

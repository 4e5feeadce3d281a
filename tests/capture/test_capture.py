"""``gdn-aot capture`` around real processes that launch real kernels, up to the driver."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, TIMEOUT, Done, environment, expect_error, gdn_aot

from gdn_aot.capture.form import FORM, Capture, load

PROGRAM = Path(__file__).parent / "program.py"


@pytest.fixture
def capture(tmp_path: Path) -> Any:
    """Record the program in one of its modes; return what was recorded, and the command's end."""

    def capture(mode: str, code: int = 0, **extra: str) -> tuple[Capture | None, Done]:
        output = tmp_path / "capture.json"
        more = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), **extra}
        done = gdn_aot(
            "capture", "-o", output, "--json", "--", sys.executable, PROGRAM, mode, home=tmp_path, extra=more, code=code
        )
        assert not list(tmp_path.glob(".capture*")), "what processes wrote is gone"
        return load(output) if output.exists() else None, done

    return capture


def counts(capture: Capture) -> dict[str, int]:
    return {kernel.name: len(kernel.launches) for kernel in capture.kernels}


def test_one_process(capture: Any) -> None:
    found, done = capture("one")
    assert counts(found) == {"kernels:every": 1, "kernels:tuned": 1}
    assert found.processes == 1
    assert found.targets == ("sm_90",)
    (tuned,) = found.kernels[1].launches
    assert tuned.tuning.key == (64, True, "torch.float32", "torch.float32")
    assert dict(tuned.tuning.config.kwargs) == {"BLOCK": 64}
    assert found.kernels[0].source_sha256
    assert found.kernels[0].cache_key
    document = done.json
    assert (document["launches"], document["kernels"], document["status"]) == (2, 2, 0)


def test_nothing_private_is_recorded(capture: Any) -> None:
    """What values say of themselves holds addresses and paths; their types are enough to see why they are left out."""
    found, done = capture("private")
    assert counts(found) == {"kernels:every": 1}
    assert {(item.what, item.reason) for item in found.left_out} == {
        ("kernels:every", "a value of type Private has no JSON form"),
        ("kernels:every", "a string of the launch may be a path"),
    }
    for text in ("secret", "/home", "sss"):
        assert text not in FORM.encode(found).decode() + done.out + done.err


@pytest.mark.parametrize("mode", ["spawn", "fork"])
def test_several_processes(capture: Any, mode: str) -> None:
    found, _ = capture(mode)
    assert counts(found)["kernels:every"] == 2
    assert found.processes == 2
    assert {launch.processes for kernel in found.kernels for launch in kernel.launches} == {1}
    assert counts(found).get("kernels:tuned") == (1 if mode == "fork" else None)


def test_a_killed_child_leaves_what_it_had_and_the_status_is_the_commands(capture: Any) -> None:
    found, _ = capture("killed", code=7)
    assert counts(found) == {"kernels:every": 2}
    assert found.processes == 2


def test_a_program_started_by_the_command(capture: Any) -> None:
    assert counts(capture("subprocess")[0]) == {"kernels:every": 1, "kernels:tuned": 1}


def test_the_next_sitecustomize_still_runs(capture: Any, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text("import os\nopen(os.environ['MARK'], 'w').close()\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    found, _ = capture("one", PYTHONPATH=path, MARK=str(tmp_path / "mark"))
    assert (tmp_path / "mark").exists()
    assert found.launches == 2


def test_a_python_without_this_package_is_recorded_too(capture: Any, tmp_path: Path) -> None:
    """The command may run in another environment: the recorder finds itself, and leaves the path as it was."""
    code = "import sys; import gdn_aot.capture.recorder; assert not [p for p in sys.path if p == sys.argv[1]], sys.path"
    from gdn_aot.capture.run import environment as recorded

    env = recorded({name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_launched_is_an_error_and_writes_nothing(capture: Any) -> None:
    found, done = capture("nothing", code=3)
    assert found is None
    expect_error(done, 3, "nothing-selected")


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    words = ("capture", "-o", tmp_path / "c.json", "--json", "--", "no-such-program")
    done = gdn_aot(*words, home=tmp_path, code=2, process=True)
    expect_error(done, 2, "usage")
    assert not list(tmp_path.glob("*c.json*"))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    done = gdn_aot("capture", "-o", tmp_path / "no/c.json", "--json", "--", "true", home=tmp_path, code=9)
    expect_error(done, 9, "not-writable")


def test_stdout_of_the_command_stays_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('hello')"]
    done = gdn_aot("capture", "-o", tmp_path / "c.json", "--", *command, home=tmp_path, code=3, process=True)
    assert done.out == "hello\n"


def recording(folder: Path, ready: Path, **options: Any) -> subprocess.Popen[Any]:
    """Start a recording of a program that makes ``ready`` when it has launched a kernel, and then waits."""
    command = [sys.executable, str(PROGRAM), "wait", str(ready)]
    return subprocess.Popen(
        [sys.executable, "-m", "gdn_aot", "capture", "-o", str(folder / "c.json"), "--", *command],
        env=environment(folder, {"TRITON_CACHE_DIR": str(folder / "triton")}),
        stdin=subprocess.DEVNULL,
        **options,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_and_what_it_had_is_kept(tmp_path: Path, number: int) -> None:
    ready = tmp_path / "ready"
    process = recording(tmp_path, ready, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(ready)
    process.send_signal(number)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == (5 if number == signal.SIGTERM else 128 + signal.SIGINT), err
    assert load(tmp_path / "c.json").launches == 1


def wait_for(path: Path) -> None:
    until = time.monotonic() + TIMEOUT
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)


def test_the_commands_of_the_docs_end_a_recording(tmp_path: Path) -> None:
    """As in docs/how-to/capture.md, in a shell with job control; the command is told once to end."""
    ready = tmp_path / "ready"
    script = f"""set -m
{sys.executable} -m gdn_aot capture -o c.json -- {sys.executable} {PROGRAM} signals {ready} & pid=$!
while [ ! -e {ready} ]; do sleep 0.1; done
kill $pid
wait $pid"""
    done = subprocess.run(
        ["bash", "-c", script], env=environment(tmp_path, {"TRITON_CACHE_DIR": str(tmp_path / "triton")}),
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stdout.split() == ["SIGTERM"], done.stderr
    assert load(tmp_path / "c.json").launches == 1
    shown = (ROOT / "docs/how-to/capture.md").read_text()
    assert "& pid=$!\n" in shown
    assert "\nkill $pid\n" in shown


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
def test_a_key_of_the_terminal_reaches_the_command_once(tmp_path: Path, key: bytes, name: str) -> None:
    ready = tmp_path / "ready"
    terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    process = subprocess.Popen(
        [sys.executable, "-c", terminal, sys.executable, "-m", "gdn_aot", "capture", "-o", str(tmp_path / "c.json"),
         "--", sys.executable, str(PROGRAM), "signals", str(ready)],
        env=environment(tmp_path, {"TRITON_CACHE_DIR": str(tmp_path / "triton")}), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(ready)
    assert process.stdin is not None
    process.stdin.write(key)
    process.stdin.flush()
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    assert out.decode().count(name) == 1, out
    assert load(tmp_path / "c.json").launches == 1


def test_what_a_killed_recording_left_is_merged(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    nowhere = subprocess.DEVNULL
    process = recording(tmp_path, ready, stdout=nowhere, stderr=nowhere, start_new_session=True)
    wait_for(ready)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=TIMEOUT)
    (folder,) = tmp_path.glob(".c.json-*")
    done = gdn_aot("capture", "--merge", folder, "-o", tmp_path / "m.json", "--json", home=tmp_path)
    assert (done.json["launches"], done.json["status"]) == (1, None)
    assert load(tmp_path / "m.json").launches == 1
    assert folder.is_dir(), "processes may still be recorded into it"


def test_errors_after_the_run_name_what_is_left(tmp_path: Path) -> None:
    """The file's place is a directory by the time that it is written."""
    code = f"import os, sys; os.mkdir('c.json'); sys.argv[1:] = ['one']; exec(open({str(PROGRAM)!r}).read())"
    start = f"__file__ = {str(PROGRAM)!r}; "
    done = gdn_aot(
        "capture", "-o", "c.json", "--json", "--", sys.executable, "-c", start + code, home=tmp_path, code=9,
        extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")},
    )  # fmt: skip
    (folder,) = tmp_path.glob(".c.json-*")
    assert f"capture --merge {folder.name} -o FILE" in expect_error(done, 9, "not-writable")["hint"]
    gdn_aot("capture", "--merge", folder, "-o", "m.json", home=tmp_path)
    assert load(tmp_path / "m.json").launches == 2


def test_folders_that_are_no_recording(tmp_path: Path) -> None:
    def merge(folder: Path, code: int, kind: str) -> dict[str, str]:
        done = gdn_aot("capture", "--merge", folder, "-o", tmp_path / "m.json", "--json", home=tmp_path, code=code)
        assert not (tmp_path / "m.json").exists()
        return expect_error(done, code, kind)

    assert "cannot read the folder" in merge(tmp_path / "none", 2, "usage")["message"]
    (tmp_path / "file").write_text("")
    merge(tmp_path / "file", 2, "usage")
    folder = tmp_path / "folder"
    folder.mkdir()
    merge(folder, 3, "nothing-selected")
    (folder / "notes.txt").write_text("")
    assert "holds nothing" in merge(folder, 5, "verification")["message"]
    (folder / "1.jsonl").write_text('{"format": 1}\n')
    assert "1.jsonl is left out: it has no header" in str(merge(folder, 5, "verification"))
    header = '{"format": 1, "tool": "", "triton": "3.6.0"}\n'
    (folder / "1.jsonl").write_text(header)
    merge(folder, 3, "nothing-selected")
    (folder / "1.jsonl").write_text(header + '{"kernel": {}, "number": 0}\n{"launch": {"kernel": 0}}\n')
    assert merge(folder, 5, "verification")["hint"].startswith("record again")


def test_a_command_and_a_folder_are_alternatives(tmp_path: Path) -> None:
    for more in (["--merge", tmp_path, "--", "true"], []):
        done = gdn_aot("capture", "-o", tmp_path / "c.json", "--json", *more, home=tmp_path, code=2)
        assert "--merge FOLDER" in expect_error(done, 2, "usage")["hint"]


def test_nothing_of_the_machine_is_in_it(capture: Any, tmp_path: Path) -> None:
    found, _ = capture("one")
    text = FORM.encode(found).decode()
    assert str(tmp_path) not in text
    assert str(ROOT) not in text
    assert "0x" not in text


def test_a_launch_seen_before_is_cheap(tmp_path: Path) -> None:
    """The hundredth launch of a key writes nothing and packs nothing."""
    code = """
import sys, json
sys.argv = ["program", "none"]
import program
program.start(); program.add()
from gdn_aot.triton_internals import observing
observing.pack_launch = None  # would raise
before = [path.stat().st_size for path in folder.iterdir()]
for _ in range(100):
    program.add()
print(json.dumps([before, [path.stat().st_size for path in folder.iterdir()]]))
"""
    from helpers import python

    (tmp_path / "folder").mkdir()
    start = f"""
import pathlib, sys
sys.path.insert(0, {str(PROGRAM.parent)!r})
folder = pathlib.Path({str(tmp_path / "folder")!r})
from gdn_aot.capture import recorder
recorder.start(str(folder))
"""
    before, after = python(start + code, home=tmp_path, extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")})
    assert before == after
    assert len(before) == 1
    assert before[0] > 0

"""What long commands say while they work: what is done, what is left, for about how long."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builds import Built
from helpers import ROOT, TIMEOUT

from gdn_aot._text import duration
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.building.coverage import built_shapes, cover
from gdn_aot.cli import _output, _progress


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Clock:
    """What the time is said to be, in seconds."""

    now = 100.0

    def monotonic(self) -> float:
        """Return it."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have time pass only as the test says."""
    clock = Clock()
    monkeypatch.setattr(_progress, "time", clock)
    return clock


def test_a_terminal_shows_what_is_left(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("sys.stderr", shown := Terminal())
    with _progress.Progress("build") as progress:
        progress.update(40, 100, "compiling")  # these were in the cache: they say nothing of the pace
        clock.now += 10
        progress.update(50, 100, "compiling")
        clock.now += 10
        progress.update(70, 100, "compiling")
        progress.update(0, 0, "packing")
        progress.update(0, 10, "compiling the next")
    lines = [line.strip() for line in shown.getvalue().split("\r")]
    assert lines[1].endswith("40/100 compiling")
    assert lines[2].endswith("50/100 compiling, 50 s left")
    assert lines[3].endswith("70/100 compiling, 20 s left")
    assert lines[4] == "build packing"
    assert lines[5].endswith("0/10 compiling the next")
    assert lines[6:] == ["", ""]


def test_a_step_of_many_requests_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    step = f"decode(groups=({', '.join(['(1, 100, 1, 0, False)'] * 500)}))"
    for terminal in (False, True):
        if terminal:
            monkeypatch.setattr("sys.stderr", written := Terminal())
        with _progress.Progress("coverage") as progress:
            progress.update(0, 1000, step)
            clock.now += 40
            progress.update(500, 1000, step)
    (logged,) = capsys.readouterr().err.splitlines()
    assert logged.startswith("coverage: 500 of 1000, decode(groups=((1, 100, 1, 0, False), ")
    assert logged.endswith("..., 40 s left")
    live = written.getvalue().split("\r")[2]
    assert live.endswith(", 40 s left")
    assert len(live) == 79, "a terminal of 80 columns"


def test_what_is_said_meanwhile_begins_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", shown := Terminal())
    with _progress.Progress("build") as progress:
        progress.update(0, 0, "packing")
        _output.note("sm_90: packed")
    assert shown.getvalue().split("\r") == ["", "build packing", " " * 13, "sm_90: packed\n"]
    assert _output.LIVE == []


def test_a_log_gets_a_line_twice_a_minute(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with _progress.Progress("build") as progress:
        for done in range(100):
            progress.update(done, 100, "sm_90: compiling")
            clock.now += 0.9
    assert capsys.readouterr().err.splitlines() == [
        "build: 34 of 100, sm_90: compiling, 59 s left",
        "build: 68 of 100, sm_90: compiling, 29 s left",
    ]


def test_a_short_command_logs_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with _progress.Progress("build") as progress:
        progress.update(0, 0, "tracing")
        clock.now += 29
        progress.update(1, 2, "compiling")
    assert capsys.readouterr().err == ""


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.2, 89.4, 90, 5399, 5400)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h"]


def test_coverage_says_how_far_it_is(decode: Built) -> None:
    manifest = open_artifact(Path(decode.path)).manifest
    told: list[tuple[int, int, str]] = []
    cover(manifest, built_shapes(manifest), manifest.workloads, lambda *row: told.append(row), calls=400, seed=1)
    assert told
    assert {total for _, total, _ in told} == {400}
    assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})
    assert all("qwen3.5-9b tp 1" in what for _, _, what in told)


def test_a_build_on_a_terminal_names_what_it_traces_and_compiles(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    small = "heads=2,v_heads=4,k_dim=64,v_dim=64,dtype=bf16"
    build = ["build", "--arch", "sm_90", "--arch", "sm_80", "--shape", small, "--workload", "transformers-decode"]
    command = [sys.executable, "-m", "gdn_aot", *build, "-j", "1", "-o", str(tmp_path / "out")]
    environment = {**os.environ, "TERM": "xterm", "GDN_AOT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--cache-dir", str(tmp_path / "cache")], stderr=theirs, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the terminal's other side is closed
            pass
        assert process.wait(TIMEOUT) == 0
    os.close(ours)
    text = shown.decode()
    assert "build 1 of 2, sm_90: tracing" in text
    assert "] 0/1 1 of 2, sm_90: tracing transformers-" in text
    assert re.search(r"\] \d+/\d+ 2 of 2, sm_80: compiling", text)

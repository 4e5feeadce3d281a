"""Compilers that break, hang, are interrupted or take their time."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import triton
from helpers import TIMEOUT, environment, expect_error, gdn_aot
from jobs import make_job
from processes import living

from gdn_aot.building import pipeline
from gdn_aot.catalogue.providers import PROVIDERS, Limits
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.executor import Answer, LocalCompiling

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_KERNEL = "fla.ops.gated_delta_rule.fused_recurrent:fused_recurrent_gated_delta_rule_fwd_kernel"
_ARGUMENTS = ("--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-decode")

_FAKE = """#!/bin/sh
# Answers probes with the real assembler; breaks on kernels.
for argument in "$@"; do
  case "$argument" in --version|/dev/null) exec "{real}" "$@";; esac
done
echo "$@" >> "{log}"
{then}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Make an assembler that does ``then`` for kernels; return the environment that selects it."""

    def make(then: str) -> dict[str, str]:
        path = tmp_path / "ptxas-blackwell"
        path.write_text(_FAKE.format(real=_TOOLS / "ptxas-blackwell", log=tmp_path / "asked", then=then))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return {"TRITON_PTXAS_BLACKWELL_PATH": str(path)}

    return make


def _asked(tmp_path: Path) -> int:
    return len((tmp_path / "asked").read_text().splitlines())


@pytest.mark.parametrize("extra", [(), ("--keep-going",)], ids=["stop", "keep going"])
def test_an_assembler_that_hangs_is_stopped(
    tmp_path: Path, fake: Callable[[str], dict[str, str]], extra: tuple[str, ...]
) -> None:
    done = gdn_aot(
        "build", *_ARGUMENTS, *extra, "--timeout", "5", "-o", tmp_path / "out", "--json",
        home=tmp_path, extra=fake("exec sleep 1000"), code=0 if extra else 6,
    )  # fmt: skip
    assert _asked(tmp_path) >= 2
    if not extra:
        message = expect_error(done, 6, "compile")["message"]
        assert message.count("did not finish in 5 s") == message.count("\n") == _asked(tmp_path)
        assert f"sm_120: {_KERNEL} with " in message
        assert list((tmp_path / "out").iterdir()) == []
    else:
        assert {failure["kernel"] for failure in done.json["failures"]} == {_KERNEL}
        assert {failure["arch"] for failure in done.json["failures"]} == {"sm_120"}
        assert all("did not finish in 5 s" in failure["message"] for failure in done.json["failures"])
        (artifact,) = done.json["artifacts"]
        assert artifact["binaries"] == 0
        assert _KERNEL in {gap["kernel"] for gap in artifact["not_covered"]}
        assert gdn_aot("verify", artifact["path"], home=tmp_path).code == 0


_BREAKS = [
    ("kill -SEGV $$", "", "139"),
    ('echo "ptxas fatal   : Internal error: something specific" >&2; exit 1', "something specific", "1"),
]


@pytest.mark.parametrize(("then", "said", "status"), _BREAKS, ids=["crash", "message"])
def test_an_assembler_that_refuses_leaves_no_silent_gap(
    tmp_path: Path, fake: Callable[[str], dict[str, str]], then: str, said: str, status: str
) -> None:
    """An assembler that breaks is a failure, whatever its exit status; with --keep-going the gap is listed."""
    arguments = ("build", *_ARGUMENTS, "-o", tmp_path / "out", "--json")
    done = gdn_aot(*arguments, home=tmp_path, extra=fake(then), code=6)
    assert _asked(tmp_path) >= 2
    told = expect_error(done, 6, "compile")["message"]
    assert list((tmp_path / "out").iterdir()) == []
    (artifact,) = gdn_aot(*arguments, "--keep-going", home=tmp_path, extra=fake(then)).json["artifacts"]
    assert artifact["binaries"] == 0
    listed = "\n".join(f"{gap['kernel']}: {gap['reason']}" for gap in artifact["not_covered"])
    assert said in listed
    assert tempfile.gettempdir() not in listed + told, "what is in the manifest must not name this machine"
    assert _KERNEL in told
    assert said in told
    assert "ptxas" in told.lower() or status in told


def test_a_crashing_assembler_is_not_remembered_as_a_refusal(
    tmp_path: Path, fake: Callable[[str], dict[str, str]]
) -> None:
    """A crash depends on the machine (memory, a broken file); the next build must try again."""
    gdn_aot("build", *_ARGUMENTS, "-o", tmp_path / "out", home=tmp_path, extra=fake("kill -KILL $$"), code=None)
    first = _asked(tmp_path)
    gdn_aot("build", *_ARGUMENTS, "-o", tmp_path / "out", home=tmp_path, extra=fake("kill -KILL $$"), code=None)
    assert _asked(tmp_path) == 2 * first


@contextmanager
def _building(home: Path, *arguments: object, **extra: str) -> Iterator[subprocess.Popen[str]]:
    """Start a build that leads its process group; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gdn_aot", "build", *map(str, arguments)],
        env=environment(home, extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _wait(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a build has put a file below a folder."""
    end = time.monotonic() + TIMEOUT
    while not (folder.is_dir() and any(path.is_file() for path in folder.rglob("*"))):
        assert process.poll() is None, "it ended before it was interrupted"
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_an_interrupted_build_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    home, output, scratch = (tmp_path / name for name in ("home", "out", "scratch"))
    scratch.mkdir()

    def ours() -> list[int]:
        return living("environ", lambda data: str(home).encode() in data)

    with _building(home, "--arch", "sm_90", "--model", "qwen3.5-9b", "-o", output, TMPDIR=str(scratch)) as process:
        _wait(home / "build" / "cubins", process)
        assert len(ours()) >= 3, "the command, its worker and at least one compile worker"
        # As a terminal does: the signal goes to the foreground process group.
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=TIMEOUT)
    end = time.monotonic() + TIMEOUT
    while (left := ours()) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []
    assert list(scratch.iterdir()) == []
    assert list(output.iterdir()) == []
    assert out == ""
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "Error: interrupted" in err
        assert "Traceback" not in err
        assert [path for path in home.rglob(".tmp-*")] == []  # noqa: C416


def test_a_second_build_uses_what_an_interrupted_one_compiled(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with _building(home, *_ARGUMENTS, "-j", 1, "-o", tmp_path / "out") as process:
        _wait(home / "build" / "launches", process)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    (row,) = gdn_aot("build", *_ARGUMENTS, "-o", tmp_path / "out", "--json", home=home).json["artifacts"]
    assert 0 < row["compiled"] < row["binaries"]


# What a compile is said to have taken: CPU time, that of the assembler included and waiting left out


_WAITS, _BURNS = 4.0, 1.0
"""Seconds that the assembler sleeps, and that it computes."""


def test_computing_counts_and_waiting_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Callable[[str], dict[str, str]]
) -> None:
    answers: list[Answer] = []
    receive = LocalCompiling.receive

    def heard(workers: LocalCompiling) -> Answer:
        answers.append(receive(workers))
        return answers[-1]

    monkeypatch.setattr(LocalCompiling, "receive", heard)
    burn = f"import time\nwhile time.process_time() < {_BURNS}: pass"
    then = f"sleep {_WAITS}\n{sys.executable} -c '{burn}'\nexec {_TOOLS / 'ptxas-blackwell'} \"$@\""
    for name, value in fake(then).items():
        monkeypatch.setenv(name, value)
    shape, limits = "heads=2,v_heads=2,k_dim=64,v_dim=64,dtype=bf16", Limits(max_tokens=64, max_batch=1)
    options: dict[str, Any] = {"workloads": ["gated-norm"], "limits": limits, "jobs": 1, "timeout": 300}
    job, target = make_job(tmp_path / "cache", tmp_path, shapes=[shape], **options), get_target("sm_120")
    with ExitStack() as stack:
        lazy = pipeline.LazyWorker(stack, PROVIDERS["fla"], target)
        run = pipeline.compile_target(job, target, lazy, lambda *_: None).run
    compiled = [answer.seconds for answer in answers if not answer.reused]
    assert compiled
    assert all(_BURNS <= seconds < _WAITS for seconds in compiled), compiled
    assert sum(answer.seconds for answer in answers) == pytest.approx(sum(run.spent.values()))
    assert all(answer.object is not None for answer in answers)

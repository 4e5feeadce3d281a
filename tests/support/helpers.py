"""Run this package's command line, in this process or one of its own, and pieces of code in processes of their own."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SUPPORT = Path(__file__).parent
WITH_SUPPORT = f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
"""What code for `python` begins with to import modules that lie here."""
ABSENT = SUPPORT / "absent"
"""On the path of a Python that has SGLang: what it imports and need not be there."""
TIMEOUT = 1500.0
"""Seconds after which a process counts as hanging: far beyond what any takes on a loaded machine."""
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""For processes whose files may not grow: Python would leave half of a ``.pyc`` behind, which nothing notices."""


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment with our package importable, a build cache below ``home``, and no Triton settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "FLA_", "GDN_AOT"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "GDN_AOT_HOME": str(home), "NO_COLOR": "1", **(extra or {})}


def run(command: list[str], home: Path, extra: Mapping[str, str] | None = None, cwd: Path | None = None) -> Done:
    """Run a command to its end."""
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command,
        env=environment(home, extra),
        cwd=cwd or home,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def gdn_aot(
    *args: object, home: Path, extra: Mapping[str, str] | None = None, code: int | None = 0, process: bool = False
) -> Done:
    """Run a command line and check its exit code, unless that is None.

    It runs in this process, whose second child needs no new import of the provider, unless the interpreter or a library
    would read a variable of `extra` when it starts, or `process` says so.
    """
    words = [*map(str, args)]
    if process or not all(name.startswith("GDN_AOT") for name in extra or ()):
        done = run([sys.executable, "-m", "gdn_aot", *words], home, extra)
    else:
        done = _run_here(words, home, extra)
    assert code is None or done.code == code, (
        f"exit {done.code}, expected {code}\n{done.out[-3000:]}\n{done.err[-3000:]}"
    )
    assert "Traceback (most recent call last)" not in done.err
    return done


def _run_here(words: list[str], home: Path, extra: Mapping[str, str] | None) -> Done:
    from gdn_aot.cli import main
    from gdn_aot.machine import installed

    home.mkdir(parents=True, exist_ok=True)
    before, place, handler = dict(os.environ), Path.cwd(), signal.getsignal(signal.SIGTERM)
    out, err = io.StringIO(), io.StringIO()
    variables = environment(home, extra)
    installed.forget()
    try:
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(home)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.run(words)
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.chdir(place)
        signal.signal(signal.SIGTERM, handler)
    return Done(code, out.getvalue(), err.getvalue())


def python(code: str, *args: object, home: Path, extra: Mapping[str, str] | None = None) -> Any:
    """Run Python code that prints one JSON document as the last line of stdout; return it."""
    done = run([sys.executable, "-W", "error::SyntaxWarning", "-c", code, *map(str, args)], home, extra)
    assert done.code == 0, done.err[-4000:]
    return json.loads(done.out.splitlines()[-1])


def expect_error(done: Done, code: int, kind: str) -> dict[str, str]:
    """Check the form that every error has on both streams; return the JSON one."""
    assert done.code == code, done.err
    hints = [line for line in done.err.splitlines() if line.startswith("Hint: ")]
    assert len(hints) == 1, done.err
    assert "Traceback" not in done.err
    assert "Traceback" not in done.out
    error: dict[str, str] = done.json["error"]
    assert error["code"] == kind
    assert "Error: " + error["message"].replace("\n", "\n  ") in done.err
    assert hints == [f"Hint: {error['hint']}"]
    return error

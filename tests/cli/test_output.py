"""Text that is not ours: on stdout, stderr and in JSON it steers no terminal, begins no line and shows no token."""

import io
import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT, TIMEOUT

from gdn_aot._text import printable, shown
from gdn_aot.cli import _output, _progress, main
from gdn_aot.errors import CompileFailedError, Problem, SignatureError

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x7f \u202eevil\u2028\r\nHint: do this\x00 \udcff\t"


def _harmless(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)
    assert not [line for line in text.split("\n") if line.startswith("Hint: do")]


def test_nothing_is_said_twice() -> None:
    """To a person: a program finds each problem in its place."""
    place, what = "/store/artifacts/one", "is for another index than the present one"
    error = SignatureError(f"{place}: the signature {what}", [Problem(place, what)])
    assert _output.problems_of(error, brief=True) == []
    assert len(_output.problems_of(error)) == 1
    more = SignatureError(error.message, [*error.problems, Problem("/store/artifacts/two", what)])
    assert len(_output.problems_of(more, brief=True)) == 2
    other = SignatureError("one problem", [Problem(place, what)])
    assert len(_output.problems_of(other, brief=True)) == 1


def test_everything_that_is_written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    _output.tell(HOSTILE, HOSTILE, [Problem(HOSTILE, HOSTILE)])
    _output.note(f"Warning: {shown(HOSTILE)}")
    _output.note_some([HOSTILE], 1)
    _output.out(_output.table([(HOSTILE, 1)], ("what", "n")))
    done = capsys.readouterr()
    _harmless(done.out)
    _harmless(done.err)
    _output.emit_json({HOSTILE: [HOSTILE, "é漢"]})
    text = capsys.readouterr().out
    _harmless(text)
    assert "é漢" in text
    ((name, values),) = json.loads(text).items()
    assert name == values[0] == HOSTILE.replace("\udcff", "\ufffd")


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    with _progress.Progress("build") as progress:
        progress.update(1, 2, HOSTILE)
    assert isinstance(sys.stderr, Terminal)
    assert sys.stderr.getvalue().replace("\r", "").isprintable()


def test_a_path_for_programs_has_its_own_bytes() -> None:
    paths = [b"/a b/\x1b[31m", "/é".encode(), b"/\xff\xfe"]
    program = "import sys; from gdn_aot.cli._output import out_path\nfor path in sys.argv[1:]: out_path(path)"
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            [sys.executable, "-c", program, *paths],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
            capture_output=True, timeout=TIMEOUT, check=True,
        )  # fmt: skip
        assert done.stdout == b"".join(path + b"\n" for path in paths)


def test_what_is_printable_stays() -> None:
    assert printable("a é漢 b") == "a é漢 b"
    assert printable("a\nb\x1b", "\n") == "a\nb\\x1b"
    assert shown("a\n b" + "x" * 300) == "a b" + "x" * 197 + "..."


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_that_nobody_expected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, debug: bool
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(f"{HOSTILE} of hf_secretSECRETsecret {'x' * 100_000}")

    monkeypatch.setattr(main.cli, "main", broken)
    monkeypatch.setenv("GDN_AOT_LOG", "debug" if debug else "")
    monkeypatch.setenv("NO_COLOR", "1")
    assert main.run(["targets"]) == 1
    err = capsys.readouterr().err
    _harmless(err)
    assert "secretSECRET" not in err
    assert ("Traceback" in err) == debug


def test_lines_of_a_message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise CompileFailedError("2 kernels did not compile:\n  one\nHint: do this")

    monkeypatch.setattr(main.cli, "main", broken)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main.run(["build"]) == 6
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["Error: 2 kernels did not compile:", "    one", "  Hint: do this"]


_LOGGING = """
import logging, sys
from gdn_aot.cli import main
main._show_log()
for name in ("httpx", "huggingface_hub.x", "gdn_aot.registry"):
    log = logging.getLogger(name)
    log.debug("%s", sys.argv[1])
    try:
        raise ValueError(sys.argv[1])
    except ValueError:
        log.exception("caught")
logging.getLogger("gdn_aot.registry.guard").warning("in clear")
"""


@pytest.mark.parametrize("level", ["debug", ""])
def test_the_log(level: str) -> None:
    said = "\x1b[31m\x9b2J\nINFO:gdn_aot:faked Bearer abcdefgh hf_secretSECRETsecret corporate-token"
    done = subprocess.run(
        [sys.executable, "-c", _LOGGING, said],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GDN_AOT_LOG": level, "HF_TOKEN": "corporate-token",
             "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=TIMEOUT, check=True,
    )  # fmt: skip
    _harmless(done.stderr)
    assert not [word for word in ("secretSECRET", "abcdefgh", "corporate-token") if word in done.stderr]
    assert ("DEBUG:httpx:" in done.stderr) == bool(level)
    assert not [line for line in done.stderr.splitlines() if line.startswith("INFO:gdn_aot:faked")]
    assert "Warning: in clear\n" in done.stderr or level

"""The command line's frame: help, errors in both forms, exit codes, and the listing commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from gdn_aot import __version__
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.cli import main as cli_main
from gdn_aot.cli._output import Progress, table
from gdn_aot.errors import NothingSelectedError, Problem, VerificationError

Out = pytest.CaptureFixture[str]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException]:
    """A command ``boom`` that raises what the test puts under ``error``."""
    box: dict[str, BaseException] = {}

    @click.command("boom")
    @click.option("--json", "as_json", is_flag=True)
    def command(*, as_json: bool) -> None:
        raise box["error"]

    module = types.ModuleType("gdn_aot.cli.boom")
    module.__dict__["command"] = command
    monkeypatch.setitem(sys.modules, "gdn_aot.cli.boom", module)
    monkeypatch.setitem(cli_main.COMMANDS, "boom", "Fail.")
    return box


@pytest.mark.parametrize("args", [["-h"], ["--help"], []])
def test_help_lists_every_command(args: list[str], capsys: Out) -> None:
    assert cli_main.run(args) == 0
    shown = capsys.readouterr().out
    for title, lines in cli_main.GROUPS.items():
        group = shown.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in group.splitlines() if line[2] != " "] == list(lines)
    files = {path.stem for path in Path(cli_main.__file__).parent.glob("[a-z]*.py")}
    assert sorted(cli_main.COMMANDS) == sorted(files - {"main"})


def test_version(capsys: Out) -> None:
    assert cli_main.run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("name", ["targets", "models", "providers"])
def test_command_help(name: str, capsys: Out) -> None:
    assert cli_main.run([name, "-h"]) == 0
    assert "--json" in capsys.readouterr().out


def test_unknown_command_gets_a_suggestion(capsys: Out) -> None:
    assert cli_main.run(["bild"]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert "Error: No such command 'bild'. Did you mean 'build'?" in caught.err
    assert cli_main.run(["xyz"]) == 2
    assert "Commands are targets, models" in capsys.readouterr().err


def test_usage_error_is_json_too(capsys: Out) -> None:
    assert cli_main.run(["models", "--json", "--nope"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert "--nope" in error["message"]
    assert error["hint"] == "see gdn-aot models --help"


def test_own_error(failing: dict[str, BaseException], capsys: Out) -> None:
    failing["error"] = NothingSelectedError("nothing fits", hint="ask\nfor more")
    assert cli_main.run(["boom", "--json"]) == 3
    caught = capsys.readouterr()
    assert caught.err == "Error: nothing fits\nHint: ask for more\n"
    assert json.loads(caught.out) == {
        "error": {"code": "nothing-selected", "message": "nothing fits", "hint": "ask for more"}
    }
    assert cli_main.run(["boom"]) == 3
    assert capsys.readouterr().out == ""


def test_verification_error_carries_every_problem(failing: dict[str, BaseException], capsys: Out) -> None:
    failing["error"] = VerificationError("bad", [Problem("a", "is wrong"), Problem("", "is short")])
    assert cli_main.run(["boom", "--json"]) == 5
    problems = json.loads(capsys.readouterr().out)["error"]["problems"]
    assert problems == [{"where": "a", "what": "is wrong"}, {"where": "", "what": "is short"}]
    assert cli_main.run(["boom"]) == 5
    assert "  a: is wrong\n  is short\n" in capsys.readouterr().err


def test_interrupt(failing: dict[str, BaseException], capsys: Out) -> None:
    failing["error"] = KeyboardInterrupt()
    assert cli_main.run(["boom"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_unexpected_error_has_a_traceback_only_on_request(
    failing: dict[str, BaseException], capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing["error"] = ValueError("one\ntwo")
    monkeypatch.delenv("GDN_AOT_LOG", raising=False)
    assert cli_main.run(["boom", "--json"]) == 1
    caught = capsys.readouterr()
    assert json.loads(caught.out)["error"]["code"] == "unexpected"
    assert "Error: ValueError: one two\n" in caught.err
    assert "Traceback" not in caught.err
    monkeypatch.setenv("GDN_AOT_LOG", "debug")
    assert cli_main.run(["boom"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_targets(capsys: Out) -> None:
    assert cli_main.run(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sm_120"]["capability"] == [12, 0]
    assert rows["sm_120"]["max_shared"] == 101376
    assert rows["sm_120"]["card"]["sm_count"] == 170
    assert rows["sm_120"]["assembles"] is True
    assert rows["sm_120"]["reason"] is None
    assert cli_main.run(["targets"]) == 0
    assert "NVIDIA GeForce RTX 5090" in capsys.readouterr().out


def test_targets_without_triton(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdn_aot.cli.targets.importlib.util.find_spec", {}.get)
    assert cli_main.run(["targets", "--json"]) == 0
    assert all(row["assembles"] is None and row["reason"] is None for row in json.loads(capsys.readouterr().out))


def test_models(capsys: Out) -> None:
    assert cli_main.run(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["qwen3.5-9b"]["tp"] == [1, 2, 4, 8]
    assert rows["olmo-hybrid-7b"]["tp"] == [1, 2]
    assert all(row["source"] and row["confidence"] for row in rows.values())
    assert cli_main.run(["models"]) == 0
    assert "qwen3.5-9b" in capsys.readouterr().out


def test_providers(capsys: Out) -> None:
    assert cli_main.run(["providers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(PROVIDERS)
    assert rows[0]["distribution"] == "fla-core"
    assert rows[0]["versions"]
    assert cli_main.run(["providers"]) == 0
    assert "fla-core" in capsys.readouterr().out


def test_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m gdn_aot models --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def test_output_is_plain_when_it_is_not_a_terminal(capsys: Out) -> None:
    with Progress("compile") as progress:
        progress.update(1, 2, "a kernel")
    assert cli_main.run(["nope"]) == 2
    caught = capsys.readouterr()
    assert "\x1b" not in caught.err
    assert "compile" not in caught.err


def test_table_aligns_numbers_right() -> None:
    assert table([("a", 1, None), ("bcd", 20, "x")], ("n", "size", "k")) == "n    size  k\na       1  -\nbcd    20  x"
    assert table([], ("a", "b")) == "a  b"


@pytest.mark.parametrize("plain", [False, True])
def test_a_terminal_gets_progress_and_colour(*, plain: bool) -> None:
    code = (
        "from gdn_aot.cli._output import Progress, note\n"
        "with Progress('compile') as progress: progress.update(1, 2, 'a kernel')\n"
        "note('Error: x')"
    )
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    if plain:
        environment["NO_COLOR"] = "1"
    ours, theirs = os.openpty()
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "\rcompile [###############...............] 1/2 a kernel\r" in shown
    assert ("\x1b[" in shown) is not plain

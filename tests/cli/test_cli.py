"""The command line's frame: help, errors in both forms, exit codes, and the listing commands."""

import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from helpers import TIMEOUT, Done, expect_error

from gdn_aot import __version__
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.cli import main as cli_main
from gdn_aot.cli._output import table
from gdn_aot.cli._progress import Progress
from gdn_aot.errors import NothingSelectedError, Problem, VerificationError

Command = Callable[..., Done]
CHECKS = ("verify", "inspect", "coverage", "check", "cache verify")


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
def test_help_lists_every_command(args: list[str], command: Command) -> None:
    shown = command(*args).out
    for title, lines in cli_main.GROUPS.items():
        group = shown.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in group.splitlines() if line[2] != " "] == list(lines)
    files = {path.stem for path in Path(cli_main.__file__).parent.glob("[a-z]*.py")}
    assert sorted(cli_main.COMMANDS) == sorted(files - {"main"})


def test_version(command: Command) -> None:
    assert __version__ in command("--version").out


def test_unknown_command_gets_a_suggestion(command: Command) -> None:
    done = command("bild", code=2)
    assert done.out == ""
    assert "Error: No such command 'bild'. Did you mean 'build'?" in done.err
    assert "Commands are fetch, lock" in command("xyz", code=2).err


def test_usage_error_is_json_too(command: Command) -> None:
    error = expect_error(command("models", "--json", "--nope", code=2), 2, "usage")
    assert "--nope" in error["message"]
    assert error["hint"] == "see gdn-aot models --help"


def test_own_error(failing: dict[str, BaseException], command: Command) -> None:
    failing["error"] = NothingSelectedError("nothing fits", hint="ask\nfor more")
    done = command("boom", "--json", code=3)
    assert done.err == "Error: nothing fits\nHint: ask for more\n"
    assert done.json == {"error": {"code": "nothing-selected", "message": "nothing fits", "hint": "ask for more"}}
    assert command("boom", code=3).out == ""


def test_verification_error_carries_every_problem(failing: dict[str, BaseException], command: Command) -> None:
    failing["error"] = VerificationError("bad", [Problem("a", "is wrong"), Problem("", "is short")])
    problems = command("boom", "--json", code=5).json["error"]["problems"]
    assert problems == [{"where": "a", "what": "is wrong"}, {"where": "", "what": "is short"}]
    assert "  a: is wrong\n  is short\n" in command("boom", code=5).err


def test_interrupt(failing: dict[str, BaseException], command: Command) -> None:
    failing["error"] = KeyboardInterrupt()
    assert "Traceback" not in command("boom", code=130).err


def test_unexpected_error_has_a_traceback_only_on_request(
    failing: dict[str, BaseException], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing["error"] = ValueError("one\ntwo")
    monkeypatch.delenv("GDN_AOT_LOG", raising=False)
    done = command("boom", "--json", code=1)
    assert done.json["error"]["code"] == "unexpected"
    assert "Error: ValueError: one two\n" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("GDN_AOT_LOG", "debug")
    assert "Traceback" in command("boom", code=1).err


def test_targets(command: Command) -> None:
    rows = {row["name"]: row for row in command("targets", "--json").json}
    row = rows["sm_120"]
    assert (row["capability"], row["max_shared"], row["card"]["sm_count"]) == ([12, 0], 101376, 170)
    assert (row["assembles"], row["reason"]) == (True, None)
    assert "NVIDIA GeForce RTX 5090" in command("targets").out


def test_targets_without_triton(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdn_aot.cli.targets.importlib.util.find_spec", {}.get)
    assert all(row["assembles"] is None and row["reason"] is None for row in command("targets", "--json").json)


def test_models(command: Command) -> None:
    rows = {row["name"]: row for row in command("models", "--json").json}
    assert rows["qwen3.5-9b"]["tp"] == [1, 2, 4, 8]
    assert rows["olmo-hybrid-7b"]["tp"] == [1, 2]
    assert all(row["source"] and row["confidence"] for row in rows.values())
    assert "qwen3.5-9b" in command("models").out


def test_providers(command: Command) -> None:
    rows = command("providers", "--json").json
    assert [row["name"] for row in rows] == list(PROVIDERS)
    assert rows[0]["distribution"] == "fla-core"
    assert rows[0]["versions"]
    assert "fla-core" in command("providers").out


def test_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m gdn_aot models --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.stderr == ""


def test_output_is_plain_when_it_is_not_a_terminal(command: Command) -> None:
    with Progress("compile") as progress:
        progress.update(1, 2, "a kernel")
    shown = command("nope", code=2).err
    assert "\x1b" not in shown
    assert "compile" not in shown


def test_table_aligns_numbers_right() -> None:
    assert table([("a", 1, None), ("bcd", 20, "x")], ("n", "size", "k")) == "n    size  k\na       1  -\nbcd    20  x"
    assert table([], ("a", "b")) == "a  b"


@pytest.mark.parametrize("plain", [False, True])
def test_a_terminal_gets_progress_and_colour(*, plain: bool) -> None:
    code = (
        "from gdn_aot.cli._output import note\nfrom gdn_aot.cli._progress import Progress\n"
        "with Progress('compile') as progress: progress.update(1, 2, 'a kernel')\n"
        "note('Error: x')"
    )
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    if plain:
        environment["NO_COLOR"] = "1"
    ours, theirs = os.openpty()
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, check=True, timeout=TIMEOUT)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "\rcompile [###############...............] 1/2 a kernel\r" in shown
    assert ("\x1b[" in shown) is not plain


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_says_what_the_other_four_do(command: Command, name: str) -> None:
    shown = command(*name.split(), "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    for other in CHECKS:
        assert bool(re.search(rf"^ +{other}  +\w.*\?$", shown, re.MULTILINE)) is (other != name), other

"""The ``gdn-aot`` command: a lazy group, and the one place that turns exceptions into exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from gdn_aot._text import shown
from gdn_aot._version import __version__
from gdn_aot.cli._group import SuggestingGroup
from gdn_aot.cli._output import describe, emit_json, indented, note, problems_of, tell
from gdn_aot.errors import GdnAotError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

GROUPS = {
    "Serve": {
        "fetch": "Install the fitting artifacts of a registry.",
        "lock": "Pin the artifacts that fetch would install in gdn-aot.lock.",
        "bundle": "Write the artifacts for a machine without a network into one file.",
        "cache": "Show and maintain the store: ls, rm, prune, verify.",
        "seed": "Write an artifact into a Triton cache directory.",
        "doctor": "Say whether serving processes here find their kernels in artifacts.",
    },
    "Build": {
        "build": "Trace, compile, choose and pack artifacts.",
        "capture": "Record the launches of a running deployment.",
        "coverage": "Replay random traffic against an artifact.",
        "verify": "Check every digest and rule of an artifact.",
    },
    "Tune": {
        "tune": "Measure candidates on this GPU and record the best.",
        "check": "Compare a target's kernels with float64 on this GPU.",
        "export": "Write choices as the provider's own configuration files.",
    },
    "Publish": {
        "publish": "Publish artifacts to the Hugging Face Hub or to a directory.",
        "keys": "List and add trusted publishers, and make signing keys.",
        "matrix": "List the artifacts that the project publishes.",
    },
    "Look": {
        "inspect": "Show the content of an artifact.",
        "report": "Write a page about artifacts and records, or about two compared.",
        "list": "List the artifacts of a registry and of the store, and whether they fit this machine.",
        "targets": "List GPU architectures, and those that the installed Triton can assemble.",
        "models": "List the catalogue of models.",
        "providers": "List kernel providers, and their installed versions.",
    },
}
"""The commands by what one wants, as ``--help`` shows them. Each is also a module here, and has one line of help."""
COMMANDS = {name: line for lines in GROUPS.values() for name, line in lines.items()}

_INTERRUPTED = 130
_LONGEST = 2000
"""Characters of an error that nobody expected."""


class LazyGroup(SuggestingGroup):
    """A group that imports the module of a command when the command is asked for."""

    def names(self) -> Collection[str]:
        """Return the names in the order of the table."""
        return COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the same."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or return None if there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"gdn_aot.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"gdn_aot.cli.{cmd_name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups of commands from the table, so that none has to be imported for it."""
        del ctx
        width = max(map(len, COMMANDS))
        for title, lines in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in lines.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 ok, 1 unexpected, 2 usage, 3 nothing selected, 4 no artifact, 5 verification failed, "
        "6 compile failed or spills, 7 registry, 8 offline miss, 9 not writable, 130 interrupted."
    ),
)
@click.version_option(__version__, "--version", prog_name="gdn-aot")
def cli() -> None:
    """Build, check and distribute ahead-of-time compiled Gated Delta Net kernels."""


def _fail(
    code: str, message: str, hint: str, exit_code: int, *, as_json: bool, error: GdnAotError | None = None
) -> int:
    """Report an error in both forms, with every problem found, and return its exit code."""
    tell(message, hint, [] if as_json or error is None else problems_of(error, brief=True))
    if as_json:
        emit_json({"error": describe(code, message, hint, [] if error is None else problems_of(error))})
    return exit_code


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else "see gdn-aot --help"


def _unexpected(error: Exception, *, as_json: bool) -> int:
    from gdn_aot.registry.failures import Secrets

    clean = Secrets(None).clean
    if _is_debug():
        note(indented(clean("".join(traceback.format_exception(error)).rstrip())))
    message = shown(clean(f"{type(error).__name__}: {error}"), _LONGEST)
    return _fail("unexpected", message, GdnAotError.default_hint, GdnAotError.exit_code, as_json=as_json)


def _silence_stdout() -> None:
    """Point stdout at nothing, so that Python's own flush at exit does not fail on the closed pipe."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def run(args: Sequence[str]) -> int:
    """Run one command line.

    Args:
        args: What follows the program's name; nothing is the same as ``--help``.

    Returns:
        The exit code; see ``gdn_aot.errors``.
    """
    as_json = "--json" in args
    try:
        result = cli.main(args=list(args) or ["--help"], prog_name="gdn-aot", standalone_mode=False)
        sys.stdout.flush()
    except GdnAotError as error:
        return _fail(error.code, error.message, error.hint, error.exit_code, as_json=as_json, error=error)
    except click.ClickException as error:
        return _fail("usage", error.format_message(), _usage_hint(error), 2, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", "interrupted", "", _INTERRUPTED, as_json=as_json)
    except BrokenPipeError:  # click itself answers 1 when a write fails, this is for the last flush
        _silence_stdout()
        return 1
    except Exception as error:  # noqa: BLE001 - the last line of defence of a command line
        return _unexpected(error, as_json=as_json)
    return result if isinstance(result, int) else 0


def _is_debug() -> bool:
    return os.environ.get("GDN_AOT_LOG", "").lower() == "debug"


class _Log(logging.Handler):
    """Shows what is logged as notes, without secrets; only our own words begin a line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        from gdn_aot.registry.failures import Secrets

        note(indented(Secrets(None).clean(self.format(record))))


def _show_log() -> None:
    """Show what anybody warns of, or with ``GDN_AOT_LOG=debug`` all that is logged."""
    words, level = ("%(levelname)s:%(name)s:", logging.DEBUG) if _is_debug() else ("Warning: ", logging.WARNING)
    logging.basicConfig(format=f"{words}%(message)s", level=level, handlers=[_Log()])


def main() -> NoReturn:
    """Run the command line of this process: the console script ``gdn-aot``."""
    _show_log()
    sys.exit(run(sys.argv[1:]))

"""``gdn-aot capture``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note
from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from gdn_aot.capture.form import Capture


@click.command("capture", context_settings={"ignore_unknown_options": True})
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("capture.json"), show_default=True,
    help="The capture file.",
)  # fmt: skip
@click.option(
    "--merge", "folder", type=_options.path, metavar="FOLDER",
    help="Run nothing: make the file from the folder that a killed recording left beside it.",
)  # fmt: skip
@_options.as_json
@click.argument("command_line", metavar="-- CMD...", nargs=-1, type=click.UNPROCESSED)
def command(output: Path, folder: Path | None, command_line: tuple[str, ...], *, as_json: bool) -> None:
    """Run CMD and record the launches of every Triton kernel in its processes.

    CMD prints on stdout as usual; with --json its output goes to stderr. Exits with the status of CMD, or with 3 if
    that was 0 and CMD launched no kernel.
    """
    from gdn_aot.capture.run import merge, record

    if (folder is None) != bool(command_line):
        what = "no command is given" if folder is None else "--merge runs no command"
        raise UsageError(what, hint="gdn-aot capture -o FILE -- CMD, or gdn-aot capture --merge FOLDER -o FILE")
    status = None
    if folder is None:
        status, merged = record(command_line, output, keep_stdout=not as_json)
    else:
        merged = merge(folder, output)
    capture = merged.capture
    for text in merged.notes:
        note(text)
    for item in capture.left_out:
        note(f"left out: {item.what}: {item.reason}")
    if not capture.launches and not status:
        raise _nothing(folder)
    if as_json:
        emit_json(_described(capture, output, status))
    elif capture.launches:
        note(
            f"{output}: {capture.launches} launches of {len(capture.kernels)} kernels in {capture.processes} processes "
            f"on {', '.join(capture.targets)}"
        )
    if status:
        if not capture.launches:
            note("nothing was recorded")
        raise click.exceptions.Exit(status)


def _nothing(folder: Path | None) -> NothingSelectedError:
    from gdn_aot.capture.form import AGAIN

    if folder is not None:
        return NothingSelectedError(f"no launch was recorded in {folder}", hint=AGAIN)
    return NothingSelectedError(
        "CMD launched no Triton kernel in a Python process that could be recorded",
        hint="send it traffic; Python started with -I, -E or -S is not recorded",
    )


def _described(capture: Capture, output: Path, status: int | None) -> dict[str, object]:
    from msgspec import to_builtins

    return {
        "path": str(output) if capture.launches else None,
        "status": status,
        "triton": capture.triton,
        "targets": list(capture.targets),
        "processes": capture.processes,
        "kernels": len(capture.kernels),
        "launches": capture.launches,
        "left_out": to_builtins(capture.left_out),
    }

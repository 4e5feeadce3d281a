"""Run a command with the recorder in every Python process of it, and collect what they wrote."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot._files import write_whole
from gdn_aot.capture import form
from gdn_aot.capture.merge import merge_folder
from gdn_aot.errors import GdnAotError, NotWritableError, Problem, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gdn_aot.capture.merge import Merged

FOLDER = "GDN_AOT_CAPTURE_DIR"
"""Variable that holds the folder for the processes' files; with it unset nothing is recorded."""
SITE = str(Path(__file__).parent / "site")
_FOLDER_HINT = "the folder is named .FILE-XXXXXXXX and lies beside the file that was to be written"
_FROM_TERMINAL = ("SIGINT", "SIGQUIT")
"""What a terminal sends to all of its foreground process group, of which the command is too."""
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def record(command: Sequence[str], output: Path, *, keep_stdout: bool = True) -> tuple[int, Merged]:
    """Run a command to its end and write the capture. What its processes leave behind until then is in it.

    Returns the command's exit status, 128 and more for a signal as a shell has it, and what was recorded; if nothing
    was, ``output`` is not written. What the command prints goes to stderr unless it is to keep this stdout.

    Raises:
        UsageError: The command cannot be started.
        NotWritableError: The file or the folder beside it cannot be written.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise NotWritableError(f"cannot write to {output.parent}: {error.strerror}") from error
    try:
        stdout = None if keep_stdout else sys.stderr.fileno()
        status = _run(command, environment(os.environ, str(folder.absolute())), stdout)
        merged = _collect(folder, output)
    except BaseException as error:
        if not any(folder.iterdir()):
            folder.rmdir()
        elif isinstance(error, GdnAotError):
            error.hint = f"what was recorded is kept: gdn-aot capture --merge {shlex.quote(str(folder))} -o FILE"
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return status, merged


def merge(folder: Path, output: Path) -> Merged:
    """Write the capture of what an earlier recording left behind, which was killed or could not write its own.

    The folder stays: processes may still write to it. If nothing was launched, no capture is written.

    Raises:
        UsageError: There is no such folder, or it cannot be read.
        VerificationError: There is nothing of a recording in it, or what there is makes no capture.
        NotWritableError: The file cannot be written.
    """
    try:
        anything = any(folder.iterdir())
        merged = _collect(folder, output)
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}", hint=_FOLDER_HINT) from error
    if anything and not merged.capture.triton:
        problems = [Problem("", text) for text in merged.notes]
        raise VerificationError(f"{folder} holds nothing that gdn-aot capture records", problems, hint=_FOLDER_HINT)
    return merged


def _collect(folder: Path, output: Path) -> Merged:
    merged = merge_folder(folder)
    if merged.capture.launches:
        try:
            write_whole(output, form.FORM.encode(merged.capture), sync=True)
        except OSError as error:
            raise NotWritableError(f"cannot write {output}: {error.strerror}") from error
    return merged


def environment(given: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return an environment in which every Python process records into ``folder``, and those that it starts too."""
    path = os.pathsep.join([SITE, *filter(None, [given.get("PYTHONPATH")])])
    return {**given, "PYTHONPATH": path, FOLDER: folder}


def _run(command: Sequence[str], env: Mapping[str, str], stdout: int | None) -> int:
    try:
        process = subprocess.Popen(command, env=env, stdout=stdout)
    except OSError as error:
        raise UsageError(
            f"cannot run {command[0]}: {error.strerror}", hint="gdn-aot capture -o FILE -- PROGRAM ARGUMENT..."
        ) from error
    with _forwarding(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the command handle signals that are meant for it, and outlive it to collect what it wrote."""
    numbers = [getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)]
    saved = {number: signal.signal(number, partial(_forward, process)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _forward(process: subprocess.Popen[bytes], number: int, _frame: Any) -> None:
    if signal.Signals(number).name not in _FROM_TERMINAL or not _in_foreground():
        process.send_signal(number)


def _in_foreground() -> bool:
    """Say whether a key of the terminal has reached the command already, which is in this process's group."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False

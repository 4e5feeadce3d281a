"""Run a command with the recorder in every Python process of it, and collect what they wrote."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot._files import write_whole
from gdn_aot.capture import form
from gdn_aot.capture.merge import merge_folder
from gdn_aot.errors import NotWritableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gdn_aot.capture.merge import Merged

FOLDER = "GDN_AOT_CAPTURE_DIR"
"""Variable that holds the folder for the processes' files; with it unset nothing is recorded."""
SITE = str(Path(__file__).parent / "site")
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def record(command: Sequence[str], output: Path, *, keep_stdout: bool = True) -> tuple[int, Merged]:
    """Run a command to its end and write the capture. What its processes leave behind until then is in it.

    Args:
        command: Program and arguments.
        output: The capture file; one that is there is replaced when the command has ended.
        keep_stdout: The command has this process's stdout; else what it prints there goes to stderr.

    Returns:
        The command's exit status, 128 and more for a signal as a shell has it; and what was recorded. Where nothing
        was, ``output`` is not written.

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
        merged = merge_folder(folder)
        if merged.capture.launches:
            _write(output, form.dump(merged.capture))
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return status, merged


def environment(given: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return an environment in which every Python process records into ``folder``, and those that it starts too."""
    path = os.pathsep.join([SITE, *filter(None, [given.get("PYTHONPATH")])])
    return {**given, "PYTHONPATH": path, FOLDER: folder}


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content, sync=True)
    except OSError as error:
        raise NotWritableError(f"cannot write {path}: {error.strerror}") from error


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

    def forward(number: int, _frame: Any) -> None:
        if number != signal.SIGINT or not _terminal_sends_it():
            process.send_signal(number)

    numbers = [signal.SIGINT, *(getattr(signal, name) for name in _FORWARDED)]
    saved = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _terminal_sends_it() -> bool:
    """Say whether Ctrl-C of a terminal has reached the command already, which is in this process's group."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False

"""``gdn-aot doctor``."""

from __future__ import annotations

import sys

import click

from gdn_aot._files import read_regular
from gdn_aot._text import printable
from gdn_aot.cli import _options
from gdn_aot.cli._output import conclude, out
from gdn_aot.errors import NoArtifactError, UsageError

_MAX_LOG = 256 << 20
"""Bytes of a log."""


@click.command("doctor")
@click.option("--artifact", metavar="PATH", help="Look at this file, or the files in this directory, not at the store.")
@click.option("--deep", is_flag=True, help="Also check the digest of everything in the store.")
@click.option(
    "--start", "log", metavar="LOG", type=click.Path(allow_dash=True),
    help="Show instead where a start of vLLM spent its time, from its log; - is standard input.",
)  # fmt: skip
@_options.as_json
def command(artifact: str | None, *, deep: bool, log: str | None, as_json: bool) -> None:
    """Say whether serving processes here find their kernels in artifacts, and if not, why.

    Exits with 4 if something prevents this. Writes nothing, and imports neither torch nor Triton.

    \b
    Example:
      gdn-aot doctor
      vllm serve Qwen/Qwen3.5-9B 2>&1 | tee start.log
      gdn-aot doctor --start start.log
    """  # noqa: D301 - \b is click's
    if log is not None:
        _show_start(log, as_json=as_json)
        return
    from gdn_aot.doctor import diagnose

    diagnosis = diagnose(artifact, deep=deep)
    error = None
    if diagnosis.obstacles:
        first = diagnosis.obstacles[0]
        error = NoArtifactError(first.what, hint=first.hint)
    for line in () if as_json else diagnosis.page():
        out(printable(line))
    conclude(diagnosis.document(), error, as_json=as_json)


def _show_start(log: str, *, as_json: bool) -> None:
    from gdn_aot.doctor.start import read_start

    try:
        content = sys.stdin.buffer.read(_MAX_LOG) if log == "-" else read_regular(log, _MAX_LOG)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {log!r}: {reason}", hint="name the file that vLLM's output went to") from error
    report = read_start(content.decode(errors="replace"))
    for line in () if as_json else report.page():
        out(printable(line))
    conclude(report.document(), None, as_json=as_json)

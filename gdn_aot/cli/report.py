"""``gdn-aot report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gdn_aot._files import is_folder, is_there, write_whole
from gdn_aot.cli import _options
from gdn_aot.cli._job import tuning_root, usual_records
from gdn_aot.cli._output import emit_json, note, out_path
from gdn_aot.errors import NotWritableError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@click.command("report")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_options.path)
@_options.output("report.html", "The page.")
@click.option("--compare", is_flag=True, help="Show the changes from the first of two files to the second.")
@_options.tuning
@_options.numerics
@_options.card
@_options.as_json
def command(
    files: tuple[Path, ...],
    *,
    output: Path,
    compare: bool,
    tuning: Path | None,
    numerics: Path | None,
    card: str,
    as_json: bool,
) -> None:
    """Write a page about artifacts and records: the configuration of each kernel, the reason, and all times.

    FILE is an artifact, which is verified first, or a record of gdn-aot tune or gdn-aot check; several are one set. The
    page is one file that loads nothing: it can be opened from a disk, sent and published. Times and checks of artifacts
    are those of the records below --tuning and --numerics. Needs the extra [report], and no GPU.

    \b
    Example:
      gdn-aot report gdn-aot-fla0.6.0-triton3.6.0-sm_90.tar.zst -o report.html
      gdn-aot report dist/*.tar.zst -o report.html
      gdn-aot report before.tar.zst after.tar.zst --compare
      gdn-aot report artifacts/tuning/sm_90/fla-core-0.6.0.json
    """  # noqa: D301 - \b is click's
    from gdn_aot.reporting.artifacts import Places
    from gdn_aot.reporting.page import report

    places = Places(tuning_root(tuning), _numerics_root(numerics), card)
    if any(is_there(output) and is_there(file) and output.samefile(file) for file in files):
        raise UsageError(f"-o {output} is one of the files to report on", hint="name another with -o")
    content = report(files, places, comparing=compare, say=note).encode()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, content)
    except OSError as error:
        raise NotWritableError(f"cannot write {output}: {error.strerror or error}") from error
    if as_json:
        emit_json({"path": str(output), "size": len(content), "files": [str(file) for file in files]})
    else:
        out_path(output)


def _numerics_root(given: Path | None) -> Path | None:
    """Return the directory of records of checks: the one given, else the usual one if it is there.

    Raises:
        UsageError: The one given is no directory.
    """
    if given is not None and not is_folder(given):
        raise UsageError(f"--numerics {given} is not a directory", hint="leave it out to show what manifests say")
    return given or usual_records("numerics")

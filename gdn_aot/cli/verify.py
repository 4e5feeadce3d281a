"""``gdn-aot verify``."""

from __future__ import annotations

from pathlib import Path

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@_options.as_json
def command(file: Path, *, as_json: bool) -> None:
    """Check every digest and rule of an artifact or a shard; exit 5 and name every problem if one fails."""
    from gdn_aot.artifact.verify import examine

    report = examine(file)
    error = report.error() if report.problems else None
    shard = report.manifest.shard if report.manifest is not None and error is None else None
    if as_json:
        document: dict[str, object] = {
            "ok": error is None,
            "problems": [{"where": problem.where, "what": problem.what} for problem in report.problems],
            "path": click.format_filename(report.path),
            "sha256": report.sha256,
            "size": report.size,
        }
        if shard is not None:
            document["shard"] = {"number": shard.number, "of": shard.of}
        if error is not None:
            document["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
        emit_json(document)
        if error is not None:
            raise click.exceptions.Exit(error.exit_code)
    elif error is not None:
        raise error
    else:
        out(f"{click.format_filename(report.path)}: ok, {report.size} bytes, sha256 {report.sha256}")
        if shard is not None and report.manifest is not None:
            note(f"It is {shard} of {report.manifest.identifier}, to be merged with the others by gdn-aot merge")

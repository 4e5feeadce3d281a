"""``gdn-aot verify``."""

from __future__ import annotations

from pathlib import Path

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, out


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@_options.as_json
def command(file: Path, *, as_json: bool) -> None:
    """Check every digest and rule of an artifact; exit 5 and name every problem if one fails."""
    from gdn_aot.artifact.verify import examine

    report = examine(file)
    error = report.error() if report.problems else None
    if as_json:
        document: dict[str, object] = {
            "ok": error is None,
            "problems": [{"where": problem.where, "what": problem.what} for problem in report.problems],
            "path": click.format_filename(report.path),
            "sha256": report.sha256,
            "size": report.size,
        }
        if error is not None:
            document["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
        emit_json(document)
        if error is not None:
            raise click.exceptions.Exit(error.exit_code)
    elif error is not None:
        raise error
    else:
        out(f"{click.format_filename(report.path)}: ok, {report.size} bytes, sha256 {report.sha256}")

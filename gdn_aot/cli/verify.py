"""``gdn-aot verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import conclude, out, problems_json

if TYPE_CHECKING:
    from pathlib import Path


@click.command("verify")
@click.argument("file", type=_options.path)
@_options.as_json
def command(file: Path, *, as_json: bool) -> None:
    """Check every digest and rule of an artifact; exit 5 and name every problem if one fails."""
    from gdn_aot.artifact.verify import examine

    report = examine(file)
    document = {
        "ok": not report.problems,
        "problems": problems_json(report.problems),
        "path": str(report.path),
        "sha256": report.sha256,
        "size": report.size,
    }
    conclude(document, report.error() if report.problems else None, as_json=as_json)
    if not as_json:
        out(f"{click.format_filename(report.path)}: ok, {report.size} bytes, sha256 {report.sha256}")

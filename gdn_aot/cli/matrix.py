"""``gdn-aot matrix``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out
from gdn_aot.matrix.include import check_requirements, include
from gdn_aot.matrix.load import load
from gdn_aot.matrix.select import matches, select

if TYPE_CHECKING:
    from pathlib import Path


@click.command("matrix")
@click.option(
    "--select", "wanted", multiple=True, metavar="GLOB",
    help="Only identifiers that match, as 'fla*-sm_{80,9?}'; repeatable, any counts.",
)  # fmt: skip
@click.option("--exclude", "unwanted", multiple=True, metavar="GLOB", help="Not identifiers that match; repeatable.")
@click.option(
    "--changed", "since", default=None, metavar="SINCE",
    help="Only artifacts of which something that they are built from differs from this commit of git.",
)  # fmt: skip
@_options.matrix
@_options.as_json
def command(
    *, wanted: tuple[str, ...], unwanted: tuple[str, ...], since: str | None, matrix: Path, as_json: bool
) -> None:
    """List the artifacts that the project publishes; as JSON, the include list of a GitHub workflow.

    Ends with 3 if a --select matches nothing, and with 0 and an empty list if nothing is --changed.
    """
    found = load(matrix)
    check_requirements(found)
    identifiers = [row.identifier for row in found.rows]
    for pattern in unwanted:
        if not matches(pattern, identifiers):
            note(f"Warning: --exclude {pattern!r} matches nothing")
    rows = select(found.rows, wanted, unwanted)
    if since is not None:
        from gdn_aot.matrix.changes import changed

        why = changed(found, rows, since)
        for row in rows:
            if row.identifier in why:
                note(f"{row.identifier}: {why[row.identifier]}")
        rows = tuple(row for row in rows if row.identifier in why)
    if as_json:
        emit_json({"include": [include(found, row) for row in rows]})
        return
    for row in rows:
        out(row.identifier)

"""``gdn-aot matrix``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out
from gdn_aot.matrix.load import check_requirements, load
from gdn_aot.matrix.select import matches, select

if TYPE_CHECKING:
    from pathlib import Path


@click.command("matrix")
@click.option(
    "--select", "wanted", multiple=True, metavar="GLOB",
    help="Only identifiers that match, as 'fla*-sm_{80,9?}'; repeatable, any may match.",
)  # fmt: skip
@click.option("--exclude", "unwanted", multiple=True, metavar="GLOB", help="Not identifiers that match; repeatable.")
@_options.matrix
@_options.as_json
def command(*, wanted: tuple[str, ...], unwanted: tuple[str, ...], matrix: Path, as_json: bool) -> None:
    """List the artifacts that the project publishes; as JSON, the include list of a GitHub workflow.

    Ends with 3 if a --select matches nothing.
    """
    found = load(matrix)
    check_requirements(found)
    identifiers = [row.identifier for row in found.rows]
    for pattern in unwanted:
        if not matches(pattern, identifiers):
            note(f"Warning: --exclude {pattern!r} matches nothing")
    rows = select(found.rows, wanted, unwanted)
    if as_json:
        emit_json({"include": [found.include(row) for row in rows]})
        return
    for row in rows:
        out(row.identifier)

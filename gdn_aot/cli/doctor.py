"""``gdn-aot doctor``."""

from __future__ import annotations

import click

from gdn_aot._text import printable
from gdn_aot.cli import _options
from gdn_aot.cli._output import conclude, out
from gdn_aot.errors import NoArtifactError


@click.command("doctor")
@click.option("--artifact", metavar="PATH", help="Look at this file, or the files in this directory, not at the store.")
@click.option("--deep", is_flag=True, help="Also check the digest of everything in the store.")
@_options.as_json
def command(artifact: str | None, *, deep: bool, as_json: bool) -> None:
    """Say whether serving processes here find their kernels in artifacts, and if not, why.

    Exits with 4 where something is in the way. Nothing is written, and neither torch nor Triton is imported.
    """
    from gdn_aot.doctor import diagnose

    diagnosis = diagnose(artifact, deep=deep)
    error = None
    if diagnosis.obstacles:
        first = diagnosis.obstacles[0]
        error = NoArtifactError(first.what, hint=first.hint)
    for line in () if as_json else diagnosis.page():
        out(printable(line))
    conclude(diagnosis.document(), error, as_json=as_json)

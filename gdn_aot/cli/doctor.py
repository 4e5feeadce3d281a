"""``gdn-aot doctor``."""

from __future__ import annotations

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import describe, emit_json, out
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
    if not diagnosis.ok:
        first = diagnosis.obstacles[0]
        error = NoArtifactError(first.what, hint=first.hint)
    if as_json:
        document = diagnosis.document()
        if error is not None:
            document["error"] = describe(error.code, error.message, error.hint)
        emit_json(_encodable(document))
        if error is not None:
            raise click.exceptions.Exit(error.exit_code)
        return
    for line in diagnosis.page():
        out(_printable(line))
    if error is not None:
        raise error


def _encodable(value: object) -> object:
    """Replace what UTF-8 cannot carry: a path may hold any bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value


def _printable(text: str) -> str:
    """Escape what could move the cursor: an artifact's text is not ours."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)

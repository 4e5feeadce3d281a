"""``gdn-aot providers``."""

from __future__ import annotations

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, out, table
from gdn_aot.providers import PROVIDERS, installed_version


@click.command("providers")
@_options.as_json
def command(*, as_json: bool) -> None:
    """List kernel providers, what is installed, and which versions are known."""
    rows = [
        {
            "name": info.name,
            "distribution": info.distribution,
            "license": info.license,
            "module": info.module,
            "installed": installed_version(info.name),
            "versions": [
                {"version": known.version, "status": known.status, "note": known.note} for known in info.versions
            ],
        }
        for info in PROVIDERS.values()
    ]
    if as_json:
        emit_json(rows)
        return
    lines = [
        (
            info.name,
            info.distribution,
            installed_version(info.name) or "not installed",
            ", ".join(f"{known.version} ({known.status})" for known in info.versions),
        )
        for info in PROVIDERS.values()
    ]
    out(table(lines, ("provider", "distribution", "installed", "versions")))

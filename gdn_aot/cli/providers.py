"""``gdn-aot providers``."""

from __future__ import annotations

import click

from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, out, table
from gdn_aot.machine import installed
from gdn_aot.providers import module_name


@click.command("providers")
@_options.as_json
def command(*, as_json: bool) -> None:
    """List kernel providers, what is installed, and which versions are known."""
    rows = [
        {
            "name": info.name,
            "distribution": info.distribution,
            "license": info.license,
            "module": module_name(info.name),
            "installed": installed.version(info.distribution),
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
            installed.version(info.distribution) or "not installed",
            ", ".join(f"{known.version} ({known.status})" for known in info.versions),
        )
        for info in PROVIDERS.values()
    ]
    out(table(lines, ("provider", "distribution", "installed", "versions")))

"""``gdn-aot targets``."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from typing import Any

import click

from gdn_aot.catalogue.targets import all_targets, assembler_version, check_assembler
from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, out, table


def _rows() -> list[dict[str, Any]]:
    installed = importlib.util.find_spec("triton") is not None
    rows = []
    for target in all_targets():
        reason = check_assembler(target) if installed else None
        assembles = reason is None if installed else None
        version = assembler_version(target) if installed else None
        rows.append({**asdict(target), "assembles": assembles, "reason": reason, "ptxas": version})
    return rows


@click.command("targets")
@_options.as_json
def command(*, as_json: bool) -> None:
    """List GPU architectures and what the installed Triton can assemble."""
    rows = _rows()
    if as_json:
        emit_json(rows)
        return
    shown = {True: "yes", False: "no", None: "no Triton"}
    lines = [
        (
            row["name"],
            row["card"]["name"],
            row["card"]["sm_count"],
            row["max_shared"],
            "yes" if row["bf16"] else "no",
            shown[row["assembles"]],
            row["ptxas"],
        )
        for row in rows
    ]
    out(table(lines, ("target", "card", "SMs", "shared/block", "bf16", "assembles", "ptxas")))
    for row in rows:
        if row["reason"]:
            out(f"{row['name']}: {row['reason']}")

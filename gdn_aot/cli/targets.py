"""``gdn-aot targets``."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict

import click

from gdn_aot.catalogue.targets import all_targets, assembler_version, check_assembler
from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, out, table


@click.command("targets")
@_options.as_json
def command(*, as_json: bool) -> None:
    """List GPU architectures and what the installed Triton can assemble."""
    installed = importlib.util.find_spec("triton") is not None
    targets = all_targets()
    reasons = {target: check_assembler(target) if installed else None for target in targets}
    versions = {target: assembler_version(target) for target in targets}
    if as_json:
        emit_json(
            [
                {
                    **asdict(target),
                    "assembles": reasons[target] is None if installed else None,
                    "reason": reasons[target],
                    "ptxas": versions[target],
                }
                for target in targets
            ]
        )
        return
    lines = [
        (
            target.name,
            target.card.name,
            target.card.sm_count,
            target.max_shared,
            ("no", "yes")[target.bf16],
            "no Triton" if not installed else "no" if reasons[target] else "yes",
            versions[target],
        )
        for target in targets
    ]
    out(table(lines, ("target", "card", "SMs", "shared/block", "bf16", "assembles", "ptxas")))
    for target in filter(reasons.get, targets):
        out(f"{target}: {reasons[target]}")

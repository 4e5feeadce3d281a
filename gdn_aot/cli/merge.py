"""``gdn-aot merge``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out


@click.command("merge")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("artifacts/dist"), show_default=True,
    help="Directory for the artifacts.",
)  # fmt: skip
@_options.as_json
def command(files: tuple[Path, ...], output: Path, *, as_json: bool) -> None:
    """Make artifacts of all their shards. Needs neither Triton nor the provider; the bytes are those of one build."""
    from gdn_aot.building.merge import merge
    from gdn_aot.cli.build import artifact_row, check_output

    start = time.monotonic()
    check_output(output)
    made = merge(files, output)
    for item in made:
        kernels = item.manifest.kernels
        note(
            f"{item.manifest.identifier}: {item.shards} shards, {len(kernels)} kernels, "
            f"{sum(len(kernel.binaries) for kernel in kernels)} binaries in {item.path.stat().st_size / 1024:.0f} KiB"
        )
    if as_json:
        rows = [{**artifact_row(item.manifest, item.path), "shards": item.shards} for item in made]
        emit_json({"artifacts": rows, "seconds": round(time.monotonic() - start, 3)})
    else:
        for item in made:
            out(str(item.path))

"""``gdn-aot seed``."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out


@click.command("seed")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--into",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The cache: what TRITON_CACHE_DIR will name. Made if it is not there.",
)
@_options.as_json
def command(file: Path, *, into: Path, as_json: bool) -> None:
    """Write an artifact into a Triton cache, for processes that do not import gdn_aot. Needs no GPU.

    FILE is an artifact file, or the directory of an installed one, which gdn-aot fetch prints.

    They find every binary and every autotuning choice in it, with the same Triton, provider and TRITON_* and FLA_*
    variables as here. What is in DIR already stays; seeding again repairs what is broken.

    \b
    Example:
      gdn-aot seed gdn-aot-fla0.6.0-triton3.6.0-sm_90.tar.zst --into /cache/triton
      gdn-aot seed "$(gdn-aot fetch --arch sm_90 --quiet)" --into /cache/triton
      TRITON_CACHE_DIR=/cache/triton python serve.py
    """  # noqa: D301 - \b is click's
    from gdn_aot.artifact.stored import StoredArtifact
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.build.seed import seed

    start = time.monotonic()
    done = seed(StoredArtifact(file) if file.is_dir() else open_artifact(file), into)
    path = click.format_filename(done.path)
    if as_json:
        emit_json({**asdict(done), "path": path, "seconds": round(time.monotonic() - start, 3)})
    else:
        out(f"{path}: {done.binaries} binaries and {done.choices} choices; {done.written} written, {done.kept} kept")
    for row in done.skipped:
        what = f"{row['binaries']} binaries and {row['choices']} choices left out"
        note(f"Warning: {row['kernel']}: {what}: {row['reason']}")

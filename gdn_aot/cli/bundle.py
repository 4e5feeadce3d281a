"""``gdn-aot bundle``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, no_bars, note, notes, out, out_path

if TYPE_CHECKING:
    from pathlib import Path


@click.command("bundle")
@_options.request
@_options.output("gdn-aot-bundle.tar", "The bundle.")
@_options.allow_unsigned
@_options.registry
def command(
    *,
    repo: str | None,
    revision: str | None,
    output: Path,
    allow_unsigned: bool,
    token: str | None,
    quiet: bool,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Write the artifacts that fetch would install into one file, for machines without a network.

    The bundle also has signatures and keyring. Verifies everything before it writes. On the other machine gdn-aot fetch
    --from installs the bundle, by the keyring that is known there.

    \b
    Example:
      gdn-aot bundle --arch sm_90 --provider fla --provider-version 0.6.0 --triton 3.6.0 -o kernels.tar
      gdn-aot fetch --from kernels.tar
    """  # noqa: D301 - \b is click's
    no_bars(quiet=quiet)
    from gdn_aot.registry.bundling import bundle
    from gdn_aot.registry.open import default_repo
    from gdn_aot.registry.request import make_request
    from gdn_aot.store.store import Store, default_home

    made = bundle(
        output,
        default_repo(repo),
        revision,
        make_request(**wanted),
        store=Store(default_home()),
        token=token,
        allow_unsigned=allow_unsigned,
        say=notes(quiet=quiet),
    )
    if as_json:
        emit_json({"path": str(output), **msgspec.to_builtins(made)})
        return
    if quiet:
        out_path(output)
        return
    for entry in made.artifacts:
        out(f"{entry.identifier}: sha256 {entry.sha256}; {entry.size} bytes")
    signed = f"signed by {made.publisher}" if made.publisher else "not signed"
    note(f"{output}: {made.size} bytes; {made.repository} at commit {made.commit} ({made.revision}), {signed}")

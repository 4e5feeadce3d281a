"""``gdn-aot lock``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, no_bars, note, out, out_path
from gdn_aot.errors import VerificationError

if TYPE_CHECKING:
    from pathlib import Path


@click.command("lock")
@_options.request
@_options.output("gdn-aot.lock", "The lock file.")
@_options.allow_unsigned
@click.option("--check", is_flag=True, help="Write nothing; exit 5 if the lock file differs from the new one.")
@_options.registry
def command(
    *,
    repo: str | None,
    revision: str | None,
    output: Path,
    check: bool,
    token: str | None,
    allow_unsigned: bool,
    quiet: bool,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Pin the artifacts that fetch would install, by commit and SHA-256, in gdn-aot.lock.

    Downloads only the registry's index. Keep the file in version control; fetch --locked installs the pinned artifacts
    even if the branch has moved on. If a wanted artifact is missing, writes nothing.

    \b
    Example:
      gdn-aot lock --arch sm_90 --arch sm_100 --revision v1.2.0
      gdn-aot fetch --locked
    """  # noqa: D301 - \b is click's
    no_bars(quiet=quiet)
    from gdn_aot.registry.lockfile import changes, pin, read_lock, write_lock
    from gdn_aot.registry.open import default_repo
    from gdn_aot.registry.request import make_request
    from gdn_aot.store.store import Store, default_home

    request = make_request(**wanted)
    store = Store(default_home())
    lock = pin(default_repo(repo), revision, request, token, output.parent, store=store, allow_unsigned=allow_unsigned)
    if check:
        problems = list(changes(read_lock(output), lock))
        if problems:
            raise VerificationError(
                f"{output} is not what gdn-aot lock would write",
                problems,
                hint="gdn-aot lock with the same options writes it; --revision TAG or a commit keeps it from moving",
            )
        changed = False
    else:
        changed = write_lock(output, lock)
    if as_json:
        emit_json({"path": str(output), "changed": changed, **msgspec.to_builtins(lock)})
        return
    if quiet:
        out_path(output)
        return
    for artifact in lock.artifacts:
        out(f"{artifact.identifier}: sha256 {artifact.sha256}; {artifact.size} bytes")
    state = "written" if changed else "checked" if check else "unchanged"
    note(f"{output}: {state}; {lock.repository} at commit {lock.commit} ({lock.revision})")

"""``gdn-aot cache``: what the store on this machine holds, and looking after it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from gdn_aot._text import plural
from gdn_aot.cli import _options
from gdn_aot.cli._group import SuggestingGroup
from gdn_aot.cli._output import conclude, emit_json, note, notes, out, out_path, problems_json, table

if TYPE_CHECKING:
    from gdn_aot.store.store import Store
    from gdn_aot.store.upkeep import Audit, InstalledArtifact, Removed

_HEADS = ("artifact", "target", "provider", "triton", "bytes", "installed", "from", "use", "sha256")
_dry_run = click.option("--dry-run", "dry_run", is_flag=True, help="Only say what would be removed.")


@click.group("cache", cls=SuggestingGroup, no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show and maintain the store, the directory of installed artifacts on this machine.

    It is $GDN_AOT_HOME/store, or gdn-aot/store in the user's cache directory.
    """
    if ctx.invoked_subcommand is None:
        out(ctx.get_help())


@command.command("ls")
@_options.quiet
@_options.as_json
def ls_command(*, quiet: bool, as_json: bool) -> None:
    """List the artifacts of the store, the one that the loader prefers first.

    With --quiet prints the name of each directory, for gdn-aot cache rm. If it cannot read something, lists the rest
    and ends with 2.
    """
    from gdn_aot.store.install import size_of
    from gdn_aot.store.upkeep import ls, unreadable

    store = _store()
    artifacts, size = ls(store), size_of(store.root)
    error = unreadable(store, artifacts)
    if as_json:
        about = {"path": store.root, "format": store.format(), "bytes": size}
        conclude({"store": about, "artifacts": list(map(_document, artifacts))}, error, as_json=True)
        return
    if quiet:
        for artifact in artifacts:
            out_path(os.path.basename(artifact.place))  # noqa: PTH119 - a str, and bytes that no text has stay
    elif artifacts:
        out(table([_row(artifact) for artifact in artifacts], _HEADS))
    if not quiet:
        for artifact in artifacts:
            if artifact.problem and artifact.readable:
                note(f"Warning: {artifact.problem}")
        note(f"store {store.root}: {plural(len(artifacts), 'artifact')}, {size} bytes")
    if error is not None:
        raise error


@command.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_dry_run
@_options.quiet
@_options.as_json
def rm_command(names: tuple[str, ...], *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """Remove artifacts.

    NAME is an identifier, the name of a directory, a glob of either, or at least four first digits of a SHA-256. If one
    of several names matches nothing, removes nothing.
    """
    from gdn_aot.store.upkeep import remove

    removed = remove(_store(), names, dry_run=dry_run, waiting=notes(quiet=quiet))
    _tell(removed, dry_run=dry_run, quiet=quiet, as_json=as_json)


@command.command("prune")
@_options.default(
    "--keep", 1, "Builds of each identifier that stay, the last installed first.",
    metavar="N", type=click.IntRange(min=0),
)  # fmt: skip
@_dry_run
@_options.quiet
@_options.as_json
def prune_command(*, keep: int, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """Remove superseded builds, and unfinished files of killed processes."""
    from gdn_aot.store.upkeep import prune

    removed = prune(_store(), keep=keep, dry_run=dry_run, waiting=notes(quiet=quiet))
    _tell(removed, dry_run=dry_run, quiet=quiet, as_json=as_json)


@command.command("verify", epilog=_options.other_checks("cache verify"))
@click.option("--repair", is_flag=True, help="Remove damaged artifacts, so that fetch can install them again.")
@_options.quiet
@_options.as_json
def verify_command(*, repair: bool, quiet: bool, as_json: bool) -> None:
    """Check the digest of everything in the store; exit 5 and name every problem if one is wrong.

    With --quiet prints only errors, and with --repair the directory of each removed artifact.
    """
    from gdn_aot.store.upkeep import audit

    found = audit(_store(), repair=repair, waiting=notes(quiet=quiet))
    error = found.error(repaired=repair)
    document = {
        "ok": error is None,
        "store": found.path,
        "exists": found.exists,
        "artifacts": found.artifacts,
        "blobs": found.blobs,
        "bytes": found.size,
        "problems": problems_json(found.problems),
        "removed": list(map(_document, found.removed)),
        "freed": found.freed,
    }
    if as_json or (error is not None and not repair):
        conclude(document, error, as_json=as_json)
        return
    if quiet:
        for artifact in found.removed:
            out_path(artifact.place)
    elif not found.exists:
        out(f"there is no store at {found.path}")
    elif not found.problems:
        out(f"{found.path}: ok, {plural(found.artifacts, 'artifact')}, {found.blobs} blobs, {found.size} bytes")
    else:
        _tell_repair(found)
    if error is not None:
        raise error


def _tell_repair(found: Audit) -> None:
    for problem in found.problems:
        note(f"  {problem}")
    out(f"{found.path}: removed what was damaged, freed {found.freed} bytes")
    for artifact in found.removed:
        origin = artifact.origins[0].repo if artifact.origins else None
        arch = f" --arch {artifact.target}" if artifact.target else ""
        how = f"gdn-aot fetch --repo {origin}{arch}" if origin else "fetch or build it"
        note(f"{artifact.identifier} was removed; to have it again: {how}")


def _store() -> Store:
    from gdn_aot.store.store import Store, default_home

    return Store(default_home())


def _row(artifact: InstalledArtifact) -> tuple[object, ...]:
    return (
        artifact.identifier,
        artifact.target,
        f"{artifact.provider} {artifact.version}" if artifact.provider else None,
        artifact.triton,
        artifact.size,
        time.strftime("%Y-%m-%d %H:%M", time.localtime(artifact.installed)),
        ", ".join(f"{origin.repo}@{origin.commit[:12]}" for origin in artifact.origins) or None,
        _use(artifact),
        artifact.sha256[:16],
    )


def _use(artifact: InstalledArtifact) -> str:
    if not artifact.readable:
        return "unreadable"
    return "damaged" if artifact.problem else "preferred" if artifact.preferred else "superseded"


def _document(artifact: InstalledArtifact) -> dict[str, object]:
    from msgspec import to_builtins

    document: dict[str, object] = to_builtins(artifact)
    return {"path": document.pop("place"), **document}


def _tell(removed: Removed, *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    if as_json:
        artifacts = list(map(_document, removed.artifacts))
        leftovers = list(removed.leftovers)
        emit_json({"dry_run": dry_run, "removed": artifacts, "leftovers": leftovers, "freed": removed.freed})
        return
    for path in (*(artifact.place for artifact in removed.artifacts), *removed.leftovers):
        out_path(path)
    if not quiet:
        verb, freed = ("would remove", "free") if dry_run else ("removed", "freed")
        note(f"{verb} {plural(len(removed.artifacts), 'artifact')}; {freed} {removed.freed} bytes")

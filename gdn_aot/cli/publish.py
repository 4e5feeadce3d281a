"""``gdn-aot publish``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, no_bars, note, out, table, tell

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.registry.publish import PublishResult


@click.command("publish")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_options.path)
@_options.repo
@click.option("--tag", metavar="TAG", help="Name this release, as v1.2.0.")
@click.option("--create", is_flag=True, help="Make the repository if it is not there.")
@click.option("--private", is_flag=True, help="With --create: let nobody else see it; changes none that is there.")
@click.option("--replace", is_flag=True, help="Replace artifacts of the same identifier; needs a new --tag.")
@click.option("--dry-run", is_flag=True, help="Verify and compare, change nothing.")
@_options.registry
def command(
    files: tuple[Path, ...],
    *,
    repo: str | None,
    quiet: bool,
    as_json: bool,
    dry_run: bool,
    token: str | None,
    private: bool,
    create: bool,
    **options: Any,
) -> None:
    """Verify artifacts and publish them to a repository of the Hugging Face Hub or to a directory.

    Nothing that is there is overwritten: other content under the same identifier or tag is an error (exit 7). Artifacts
    that are there already are left as they are.
    """
    from gdn_aot.errors import UsageError
    from gdn_aot.registry.open import default_repo, locate, open_registry
    from gdn_aot.registry.publish import publish

    where = default_repo(repo)
    if locate(where).revision is not None:
        raise UsageError("a revision cannot be published to", hint="leave out what comes after @, and see --tag")
    if private and not create:
        raise UsageError("--private is for a repository that is made", hint="add --create")
    no_bars(quiet=quiet)
    registry = open_registry(where, token=token)
    result = publish(registry, files, create=create, private=private, dry_run=dry_run, **options)
    for item in result.plan.items:
        if item.entry.dirty and not quiet:
            note(f"Warning: {item.entry.identifier} was built from a checkout with changes that no commit has")
    if result.visibility_kept:  # also with --quiet: something may now be public that was not to be
        note(
            f"Warning: {result.registry} was there already, so --private changes nothing: it keeps its visibility, "
            "and who can see it can see what is published; whoever owns it can change that"
        )
    refusal = result.plan.refusal()
    if as_json:
        emit_json(_document(result, dry_run=dry_run), refusal)
    else:
        _show(result, quiet=quiet)
    if refusal is not None:  # of a dry run; else publish() has raised it
        tell(refusal.message, refusal.hint)
        raise click.exceptions.Exit(refusal.exit_code)
    if not (as_json or quiet):
        note(_summary(result, dry_run=dry_run))


def _show(result: PublishResult, *, quiet: bool) -> None:
    if quiet:
        for item in result.plan.with_action("added", "replaced"):
            out(item.entry.identifier)
        return
    rows = [(item.action, item.entry.identifier, item.entry.size, item.entry.sha256[:16]) for item in result.plan.items]
    out(table(rows, ("action", "identifier", "bytes", "sha256")))


def _summary(result: PublishResult, *, dry_run: bool) -> str:
    new = len(result.plan.with_action("added", "replaced"))
    tag = f", tag {result.tag}" if result.tag else ""
    if dry_run:
        return f"{result.registry}: {new} of {len(result.plan.items)} would be published{tag}; nothing was changed"
    made = "created, " if result.created else ""
    what = f"{new} published" if new else "nothing to publish, all of it is there"
    return f"{result.registry}: {made}{what}; commit {result.commit}{tag}"


def _document(result: PublishResult, *, dry_run: bool) -> dict[str, Any]:
    from gdn_aot.registry.layout import BRANCH

    return {
        "repo": result.registry,
        "branch": BRANCH,
        "tag": result.tag,
        "dry_run": dry_run,
        "created": result.created,
        "visibility_kept": result.visibility_kept,
        "commit": result.commit,
        "main": result.main,
        "artifacts": [
            {
                "path": str(item.path),
                "identifier": item.entry.identifier,
                "sha256": item.entry.sha256,
                "size": item.entry.size,
                "action": item.action,
                "reason": item.reason,
                "dirty": item.entry.dirty,
            }
            for item in result.plan.items
        ],
        "card": result.plan.card.decode(),
    }

"""``gdn-aot publish``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, no_bars, note, out, table, tell

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.registry.publish import PublishResult
    from gdn_aot.registry.signing import Signing


@click.command("publish")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=_options.path)
@_options.repo
@click.option("--tag", metavar="TAG", help="Name this release, as v1.2.0.")
@click.option("--create", is_flag=True, help="Create the repository if it does not exist.")
@click.option("--private", is_flag=True, help="With --create: make a new repository private; changes no existing one.")
@click.option("--replace", is_flag=True, help="Replace artifacts of the same identifier; needs a new --tag.")
@click.option(
    "--key", type=_options.path, metavar="PEM", help="Sign with this private key.  [default: $GDN_AOT_SIGNING_KEY]"
)
@click.option("--sign-command", metavar="COMMAND", help="Sign with a command: message on stdin, base64 on stdout.")
@click.option("--adopt", is_flag=True, help="Sign the present index although its signature does not count.")
@click.option("--keyring", type=_options.path, metavar="FILE", help="Publish this version of the keyring, too.")
@click.option("--report", type=_options.path, metavar="FILE", help="Publish this page of gdn-aot report, too.")
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
    key: Path | None,
    sign_command: str | None,
    keyring: Path | None,
    adopt: bool,
    **options: Any,
) -> None:
    """Verify artifacts, sign them and publish them to a repository of the Hugging Face Hub or to a directory.

    Overwrites nothing: other content under the same identifier or tag is an error (exit 7). Leaves identical artifacts
    alone.
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
    signing = _signing(key, sign_command, keyring, adopt=adopt)
    result = publish(registry, files, signing=signing, create=create, private=private, dry_run=dry_run, **options)
    if signing is None and not quiet:
        note("Warning: nothing is signed: whoever fetches it must use --allow-unsigned; gdn-aot keys new makes keys")
    _warn(result, quiet=quiet)
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


def _warn(result: PublishResult, *, quiet: bool) -> None:
    for item in result.plan.items:
        if item.entry.dirty and not quiet:
            note(f"Warning: {item.entry.identifier} was built from a checkout with uncommitted changes")
    if result.visibility_kept:  # also with --quiet: something may now be public that was not to be
        note(
            f"Warning: {result.registry} existed already, so --private changes nothing: it keeps its visibility, "
            "and everybody who can see it can see the publication; its owner can change that"
        )
    if result.plan.outdated and not quiet:
        note(
            "Warning: report.html describes the artifacts before this publication, so the card no longer links to it; "
            "publish one of all artifacts with --report"
        )
    if result.plan.uncounted:  # also with --quiet: servers are refused these
        names = ", ".join(result.plan.uncounted)
        note(f"Warning: no signature of {names} counts by this keyring: publish these files again, to sign them anew")


def _signing(key: Path | None, command: str | None, keyring: Path | None, *, adopt: bool) -> Signing | None:
    """Return with what is signed, if anything says so."""
    from gdn_aot._files import read_regular
    from gdn_aot.errors import UsageError
    from gdn_aot.registry.signing import Signing
    from gdn_aot.store.store import default_home
    from gdn_aot.trust import MAX_ENVELOPE
    from gdn_aot.trust.keyring import read_keyring
    from gdn_aot.trust.signer import KEY_VARIABLE, signer_of

    signer = signer_of(key, command)
    if signer is None:
        if keyring is not None:
            what = "a keyring is published together with an index that is signed, and no key is given"
            raise UsageError(what, hint=f"add --key FILE, --sign-command COMMAND or {KEY_VARIABLE}")
        return None
    try:
        content = read_regular(keyring, MAX_ENVELOPE) if keyring else None
    except OSError as error:
        raise UsageError(
            f"cannot read the keyring {keyring}: {error.strerror or error}", hint="name another"
        ) from error
    signed = read_keyring(content) if content is not None else None
    return Signing(signer=signer, keyring=signed, home=default_home(), adopt=adopt)


def _show(result: PublishResult, *, quiet: bool) -> None:
    if quiet:
        for item in result.plan.with_action("added", "replaced"):
            out(item.entry.identifier)
        return
    rows = [(item.action, item.entry.identifier, item.entry.size, item.entry.sha256[:16]) for item in result.plan.items]
    out(table(rows, ("action", "identifier", "bytes", "sha256")))


def _summary(result: PublishResult, *, dry_run: bool) -> str:
    new = len(result.plan.with_action("added", "replaced"))
    signed = len(result.plan.with_action("signed"))
    tag = f", tag {result.tag}" if result.tag else ""
    if dry_run:
        more = " and the report" if result.plan.report is not None else ""
        return (
            f"{result.registry}: {new} of {len(result.plan.items)}{more} would be published{tag}; nothing was changed"
        )
    made = "created, " if result.created else ""
    with_page = result.plan.report is not None
    done = "the report is published" if with_page else "nothing to publish"
    what = f"{new} published{' with a report' * with_page}" if new else f"{done}, the registry has every artifact"
    what += f", {signed} signed anew" if signed else ""
    return f"{result.registry}: {made}{what}; commit {result.commit}{tag}"


def _serial(result: PublishResult, *, dry_run: bool) -> int | None:
    """Return the number of the publication, of the next one in a dry run, or of the last one if nothing is new."""
    sealed = result.plan.publication
    if sealed is None:
        return None
    return sealed.serial if dry_run or result.plan.is_signed_anew else sealed.serial - 1


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
        "report": result.plan.report is not None,
        "uncounted": list(result.plan.uncounted),
        "serial": _serial(result, dry_run=dry_run),
        "keyring": result.plan.publication.keyring.version if result.plan.publication else None,
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

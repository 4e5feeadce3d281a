"""``gdn-aot list``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import msgspec

from gdn_aot._text import plural
from gdn_aot.cli import _options
from gdn_aot.cli._output import describe, emit_json, no_bars, note, out, table, tell
from gdn_aot.errors import GdnAotError

if TYPE_CHECKING:
    from gdn_aot.registry.layout import Entry
    from gdn_aot.registry.listing import ListedArtifact
    from gdn_aot.registry.select import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """A registry that was looked at."""

    repository: str
    revision: str
    commit: str | None
    entries: tuple[Entry, ...]
    error: GdnAotError | None


@click.command("list")
@_options.repo
@_options.revision
@click.option("--installed", is_flag=True, help="The store; with --repo, both.")
@_options.token
@_options.quiet
@_options.as_json
def command(
    *, repo: str | None, revision: str | None, installed: bool, token: str | None, quiet: bool, as_json: bool
) -> None:
    """Say what a registry and the store hold, and what of it fits this machine.

    Without options both are listed, and a registry that cannot be reached is only a warning. Needs no GPU: where there
    is none, artifacts are compared with the installed provider and Triton alone.
    """
    no_bars(quiet=quiet)
    from gdn_aot.registry.listing import rows
    from gdn_aot.registry.request import machine_request
    from gdn_aot.store.store import Store, default_home

    named = repo is not None or revision is not None
    seen = _look(repo, revision, token, must=named) if named or not installed else None
    store = Store(default_home())
    request = machine_request()
    found = rows(seen.entries if seen else (), store, request)
    if named and not installed:
        found = tuple(row for row in found if row.in_registry)
    if as_json:
        emit_json(_document(seen, store.root, request, found))
        return
    if seen is not None and seen.error is None and not quiet:
        count = plural(len(seen.entries), "artifact")
        note(f"registry {seen.repository} at {seen.revision}, commit {seen.commit}: {count}")
    if not quiet and (installed or not named):
        note(f"store {store.root}: {plural(sum(row.path is not None for row in found), 'artifact')}")
    if quiet:
        for row in found:
            out(row.identifier)
    elif found:
        out(_table(found))


def _look(repo: str | None, revision: str | None, token: str | None, *, must: bool) -> _Seen:
    """Read the index of a registry; one that nobody named may be out of reach."""
    from gdn_aot.registry.base import read_index
    from gdn_aot.registry.open import default_repo, locate, open_registry

    location = locate(default_repo(repo), revision)
    asked = location.asked
    try:
        snapshot, index = read_index(open_registry(location.name, token=token), asked)
    except GdnAotError as error:
        if must:
            raise
        tell(error.message, error.hint, word="Warning")
        return _Seen(repository=location.name, revision=asked, commit=None, entries=(), error=error)
    return _Seen(repository=location.name, revision=asked, commit=snapshot.commit, entries=index.entries, error=None)


def _document(seen: _Seen | None, store: str, request: Request, found: tuple[ListedArtifact, ...]) -> dict[str, object]:
    registry: dict[str, object] | None = None
    if seen is not None:
        registry = {"repo": seen.repository, "revision": seen.revision, "commit": seen.commit}
        if seen.error is not None:
            registry["error"] = describe(seen.error.code, seen.error.message, seen.error.hint)
    providers = {item.name: item.version.text if item.version else None for item in request.providers}
    return {
        "registry": registry,
        "store": store,
        "machine": {
            "targets": list(request.targets or ()),
            "providers": providers,
            "triton": request.triton.text if request.triton else None,
        },
        "artifacts": msgspec.to_builtins(found),
    }


def _table(found: tuple[ListedArtifact, ...]) -> str:
    fits = {True: "yes", False: "no", None: "?"}
    lines = [
        (
            row.identifier,
            "both" if row.in_registry and row.path else "registry" if row.in_registry else "store",
            row.size,
            row.choices.measured if row.choices else None,
            row.choices.transferred if row.choices else None,
            row.choices.default if row.choices else None,
            row.numerics,
            fits[row.fits],
            row.reason,
        )
        for row in found
    ]
    heads = ("artifact", "where", "bytes", "measured", "transferred", "default", "numerics", "fits", "why")
    return table(lines, heads)

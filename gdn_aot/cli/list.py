"""``gdn-aot list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from gdn_aot._text import plural
from gdn_aot.cli import _options
from gdn_aot.cli._output import conclude, describe, no_bars, note, out, table, tell
from gdn_aot.errors import GdnAotError, Problem, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.registry.layout import Entry
    from gdn_aot.registry.listing import ListedArtifact
    from gdn_aot.registry.select import Request

_FITS = {True: "yes", False: "no", None: "?"}
_HEADS = ("artifact", "where", "bytes", "measured", "proxy", "transferred", "default", "numerics", "fits", "why")


@click.command("list")
@_options.repo
@_options.revision
@click.option("--installed", is_flag=True, help="List the store; with --repo, both.")
@_options.registry
def command(
    *, repo: str | None, revision: str | None, installed: bool, token: str | None, quiet: bool, as_json: bool
) -> None:
    """List the artifacts of a registry and of the store, and whether they fit this machine.

    Without options lists both, and only warns if it cannot reach the registry. Needs no GPU: without one, compares
    artifacts with the installed provider and Triton alone.
    """
    no_bars(quiet=quiet)
    from gdn_aot.registry.listing import rows
    from gdn_aot.registry.request import machine_request
    from gdn_aot.store.store import Store, default_home

    named = (repo, revision) != (None, None)
    registry, entries = _look(repo, revision, token, must=named) if named or not installed else (None, ())
    store = Store(default_home())
    request = machine_request()
    found = rows(entries, store, request)
    if named and not installed:
        found = tuple(row for row in found if row.in_registry)
    hidden = [Problem(row.identifier, row.reason) for row in found if not row.readable]
    error = UnreadableError(f"not all of the store {store.root} can be read", hidden) if hidden else None
    if as_json:
        document = {
            "registry": registry,
            "store": store.root,
            "machine": _machine(request),
            "artifacts": msgspec.to_builtins(found),
        }
        conclude(document, error, as_json=True)
        return
    if quiet:
        for row in found:
            out(row.identifier)
    else:
        _tell(registry, len(entries), found, store.root if installed or not named else None)
    if error is not None:
        raise error


def _tell(registry: dict[str, Any] | None, entries: int, found: Sequence[ListedArtifact], store: str | None) -> None:
    if registry is not None and "error" not in registry:
        count = plural(entries, "artifact")
        note(f"registry {registry['repo']} at {registry['revision']}, commit {registry['commit']}: {count}")
    if store is not None:
        note(f"store {store}: {plural(sum(row.path is not None for row in found), 'artifact')}")
    if found:
        out(table(list(map(_row, found)), _HEADS))


def _look(
    repo: str | None, revision: str | None, token: str | None, *, must: bool
) -> tuple[dict[str, Any], Sequence[Entry]]:
    """Return what ``--json`` says of a registry, and its entries; one that nobody named may be out of reach."""
    from gdn_aot.registry.base import read_index
    from gdn_aot.registry.open import default_repo, locate, open_registry

    location = locate(default_repo(repo), revision)
    registry = {"repo": location.name, "revision": location.asked, "commit": None}
    try:
        snapshot, index = read_index(open_registry(location.name, token=token), location.asked)
    except GdnAotError as error:
        if must:
            raise
        tell(error.message, error.hint, word="Warning")
        return {**registry, "error": describe(error.code, error.message, error.hint)}, ()
    return {**registry, "commit": snapshot.commit}, index.entries


def _machine(request: Request) -> dict[str, object]:
    return {
        "targets": list(request.targets or ()),
        "providers": {item.name: item.version.text if item.version else None for item in request.providers},
        "triton": request.triton.text if request.triton else None,
    }


def _row(row: ListedArtifact) -> tuple[object, ...]:
    counts = row.choices
    return (
        row.identifier,
        "both" if row.in_registry and row.path else "registry" if row.in_registry else "store",
        row.size,
        *((counts.measured, counts.proxy, counts.transferred, counts.default) if counts else (None,) * 4),
        row.numerics,
        _FITS[row.fits],
        row.reason,
    )

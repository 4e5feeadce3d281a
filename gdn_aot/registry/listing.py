"""What a registry and the store hold, side by side, and what of it fits this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.registry.held import held, provenances
from gdn_aot.registry.select import differences, reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.registry.held import Held
    from gdn_aot.registry.layout import Entry, Provenances
    from gdn_aot.registry.select import Candidate, Request
    from gdn_aot.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One artifact, or a damaged directory of the store."""

    identifier: str
    """Of a damaged directory, its path."""
    in_registry: bool
    path: str | None
    """Where it is installed."""
    target: str | None
    provider: str | None
    version: str | None
    """Of the provider's distribution."""
    triton: str | None
    sha256: str | None
    size: int | None
    """Bytes of the artifact file; only the registry knows."""
    models: int | None
    """Number of models it was built for; only the registry is asked."""
    choices: Provenances | None
    numerics: str | None
    """``checked``, ``not run`` ...; only the registry is asked."""
    origins: tuple[str, ...]
    """Where the one in the store was fetched from."""
    fits: bool | None
    """A serving process here can use it; None where that hangs on a GPU that is not here."""
    reason: str
    """Why, or why not."""


def rows(entries: Sequence[Entry], store: Store | None, request: Request) -> tuple[Row, ...]:
    """Put a registry and a store together: the same file of both is one row.

    Args:
        entries: Of the registry's index; empty if it is not looked at.
        store: None if it is not listed. What is installed is said of the registry's artifacts all the same.
        request: What this machine has, as `gdn_aot.registry.request.machine_request` returns it.
    """
    return tuple(_rows(entries, store, request))


def _rows(entries: Sequence[Entry], store: Store | None, request: Request) -> Iterator[Row]:
    found, damaged = held(store, whole=True) if store is not None else ((), ())
    here = {item.sha256: item for item in found}
    listed = {entry.identifier for entry in entries}
    both: list[tuple[Entry | None, Held | None]] = [(entry, here.pop(entry.sha256, None)) for entry in entries]
    both += [(None, item) for item in here.values()]
    both.sort(key=lambda pair: (_some(*pair).identifier, pair[0] is None))
    for entry, item in both:
        yield _row(entry, item, store, request, other=entry is None and _some(entry, item).identifier in listed)
    for place, problem in damaged:
        yield _damaged(place, problem)


def _some(entry: Entry | None, item: Held | None) -> Entry | Held:
    some = entry if entry is not None else item
    assert some is not None  # noqa: S101
    return some


def _row(entry: Entry | None, item: Held | None, store: Store | None, request: Request, *, other: bool) -> Row:
    some = _some(entry, item)
    fits, why = judge(some, request)
    choices = entry.choices if entry is not None else None
    if choices is None and item is not None and store is not None:
        choices = provenances(store, item.place)
    return Row(
        identifier=some.identifier,
        in_registry=entry is not None,
        path=item.place if item is not None else None,
        target=some.target,
        provider=some.provider,
        version=some.version,
        triton=some.triton,
        sha256=some.sha256,
        size=some.size,
        models=len(entry.models) if entry is not None else None,
        choices=choices,
        numerics=entry.numerics.status if entry is not None else None,
        origins=tuple(f"{origin.repo}@{origin.commit}" for origin in item.origins) if item is not None else (),
        fits=fits,
        reason=f"{why}; the registry has another build" if other else why,
    )


def judge(candidate: Candidate, request: Request) -> tuple[bool | None, str]:
    """Say whether an artifact fits this machine, and why; None where there is no GPU to say it by."""
    found = differences(candidate, request)
    if found:
        return False, reason(found)
    if request.targets is None:
        return None, f"fits what is installed; there is no GPU here to compare {candidate.target} with"
    return True, "fits"


def _damaged(place: str, problem: str) -> Row:
    return Row(
        identifier=place,
        in_registry=False,
        path=place,
        target=None,
        provider=None,
        version=None,
        triton=None,
        sha256=None,
        size=None,
        models=None,
        choices=None,
        numerics=None,
        origins=(),
        fits=False,
        reason=f"is damaged: {problem}",
    )

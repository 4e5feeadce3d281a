"""What a registry and the store hold, side by side, and what of it fits this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gdn_aot.registry.layout import count_choices
from gdn_aot.registry.select import differences, reason_of
from gdn_aot.store.origins import Origin, read_origins
from gdn_aot.store.whole import UNREADABLE, Hidden, faults, problems_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.errors import Problem
    from gdn_aot.registry.layout import Entry, Provenances
    from gdn_aot.registry.select import Candidate, Request
    from gdn_aot.store.store import Store

_IDENTITY = ("identifier", "sha256", "target", "provider", "version", "triton")


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """One artifact of the store."""

    identifier: str
    sha256: str
    target: str
    provider: str
    version: str
    triton: str
    place: str
    """Its directory."""
    origins: tuple[Origin, ...]
    """Where it was fetched from; empty if it came from a file."""
    size: None = None
    """The store does not keep the size of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedArtifact:
    """One artifact, or a damaged directory of the store."""

    identifier: str
    """Of a damaged directory, its path."""
    in_registry: bool
    path: str | None
    """Where it is installed."""
    target: str | None = None
    provider: str | None = None
    version: str | None = None
    """Of the provider's distribution."""
    triton: str | None = None
    sha256: str | None = None
    size: int | None = None
    """Bytes of the artifact file; only the registry knows."""
    models: int | None = None
    """Number of models it was built for; only the registry is asked."""
    choices: Provenances | None = None
    numerics: str | None = None
    """``checked``, ``not run`` ...; only the registry is asked."""
    origins: tuple[str, ...] = ()
    """Where the one in the store was fetched from."""
    fits: bool | None
    """A serving process here can use it; None where that hangs on a GPU that is not here."""
    reason: str
    """Why, or why not."""
    readable: bool = True
    """What is installed can be looked at here."""


def held(store: Store, *, whole: bool = False) -> tuple[tuple[Held, ...], tuple[tuple[str, Problem], ...]]:
    """Return the artifacts of a store, the one installed last first, and (directory, problem) of what is damaged.

    With ``whole`` all that is not whole counts as damaged, as `gdn_aot.store.whole.faults` sees it.

    Raises:
        UnknownFormatError: A newer gdn-aot made the store.
    """
    found, damaged = [], []
    for place in store.artifacts():
        try:
            header = store.open_index(place).header
            named = {name: header[name] for name in _IDENTITY}
        except UNREADABLE as error:
            damaged.append((place, problems_of(place, error)[0]))
            continue
        problems = faults(place) if whole else []
        if problems:
            damaged.append((place, problems[0]))
        else:
            found.append(Held(**named, place=place, origins=read_origins(place)))
    return tuple(found), tuple(damaged)


def provenances(store: Store, place: str) -> Provenances | None:
    """Return where the choices of an artifact come from; None if its index cannot be read."""
    try:
        index = store.open_index(place)
        return count_choices(choice.provenance for kernel in index.kernels() for choice in index.choices(kernel.name))
    except UNREADABLE:
        return None


def rows(entries: Sequence[Entry], store: Store, request: Request) -> tuple[ListedArtifact, ...]:
    """Put a registry's entries, none if it is not looked at, and a store together: the same file of both is one row.

    The request is what this machine has, as `gdn_aot.registry.request.machine_request` returns it.
    """
    found, damaged = held(store, whole=True)
    here = {item.sha256: item for item in found}
    listed = [_row(entry, here.pop(entry.sha256, None), request) for entry in entries]
    known = {entry.identifier for entry in entries}
    for item in here.values():
        row = _row(None, item, request, provenances(store, item.place))
        other = "; the registry has another build" if item.identifier in known else ""
        listed.append(replace(row, reason=row.reason + other))
    listed.sort(key=lambda row: (row.identifier, not row.in_registry))
    for place, problem in damaged:
        reason = f"{'' if isinstance(problem, Hidden) else 'is damaged: '}{problem}"
        listed.append(
            ListedArtifact(
                identifier=place,
                in_registry=False,
                path=place,
                fits=False,
                reason=reason,
                readable=not isinstance(problem, Hidden),
            )
        )
    return tuple(listed)


def _row(
    entry: Entry | None, item: Held | None, request: Request, choices: Provenances | None = None
) -> ListedArtifact:
    some = entry or item
    assert some is not None  # noqa: S101
    fits, reason = judge(some, request)
    return ListedArtifact(
        **{name: getattr(some, name) for name in (*_IDENTITY, "size")},
        in_registry=entry is not None,
        path=item.place if item else None,
        models=len(entry.models) if entry else None,
        choices=entry.choices if entry else choices,
        numerics=entry.numerics.status if entry else None,
        origins=tuple(f"{origin.repo}@{origin.commit}" for origin in item.origins) if item else (),
        fits=fits,
        reason=reason,
    )


def judge(candidate: Candidate, request: Request) -> tuple[bool | None, str]:
    """Say whether an artifact fits this machine, and why; None where there is no GPU to say it by."""
    if found := differences(candidate, request):
        return False, reason_of(found)
    if request.targets is None:
        return None, f"fits what is installed; there is no GPU here to compare {candidate.target} with"
    return True, "fits"

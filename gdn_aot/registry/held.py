"""What the store on this machine holds, as far as choosing needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.registry.layout import count_choices
from gdn_aot.store.origins import Origin, read_origins
from gdn_aot.store.whole import UNREADABLE, faults, said

if TYPE_CHECKING:
    from gdn_aot.registry.layout import Provenances
    from gdn_aot.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """One artifact of the store. A `gdn_aot.registry.select.Candidate`."""

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


def held(store: Store, *, whole: bool = False) -> tuple[tuple[Held, ...], tuple[tuple[str, str], ...]]:
    """Return the artifacts of a store, the one installed last first, and (directory, problem) of what is damaged.

    Args:
        store: The store.
        whole: Count what is not whole as damaged, as `gdn_aot.store.whole.faults` sees it.

    Raises:
        UnknownFormatError: A newer gdn-aot made the store.
    """
    found, damaged = [], []
    for place in store.artifacts():
        try:
            item = _read(store, place)
        except UNREADABLE as error:
            damaged.append((place, said(error)))
            continue
        problems = faults(place) if whole else []
        if problems:
            damaged.append((place, str(problems[0])))
        else:
            found.append(item)
    return tuple(found), tuple(damaged)


def provenances(store: Store, place: str) -> Provenances | None:
    """Return where the choices of an artifact come from; None if its index cannot be read."""
    try:
        index = store.open_index(place)
        return count_choices(choice.provenance for kernel in index.kernels() for choice in index.choices(kernel.name))
    except UNREADABLE:
        return None


def _read(store: Store, place: str) -> Held:
    header = store.open_index(place).header
    return Held(
        identifier=header["identifier"],
        sha256=header["sha256"],
        target=header["target"],
        provider=header["provider"],
        version=header["version"],
        triton=header["triton"],
        place=place,
        origins=read_origins(place),
    )

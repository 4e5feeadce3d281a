"""The store: whether it can be used, and what is in it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gdn_aot.errors import GdnAotError
from gdn_aot.store.store import Store

_FORMAT_BYTES = 64
"""As much of ``format`` as is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreState:
    """The directory that artifacts are installed in."""

    path: str
    exists: bool
    writable: bool
    """It can be written, or made where it does not exist."""
    format: str | None
    artifacts: int
    blobs: int
    blob_bytes: int
    problem: str
    """Why it cannot be used, or empty. That it does not exist is no problem."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreView:
    """A store and what one look at it found."""

    store: Store
    places: tuple[str, ...]
    """Directories of the artifacts."""
    sizes: dict[str, int]
    """Bytes of each blob, by its SHA-256."""
    state: StoreState


def read_store(home: str) -> StoreView:
    """Look at the store in ``home``. That it cannot be used is a result, not an error."""
    store = Store(home)
    root = store.root
    places: tuple[str, ...] = ()
    try:
        problem = _unusable(root)
        places = tuple(store.artifacts())
    except (GdnAotError, OSError, ValueError) as error:
        problem = str(error) or type(error).__name__
    sizes = store.blob_sizes()
    state = StoreState(
        path=root,
        exists=os.path.isdir(root),
        writable=_writable(root),
        format=_format(root),
        artifacts=len(places),
        blobs=len(sizes),
        blob_bytes=sum(sizes.values()),
        problem=problem,
    )
    return StoreView(store=store, places=places, sizes=sizes, state=state)


def _unusable(root: str) -> str:
    """Return why the loader finds nothing in a store that is there; to the loader it is just empty."""
    nearest = _nearest(root)
    if nearest == root and os.path.isdir(root):
        try:
            os.listdir(f"{root}/artifacts")
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{root}/artifacts cannot be read: {error.strerror}"
    elif not os.path.isdir(nearest):
        return f"{nearest} is not a directory"
    elif not os.access(nearest, os.X_OK):
        return f"{nearest} cannot be entered"
    return ""


def _nearest(path: str) -> str:
    """Return the longest part of a path that is there."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _writable(root: str) -> bool:
    nearest = _nearest(root)
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)


def _format(root: str) -> str | None:
    try:
        with open(f"{root}/format", encoding="ascii", errors="backslashreplace") as file:
            return file.read(_FORMAT_BYTES).strip()
    except OSError:
        return None

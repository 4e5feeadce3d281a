"""The page of ``gdn-aot report`` that is published beside artifacts: whoever fetches artifacts never reads it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gdn_aot._files import read_regular
from gdn_aot.errors import EntryMissingError, UsageError
from gdn_aot.registry.base import MAX_READ, Snapshot
from gdn_aot.registry.layout import BRANCH

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.registry.base import Registry


def read_page(path: Path | None) -> bytes | None:
    """Return what a page to be published holds; None for none.

    Raises:
        UsageError: It cannot be read, or is none.
    """
    if path is None:
        return None
    try:
        content = read_regular(path, MAX_READ)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the page {path}: {what}", hint="name another") from error
    if not content.startswith(b"<!doctype html>"):
        raise UsageError(f"{path} is no page of gdn-aot report", hint="gdn-aot report FILE... -o report.html makes one")
    return content


def file_of(registry: Registry, commit: str | None, path: str) -> bytes | None:
    """Return a file of a commit of the moving branch; None if there is none of either."""
    with contextlib.suppress(EntryMissingError):
        return registry.read(Snapshot(revision=BRANCH, commit=commit), path) if commit else None
    return None

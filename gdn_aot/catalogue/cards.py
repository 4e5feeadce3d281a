"""Cards by their names: which target each is of. The names and their sources are in ``catalogue/cards.toml``."""

from __future__ import annotations

import re

from gdn_aot.catalogue import read_table


def target_of(name: str) -> str | None:
    """Return the target of a card, as ``sm_89`` for ``NVIDIA L4``; None if the name is not known."""
    for row in read_table("cards.toml")["cards"]:
        if re.search(rf"(?<![A-Za-z0-9])(?:{'|'.join(row['names'])})(?![A-Za-z0-9])", name):
            return str(row["target"])
    return None

"""Launch keys of engines' gated norms, whose rows in a block follow from the card."""

from __future__ import annotations

MOST_ROWS = 4
"""Most rows of a block (``calc_rows_per_block``): 1, 2 or 4, the power of 2 from half the rows of each SM on."""
SM_COUNTS = range(8, 257)
"""SM counts of cards and of their slices: more than the largest now has, less than the smallest slice of one."""


def norm_rows(v_heads: int) -> tuple[tuple[int, int], ...]:
    """Return (tokens, SM count) for each launch key that the gated norm can have on some card.

    The rows that a block takes follow from the rows there are, ``v_heads`` for each token, and from the SM count, so
    that cards of one architecture differ in them. Which classes of the row count occur with which block follows the
    card too: 15 rows for each token are a multiple of 16 at every sixteenth token only, and a small card has none of
    these where blocks take two rows.
    """
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for sm_count in SM_COUNTS:
        for tokens in range(1, (MOST_ROWS * sm_count) // v_heads + 18):
            rows = tokens * v_heads
            block = min(MOST_ROWS, 1 << (-(-rows // (2 * sm_count)) - 1).bit_length())
            kind = 1 if rows == 1 else 16 if rows % 16 == 0 else 0
            found.setdefault((block, kind), (tokens, sm_count))
    return tuple(found.values())

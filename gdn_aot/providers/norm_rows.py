"""Launch keys of gated norms, whose rows in a block follow from the card.

Engines' norms have a few rows in a block, FLA's has them in buckets and backwards shares them among the SMs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gdn_aot.providers import traffic

if TYPE_CHECKING:
    from collections.abc import Iterable

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
            found.setdefault((block, _kind(rows)), (tokens, sm_count))
    return tuple(found.values())


def bucket_rows(
    v_heads: int, rows: int, max_tokens: int, sm_counts: Iterable[int] = (1,)
) -> tuple[tuple[int, int], ...]:
    """Return (tokens, SM count) for each launch key that FLA's gated norm can have on cards with so many SMs.

    Buckets are of ``rows`` rows, those of `traffic.bucket_tokens`. In each, both the number of rows, ``v_heads`` for
    each token, and the share of one SM can be 1, a multiple of 16 or neither. Only the backward pass has shares: with
    a single SM they are all rows.
    """
    found: dict[tuple[int, int, int], tuple[int, int]] = {}
    counts = tuple(sm_counts)
    few = range(min(max_tokens, 16 * min(counts)), 0, -1)
    for most in traffic.bucket_tokens(v_heads, rows, max_tokens):
        bucket = math.ceil(most * v_heads / rows)
        for tokens in (*range(most, max(0, most - 16), -1), *(few if bucket == 1 else ())):
            total = tokens * v_heads
            if math.ceil(total / rows) == bucket:
                for sm_count in counts:
                    share = math.ceil(total / min(sm_count, total))
                    found.setdefault((bucket, _kind(total), _kind(share)), (tokens, sm_count))
    return tuple(found.values())


def _kind(number: int) -> int:
    """Return what a launch key has of an integer."""
    return 1 if number == 1 else 16 if number % 16 == 0 else 0

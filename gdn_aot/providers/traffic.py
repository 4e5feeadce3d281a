"""Random traffic and length classes, shared by the providers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from gdn_aot.catalogue.providers import Limits


def powers(most: int) -> Iterator[int]:
    """Yield 1, 2, 4 and so on up to ``most``, which is the last whether it is a power or not."""
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def bucket_tokens(rows_per_token: int, rows: int, max_tokens: int) -> Iterator[int]:
    """Yield a token count for `powers` of ``ceil(tokens * rows_per_token / rows)`` up to ``max_tokens``."""
    for bucket in powers(math.ceil(max_tokens * rows_per_token / rows)):
        yield min(max_tokens, bucket * rows // rows_per_token)


def buckets_near(rows_per_token: int, rows: int, tokens: int, limits: Limits) -> Iterator[int]:
    """Yield those of `bucket_tokens` within ``limits`` that are in (tokens / 4, tokens]."""
    for bucket in bucket_tokens(rows_per_token, rows, limits.max_tokens):
        if tokens < 4 * bucket <= 4 * tokens:
            yield bucket


def uneven(tokens: int, chunk: int) -> tuple[int, ...]:
    """Return two unequal lengths that make ``tokens``, neither a multiple of ``chunk`` if that can be."""
    for first in range(tokens * 2 // 5, 0, -1):
        if first % chunk and (tokens - first) % chunk:
            return first, tokens - first
    return (tokens,)


def chance(rng: random.Random, probability: float) -> bool:
    """Return True with a probability from 0 to 1."""
    return rng.random() < probability


def random_length(rng: random.Random, max_tokens: int) -> int:
    """Return a prompt length from 1 to ``max_tokens``, log-uniform, and now and then the longest one."""
    if chance(rng, 0.05):
        return max_tokens
    return min(max_tokens, int(math.exp(rng.uniform(0, math.log(max_tokens + 1)))))


def random_prompts(rng: random.Random, limits: Limits) -> tuple[tuple[int, ...] | None, int, int]:
    """Return (lengths of a pack or None, dense batch, tokens per sequence), within ``limits``."""
    if chance(rng, 0.5):
        left, lengths = limits.max_tokens, []
        for _ in range(rng.randint(1, 16)):
            length = random_length(rng, limits.max_tokens)
            if length > left:
                break
            lengths.append(length)
            left -= length
        return tuple(lengths), 1, sum(lengths)
    tokens = random_length(rng, limits.max_tokens)
    batch = rng.randint(1, max(1, min(limits.max_batch, limits.max_tokens // tokens)))
    return None, (1 if chance(rng, 0.5) else batch), tokens

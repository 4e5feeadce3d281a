"""Values of a specialization as JSON, and back: what Triton keeps as tuples, types and constants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gdn_aot.launches import Json
from typing import Any

_NO_JSON = ("inf", "-inf", "nan")
"""Numbers that JSON lacks."""


class NotPlainError(TypeError):
    """A value cannot be recorded. The message has no value in it, which may hold an address or a path."""

    @classmethod
    def of(cls, value: object) -> NotPlainError:
        """Return that of a value that has no JSON form."""
        return cls(f"a value of type {type(value).__name__} has no JSON form")


def plain(value: Any) -> Json:
    """Return a value that JSON has, with lists for tuples, and ``{"float": "-inf"}`` for a number that JSON lacks.

    Raises:
        NotPlainError: It has no JSON form.
    """
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise NotPlainError.of(value)


def plain_metadata(value: Any) -> Json:
    """Return metadata of a binary as JSON: `plain`, with objects inside."""
    if isinstance(value, dict):
        return {str(name): plain_metadata(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_metadata(item) for item in value]
    return plain(value)


def encode(value: Any) -> Json:
    """Return a constant argument as JSON: `plain`, ``{"constexpr": ...}`` or ``{"dtype": "..."}``."""
    import triton.language as tl

    if isinstance(value, tl.dtype):
        return {"dtype": str(value)}
    if isinstance(value, tl.constexpr):
        return {"constexpr": plain(value.value)}
    return plain(value)


def decode(value: Any) -> Any:
    """Return the constant argument that `encode` wrote."""
    import triton.language as tl

    if isinstance(value, dict) and "dtype" in value:
        return tl.dtype(value["dtype"])
    if isinstance(value, dict) and "constexpr" in value:
        return tl.constexpr(tuples(value["constexpr"]))
    return tuples(value)


def tuples(value: Any) -> Any:
    """Return what `plain` was given: tuples for lists, at every depth, and the numbers that JSON lacks."""
    if isinstance(value, dict) and value.get("float") in _NO_JSON:
        return float(value["float"])
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value

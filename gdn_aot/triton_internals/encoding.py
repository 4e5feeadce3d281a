"""Values of a specialization as JSON, and back: what Triton keeps as tuples, types and constants."""

from __future__ import annotations

from typing import Any

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def plain(value: Any) -> Json:
    """Return a value that JSON has, with lists for tuples.

    Raises:
        TypeError: It has no JSON form.
    """
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no JSON form")


def plain_metadata(value: Any) -> Json:
    """Return metadata of a binary as JSON: `plain`, with objects inside."""
    if isinstance(value, dict):
        return {str(name): plain_metadata(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_metadata(item) for item in value]
    return plain(value)


def encode(value: Any) -> Json:
    """Return a constant argument as JSON: plain, ``{"constexpr": ...}`` or ``{"dtype": "..."}``."""
    import triton.language as tl

    if isinstance(value, tl.dtype):
        return {"dtype": str(value)}
    if isinstance(value, tl.constexpr):
        return {"constexpr": plain(value.value)}
    return plain(value)


def decode(value: Any) -> Any:
    """Return the constant argument that `encode` wrote."""
    import triton.language as tl

    if isinstance(value, dict):
        return tl.dtype(value["dtype"]) if "dtype" in value else tl.constexpr(tuples(value["constexpr"]))
    return tuples(value)


def tuples(value: Any) -> Any:
    """Return tuples for lists, at every depth."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value

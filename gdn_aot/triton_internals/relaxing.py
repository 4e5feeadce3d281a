"""Launch keys in which one constexpr has another value, for kernels of which a binary serves every value of it."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any


def constant_position(jit: Any, name: str) -> int:
    """Return which parameter of a ``JITFunction`` the constexpr ``name`` is.

    Raises:
        ValueError: It has no constexpr of this name.
    """
    for position, parameter in enumerate(jit.params):
        if parameter.name == name and parameter.is_constexpr:
            return position
    raise ValueError(f"{jit.fn.__module__}:{jit.fn.__qualname__} has no constexpr {name}")


def relaxed_key(key: str, position: int, value: int) -> str | None:
    """Return a launch key with another value for the constexpr at a position, or None if the key is not as known.

    A launch key is the text of a list with a pair for each parameter, ``('constexpr', value)`` for a constexpr, and
    the text of the options after it. `constant_position` gives the position.
    """
    depth, quote, number, start, skip = 0, "", 0, 1, False
    for index, char in enumerate(key):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[({":
            depth += 1
        elif char in "])}" or (char == "," and depth == 1):
            depth -= char != ","
            if depth > 1 or (depth == 1 and char != ","):
                continue
            if number == position:
                return _with_constant(key, start, index, value)
            if depth == 0:
                return None
            number, start = number + 1, index + 2
    return None


def _with_constant(key: str, start: int, end: int, value: int) -> str | None:
    head = "('constexpr', "
    if not key.startswith(head, start) or key[end - 1] != ")":
        return None
    return f"{key[:start]}{head}{value!r}){key[end:]}"

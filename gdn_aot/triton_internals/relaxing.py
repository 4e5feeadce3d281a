"""Launch keys and autotune keys of kernels of which one binary serves every value of a constexpr.

Either the value does not matter, and binaries are compiled with one that stands for all; or binaries take it as an
argument, of type `RUN_TIME`: a constexpr that the kernel only computes with can be an ordinary parameter. The launcher
is handed the values of constexprs anyway, and leaves out those that the signature has none for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Relaxation = tuple[str, int | None, int | None]
    """Constexpr, the value that stands for all or None for an argument, and its place in the autotune key or None."""

RUN_TIME = "i32"
"""Type of a constexpr that binaries take as an argument, as in a signature."""
FOLDED = 1
"""The value of such a constexpr that is compiled in all the same: that of a single sequence, the most frequent."""
_CONSTANT = "('constexpr', "


def constant_position(jit: Any, name: str) -> int:
    """Return which parameter of a ``JITFunction`` the constexpr ``name`` is.

    Raises:
        ValueError: It has no constexpr of this name.
    """
    for position, parameter in enumerate(jit.params):
        if parameter.name == name and parameter.is_constexpr:
            return position
    raise ValueError(f"{jit.fn.__module__}:{jit.fn.__qualname__} has no constexpr {name}")


def keys_to_look_up(jit: Any, key: str, relaxations: Iterable[Relaxation]) -> list[str]:
    """Return the launch keys under which a binary for ``key`` may be: itself, then with relaxed constants.

    Raises:
        ValueError: The kernel has no constexpr of a relaxation's name.
    """
    relaxed: str | None = key
    for argument, value, _ in relaxations:
        if relaxed is not None:
            relaxed = relaxed_key(relaxed, constant_position(jit, argument), value)
    return [key] if relaxed in (None, key) else [key, relaxed]


def relaxed_key(key: str, position: int, value: int | None) -> str | None:
    """Return a launch key with another value for the constexpr at a position, or None if the key is not as known.

    A launch key is the text of a list with a pair for each parameter, ``('constexpr', value)`` for a constexpr, and
    the text of the options after it. `constant_position` gives the position; None in place of a value is for binaries
    that take it as an argument.
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


def _with_constant(key: str, start: int, end: int, value: int | None) -> str | None:
    if not key.startswith(_CONSTANT, start) or key[end - 1] != ")":
        return None
    if value is not None:
        return f"{key[:start]}{_CONSTANT}{value!r}){key[end:]}"
    given = key[start + len(_CONSTANT) : end - 1]
    if not given.isdecimal() or int(given) >= 1 << 31:
        return None
    return key if int(given) == FOLDED else f"{key[:start]}('{RUN_TIME}', None){key[end:]}"

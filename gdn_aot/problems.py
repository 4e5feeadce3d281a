"""What is wrong with a JSON value, found by the JSON Schema of what it should be, in our words and with its path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gdn_aot._text import suggest
from gdn_aot.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_PROBLEMS = 1000
"""Problems that are listed of one file."""
_SHOWN = 80
"""Characters of a file's own text that a message repeats."""
_KINDS = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "object"}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}
_SCHEMA_KINDS = {"integer": "int", "string": "str", "boolean": "bool", "number": "number", "array": "list"}


def capped(found: Iterable[Problem]) -> list[Problem]:
    """Return problems, each once, up to `MAX_PROBLEMS`: what a hostile file can make us keep is bounded."""
    listed: dict[Problem, None] = {}
    for problem in found:
        if len(listed) == MAX_PROBLEMS:
            return [*listed, Problem("", f"there are more than {MAX_PROBLEMS} problems")]
        listed[problem] = None
    return [*listed]


def problems(value: object, schema: dict[str, Any]) -> list[Problem]:
    """Return every way in which a value is not what a schema says, each with its path."""
    from jsonschema import Draft202012Validator

    return capped(
        Problem(path_text([*error.absolute_path, *inside]), what)
        for found in Draft202012Validator(schema).iter_errors(value)
        for error in _inner(found)
        if error.validator != "items"  # those behind a list of a fixed length: the length is named
        for inside, what in _said(error)
    )


def problem_of(error: Exception) -> Problem:
    """Return the problem that an error of msgspec speaks of: the first that it met."""
    what, _, where = str(error).partition(" - at `")
    what = what if what[1:2].isupper() else what[:1].lower() + what[1:]
    place = where.removeprefix("key` in `").removeprefix("$").removeprefix(".").rstrip("`")
    return Problem(place, what[:200] or type(error).__name__)


def path_text(path: Iterable[str | int]) -> str:
    """Return a path into a file, as ``kernels[3].choices[0].config.num_warps``."""
    return "".join(map(step, path)).removeprefix(".")


def step(key: str | int) -> str:
    """Return one step of a path: ``[3]``, ``.config`` or ``['odd key']``."""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if key.isascii() and key.isidentifier() and len(key) <= _SHOWN else f"[{key[:_SHOWN]!a}]"


def kind(value: object) -> str:
    """Return the name of a JSON value's type in messages."""
    return _KINDS.get(type(value), type(value).__name__)


def _inner(error: Any) -> Iterator[Any]:
    """Yield what is wrong inside a value of which one of several forms is expected, if it is of the type of one."""
    branches: dict[object, list[Any]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    fitting = [found for found in branches.values() if not any(e.validator == "type" and not e.path for e in found)]
    if len(fitting) == 1:
        for inner in fitting[0]:
            yield from _inner(inner)
    else:
        yield error


def _said(error: Any) -> Iterator[tuple[list[str], str]]:
    """Yield (keys further inside, what is wrong) for an error of the schema's validator, in our words."""
    wanted, value = error.validator_value, error.instance
    match error.validator:
        case "type":
            yield [], f"expected {_kinds(wanted)}, got {kind(value)}"
        case "required":
            yield re.findall(r"^'(.*)' is a required property$", error.message), "missing"
        case "additionalProperties":
            known = error.schema.get("properties", {})
            otherwise = f"known are {', '.join(known)}"
            for name in sorted(value.keys() - known.keys()):
                yield [name], f"unknown key; {suggest(name[:_SHOWN], known, otherwise)}"
        case "anyOf":
            options = [part for part in wanted if "type" in part]
            kinds = " or ".join(_kinds(part["type"]) for part in options) or "another form"
            yield [], f"expected {kinds}, got {kind(value)}"
        case "enum" | "const":
            options = wanted if isinstance(wanted, list) else [wanted]
            yield [], f"expected {' or '.join(map(str, options))}, got {_short(value)}"
        case "pattern" | "minLength" | "maxLength":
            named = error.schema.get("description")
            how = f"is not {named}" if named else f"does not match {error.schema.get('pattern', 'its length')}"
            yield [], f"{_short(value)} {how}"
        case bound if bound in _BOUNDS:
            yield [], f"expected {_BOUNDS[bound]} {wanted}, got {_short(value)}"
        case "minItems" | "maxItems":
            exact = error.schema.get("minItems") == error.schema.get("maxItems")
            bound = "" if exact else "at least " if error.validator == "minItems" else "at most "
            yield [], f"expected list of {bound}{wanted}, got list of {len(value)}"
        case other:
            yield [], f"breaks the rule {other}"


def _kinds(wanted: str | list[str]) -> str:
    return " or ".join(_SCHEMA_KINDS.get(name, name) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _short(value: object) -> str:
    return ascii(value if not isinstance(value, str) else value[:_SHOWN])[: 2 * _SHOWN]

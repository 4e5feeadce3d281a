"""The part of GitHub's expressions that our workflows use; whatever else is written is refused.

Literals, contexts with dots, ``!``, ``==``, ``!=``, ``&&``, ``||``, parentheses, ``fromJSON`` and the four functions of
the state of a job. See GitHub's "Evaluate expressions in workflows and actions".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Functions = Mapping[str, Callable[..., Any]]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<string>'(?:[^']|'')*')|(?P<name>[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)"
    r"|(?P<mark>==|!=|&&|\|\||[!(),]))"
)
_HOLE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_STATE = re.compile(r"\b(success|failure|always|cancelled)\s*\(")
_LITERALS: dict[str, Any] = {"true": True, "false": False, "null": None}


class UnknownExpression(Exception):  # noqa: N818 - what is written is not known here
    """An expression, a name or a function that is not known."""


def evaluate(text: str, contexts: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """Return the value of an expression, which is written without ``${{ }}``.

    Args:
        text: The expression.
        contexts: By name: ``github``, ``matrix`` and so on. A context must be here; a member that it lacks is null.
        functions: Further functions than ``fromJSON``.
    """
    reader = _Reader(text, contexts, {"fromJSON": json.loads, **(functions or {})})
    value = reader.alternatives()
    reader.end()
    return value


def fill(text: str, contexts: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """Return a text with the values of its expressions; of one that is the whole text, the value itself."""
    whole = _HOLE.fullmatch(text.strip())
    if whole and "${{" not in whole[1]:
        return evaluate(whole[1], contexts, functions)
    filled = _HOLE.sub(lambda hole: as_text(evaluate(hole[1], contexts, functions)), text)
    if _HOLE.sub("", text).find("${{") >= 0:
        raise UnknownExpression(f"not closed: {text!r}")
    return filled


def condition(text: str, contexts: Mapping[str, Any], functions: Functions) -> bool:
    """Return what an ``if`` says, which means ``success() && (...)`` where it names no state itself."""
    whole = _HOLE.fullmatch(text.strip())
    inner = whole[1] if whole else text
    if not _STATE.search(inner):
        inner = f"success() && ({inner})"
    return truth(evaluate(inner, contexts, functions))


def truth(value: Any) -> bool:
    """Say whether a value counts as true."""
    return value not in (None, False, 0, "")


def as_text(value: Any) -> str:
    """Return a value as it is put into a text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() | float():
            return f"{value:g}"
    raise UnknownExpression(f"no text: {value!r}")


class _Reader:
    """Reads tokens from the left and computes as it goes."""

    def __init__(self, text: str, contexts: Mapping[str, Any], functions: Functions) -> None:
        self.text, self.contexts, self.functions = text, contexts, functions
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise UnknownExpression(f"{text[at:].strip()!r} in {text!r}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()

    def alternatives(self) -> Any:
        value = self._both()
        while self._take("||"):
            other = self._both()
            value = value if truth(value) else other
        return value

    def _both(self) -> Any:
        value = self._comparison()
        while self._take("&&"):
            other = self._comparison()
            value = other if truth(value) else value
        return value

    def _comparison(self) -> Any:
        value = self._one()
        for mark in ("==", "!="):
            if self._take(mark):
                return _equal(value, self._one()) is (mark == "==")
        return value

    def _one(self) -> Any:  # noqa: PLR0911 - one for each form
        if self._take("!"):
            return not truth(self._one())
        if self._take("("):
            value = self.alternatives()
            self._need(")")
            return value
        kind, text = self.tokens.pop(0) if self.tokens else ("end", "")
        match kind:
            case "string":
                return text[1:-1].replace("''", "'")
            case "number":
                return float(text) if "." in text else int(text)
            case "name" if text in _LITERALS:
                return _LITERALS[text]
            case "name" if self._take("("):
                return self._call(text)
            case "name":
                return self._look_up(text)
        raise UnknownExpression(f"{text or 'nothing'!r} in {self.text!r}")

    def _call(self, name: str) -> Any:
        if name not in self.functions:
            raise UnknownExpression(f"the function {name}")
        given = []
        while not self._take(")"):
            given.append(self.alternatives())
            if not self._take(","):
                self._need(")")
                break
        return self.functions[name](*given)

    def _look_up(self, name: str) -> Any:
        first, *rest = name.split(".")
        if first not in self.contexts or not rest:
            raise UnknownExpression(f"the context {name}")
        value = self.contexts[first]
        for member in rest:
            value = value.get(member) if isinstance(value, Mapping) else None
        return value

    def _take(self, mark: str) -> bool:
        if self.tokens and self.tokens[0] == ("mark", mark):
            self.tokens.pop(0)
            return True
        return False

    def _need(self, mark: str) -> None:
        if not self._take(mark):
            raise UnknownExpression(f"{mark!r} is missing in {self.text!r}")

    def end(self) -> None:
        if self.tokens:
            raise UnknownExpression(f"{self.tokens[0][1]!r} is too much in {self.text!r}")


def _equal(one: Any, other: Any) -> bool:
    """Compare as GitHub does: strings without regard to case; null is what is empty, zero or false."""
    if one is None or other is None:
        return not truth(one) and not truth(other)
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    if type(one) is type(other):
        return bool(one == other)
    raise UnknownExpression(f"{one!r} is compared with {other!r}")

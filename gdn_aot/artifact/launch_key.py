"""Whether a launch key says what a binary was compiled for.

A launch key is the text of a list with a pair for each argument, its type and what Triton specializes it on, and behind
it the text of the launch options. A constexpr is ``('constexpr', value)``; text with a D in it, on any other argument,
says that it is divisible by 16. What a value's text does not say, such as that of an object, is not compared, nor what
is inside a tuple argument.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.artifact.manifest import Parts
    from gdn_aot.launches import Json

MAX_KEY = 16 << 10
"""Characters of a launch key; those of GDN kernels have up to 800."""
_MAX_UNUSUAL = 4 << 20
"""Characters of all keys of an artifact that are not split at a glance."""
_KEPT = 1024
"""Pairs of signature and attributes whose usual texts are kept; artifacts have up to 200."""
_IMPLIED = ("'debug': False", "'instrumentation_mode': ''")
"""Options of every launch, which a specialization leaves out where they are empty."""
_DIVISIBLE = ("tt.divisibility", 16)
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$)|[][(){}]""", re.DOTALL)
_SAID = re.compile(r"None|True|False|-?(inf|nan|[0-9]).*|['\"].*", re.DOTALL)
"""The text of a value that a specialization has too."""
_CONTAINERS = (list, dict)
_CONSTEXPR = "'constexpr', "


class LaunchKeys:
    """Compares launch keys with the parts of one manifest, whose fields are sound."""

    def __init__(self, parts: Parts) -> None:
        self._signatures = [_Arguments(signature) for signature in parts.signature]
        self._constants = [_constants(constants) for constants in parts.constants]
        self._divisible = [
            {path[0] for path, pairs in found if len(path) == 1 and _DIVISIBLE in pairs} for found in parts.attributes
        ]
        self._options = parts.options
        self._texts: dict[tuple[int, int], list[tuple[str, ...]]] = {}
        """By places of signature and attributes."""
        self._unusual = 0
        """Characters of keys that were not split at a glance."""

    def fault(self, key: str, signature: int, constants: int, attributes: int, options: int) -> str:
        """Return what a launch key contradicts, or nothing; the numbers are places in the parts."""
        if len(key) > MAX_KEY:
            return f"is longer than {MAX_KEY} characters"
        arguments, (places, texts) = self._signatures[signature], self._constants[constants]
        if places != arguments.constants:
            return "is of a specialization that has no value for just the constexprs of its signature"
        begin, _, rest = key.partition("]{")
        found = begin[2:-1].split("), (")
        framed = begin[:2] == "[(" and begin[-1:] == ")" and rest[-1:] == "}" and len(found) == arguments.count
        if not (framed and self._usual(found, signature, attributes, texts)):
            self._unusual += len(key)
            split = _split(key) if self._unusual <= _MAX_UNUSUAL else None
            if split is None:
                return "is not as Triton writes it"
            found, rest = split
            if fault := arguments.fault(found, texts, self._divisible[attributes]):
                return fault
        values = dict(zip(arguments.names, texts, strict=True))
        return self._options_fault(rest[:-1], self._options[options], values)

    def _usual(self, found: Sequence[str], signature: int, attributes: int, constants: Sequence[str]) -> bool:
        """Say whether the texts of arguments are those that most keys of this specialization have."""
        usual = self._texts.get((signature, attributes))
        if usual is None:
            if len(self._texts) == _KEPT:
                self._texts.clear()
            usual = self._signatures[signature].usual(self._divisible[attributes])
            self._texts[signature, attributes] = usual
        values = iter(constants)
        for text, known in zip(found, usual, strict=True):
            if (text not in known) if known else (text != next(values)):
                return False
        return True

    def _options_fault(self, text: str, options: Mapping[str, Json], values: Mapping[str, str]) -> str:
        """Return what is wrong with the text of options; ``values`` are the texts of constexprs by name.

        An option that is a constexpr of the kernel, too, is among the arguments of a key.
        """
        said = [piece for piece in text.split(", ") if piece and piece not in _IMPLIED]
        own = {name: value for name, value in options.items() if name not in values}
        plain = not any(type(value) in _CONTAINERS for value in own.values())
        same = not plain or said == [f"{name!r}: {value!r}" for name, value in own.items()]
        same &= all(values[name] == _CONSTEXPR + repr(value) for name, value in options.items() if name in values)
        return "" if same else "has other options than the specialization"


class _Arguments:
    """A signature as launch keys tell it."""

    def __init__(self, signature: Mapping[str, Json]) -> None:
        self._types = [repr(_tuples(kind)) + ", " for kind in signature.values()]
        self.count = len(self._types)
        self.constants = [place for place, kind in enumerate(signature.values()) if kind == "constexpr"]
        self.names = [name for name, kind in signature.items() if kind == "constexpr"]

    def usual(self, divisible: set[int]) -> list[tuple[str, ...]]:
        """Return the texts that each argument mostly has, none for a constexpr."""
        return [
            ()
            if kind == _CONSTEXPR
            else (f"{kind}'D'",)
            if place in divisible
            else (f"{kind}''", f"{kind}None", f"{kind}1")
            for place, kind in enumerate(self._types)
        ]

    def fault(self, found: Sequence[str], constants: Sequence[str], divisible: set[int]) -> str:
        """Return what the texts of arguments contradict, or nothing."""
        if len(found) != len(self._types) or not all(map(str.startswith, found, self._types)):
            return "has other types than the signature"
        values = iter(constants)
        for place, (text, kind) in enumerate(zip(found, self._types, strict=True)):
            value = text[len(kind) :]
            if kind == _CONSTEXPR:
                wanted = next(values)
                if wanted and text != wanted and _SAID.fullmatch(value):
                    return f"has another value of argument {place} than the specialization"
            elif kind[0] == "'" and (value[:1] == "'" and "D" in value) != (place in divisible):
                return f"has another divisibility of argument {place} than the specialization"
        return ""


def _constants(constants: Sequence[tuple[tuple[int, ...], Json]]) -> tuple[list[int], list[str]]:
    """Return the places of constants that are arguments themselves, and their texts, empty where none is known."""
    own = [(path[0], value) for path, value in constants if len(path) == 1]
    texts = [_CONSTEXPR + repr(value) if type(value) not in _CONTAINERS else "" for _, value in own]
    return [place for place, _ in own], texts


def _split(key: str) -> tuple[list[str], str] | None:
    """Return the texts of the arguments, without their parentheses, and that of the options; None if it is no key."""
    depth, begin, texts = 0, 0, []
    for match in _TOKEN.finditer(key):
        if match[0] in ("(", "[", "{"):
            depth += 1
            begin = match.end() if depth == 2 else begin  # noqa: PLR2004
        elif match[0] in (")", "]", "}"):
            if depth == 2:  # noqa: PLR2004
                texts.append(key[begin : match.start()])
            depth -= 1
            if depth == 0:
                whole = f"[{', '.join(f'({text})' for text in texts)}]{{"
                return (texts, key[match.end() + 1 :]) if key.startswith(whole) and key.endswith("}") else None
    return None


def _tuples(kind: Any) -> Any:
    return tuple(map(_tuples, kind)) if isinstance(kind, list) else kind

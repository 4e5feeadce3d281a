"""Reading the binaries of a manifest fast: what is there word for word again is read once.

A manifest of the whole catalogue has three thousand binaries, in 8 MB of JSON of which nine tenths are repeated. Here
their lists are cut out of the text at the keys that separate the fields, in the order in which they are written, and
each piece is looked up before it is parsed.

This accepts less than the parser proper and nothing else. A key in quotes followed by a colon is a key wherever it
stands in valid JSON, since a quote inside a string has a backslash before it. So if every piece between the expected
keys is one whole JSON value, the text is one object with these keys and these values; and if what remains is valid
with another value in the place of a list, it was valid with the list. Whatever differs from that is left to
`gdn_aot.artifact.parse`, which also says what is wrong with it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.reader import JsonObject, ProblemList, refuse_constant, unique_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LIST = '"binaries":['
_FIRST = '{"launch_key":'
_FIELDS = (
    ("launch_key", ',"specialization":{"signature":'),
    ("signature", ',"constants":'),
    ("constants", ',"attributes":'),
    ("attributes", ',"options":'),
    ("options", '},"metadata":'),
    ("metadata", ',"resources":'),
    ("resources", ',"models":'),
    ("models", ',"workloads":'),
    ("workloads", ',"cubin":'),
    ("cubin", "}"),
)
"""Each field of a binary and what follows its value."""

_TEXTS = ("launch_key", "cubin")
"""Fields that are strings; nearly all of their values are there once."""


class NotPlainError(Exception):
    """The text is not in the form that is read here."""


class Repeats:
    """Cuts the lists of binaries out of a manifest and puts them back, read.

    Args:
        readers: How to read each field: given an object that has it under its name.
    """

    def __init__(self, readers: Mapping[str, Callable[[JsonObject], Any]]) -> None:
        self._readers = readers
        self._plan: list[tuple[str, dict[str, Any], str, int]] = [(name, {}, end, len(end)) for name, end in _FIELDS]
        """Each field, what its pieces were read as so far, what follows it, and the length of that."""
        self._mark = os.urandom(16).hex()
        """Stands for a list in the text. Nobody who wrote the text could know it."""
        self._lists: list[tuple[m.Binary, ...]] = []

    def cut(self, text: str) -> str:
        """Return the text with a mark in the place of each list of binaries.

        Raises:
            NotPlainError: It has another form.
        """
        rest, done = [], 0
        while (at := text.find(_LIST + _FIRST, done)) >= 0:
            start = at + len(_LIST)
            rest += [text[done : start - 1], f'"{self._mark}:{len(self._lists)}"']
            binaries, done = self._read_list(text, start)
            self._lists.append(binaries)
        return "".join([*rest, text[done:]])

    def put_back(self, manifest: object) -> None:
        """Put the lists into what was made of the text that `cut` returned.

        Raises:
            NotPlainError: They were elsewhere than in the kernels.
        """
        found = 0
        kernels = manifest.get("kernels") if isinstance(manifest, dict) else None
        for kernel in kernels if isinstance(kernels, list) else ():
            if isinstance(kernel, dict) and kernel.get("binaries") == f"{self._mark}:{found}":
                kernel["binaries"] = self._lists[found]
                found += 1
        if found != len(self._lists):
            raise NotPlainError

    def _read_list(self, text: str, at: int) -> tuple[tuple[m.Binary, ...], int]:
        """Return the binaries of a list whose first one begins at a place, and the place after the list."""
        binaries = []
        while text.startswith(_FIRST, at):
            binary, at = self._read(text, at + len(_FIRST))
            binaries.append(binary)
            at += 1
            if text[at - 1 : at] != ",":
                break
        if text[at - 1 : at] != "]":
            raise NotPlainError
        return tuple(binaries), at

    def _read(self, text: str, at: int) -> tuple[m.Binary, int]:
        values = []
        for field, known, after, length in self._plan:
            end = text.find(after, at)
            if end < 0:
                raise NotPlainError
            piece = text[at:end]
            value = known.get(piece)
            if value is None:
                value = known[piece] = self._parse(field, piece)
            values.append(value)
            at = end + length
        launch_key, signature, constants, attributes, options, metadata, resources, models, workloads, cubin = values
        binary = m.Binary(
            launch_key=launch_key,
            specialization=m.Specialization(
                signature=signature, constants=constants, attributes=attributes, options=options
            ),
            metadata=metadata,
            resources=resources,
            models=models,
            workloads=workloads,
            cubin=cubin,
        )
        return binary, at

    def _parse(self, field: str, piece: str) -> Any:
        text = piece[1:-1]
        if field in _TEXTS and piece == f'"{text}"' and text.isprintable() and '"' not in text and "\\" not in text:
            return text
        problems = ProblemList()
        try:
            value = json.loads(piece, object_pairs_hook=unique_pairs, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise NotPlainError from error
        found = self._readers[field](JsonObject({field: value}, "", None, problems))
        if problems.count:
            raise NotPlainError
        return found

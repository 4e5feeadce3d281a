"""Autotune keys as people read them: with the names of their values, and the models whose calls have them."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from gdn_aot.providers.autotune_keys import key_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gdn_aot.artifact.manifest import Binary, Manifest, PackedKernel
    from gdn_aot.launches import Key

_TYPES = {"bf16": "bfloat16", "i1": "bool", "u8": "uint8"} | {
    f"{short}{bits}": f"{long}{bits}" for short, long in (("fp", "float"), ("i", "int")) for bits in (8, 16, 32, 64)
}
"""Number types of pointers as signatures have them, and as keys do."""
_INSTEAD = re.compile(r", for (\S+) instead of (\S+)$")
_NOTE = re.compile(
    r"([0-9.]+) of the best time on weighted average, ([0-9.]+) at ([0-9]+) tokens, of ([0-9]+) eligible"
)
_TIED = re.compile(r"smallest of ([0-9]+) that noise does not tell apart(?:, the fastest of which has ([0-9.]+))?")


def key_text(kernel: str, key: Key) -> str:
    """Return the key of a kernel, as ``H=16, K=128; bfloat16 x 2``; values without a known name have their place."""
    values, types = _split(key)
    names = key_names(kernel, len(values)) or [f"#{place}" for place in range(1, len(values) + 1)]
    shown = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
    groups = [(name, len(list(ones))) for name, ones in groupby(part.removeprefix("torch.") for part in types)]
    counted = ", ".join(name if count == 1 else f"{name} x {count}" for name, count in groups)
    return "; ".join(filter(None, (shown, counted)))


def _split(key: Key) -> tuple[list[object], list[str]]:
    """Return the values of a key, and the number types that follow them."""
    types = [part for part in key if isinstance(part, str) and part.startswith("torch.")]
    return [part for part in key if not (isinstance(part, str) and part.startswith("torch."))], types


def why(kernel: str, key: Key, source: Key | None, note: str) -> str:
    """Return why a choice was made, in words of the page.

    Args:
        kernel: ``module:qualname``.
        key: Of the choice.
        source: The key that it was transferred from, if that is known.
        note: Of the choice.
    """
    return _plainly(_named(kernel, key, source, note))


def _named(kernel: str, key: Key, source: Key | None, note: str) -> str:
    """Return a note that names in what the key differs from the one that was measured."""
    found = _INSTEAD.search(note)
    if found is None:
        return note
    values, _ = _split(key)
    names = key_names(kernel, len(values))
    there, here = (side.split("/") for side in found.groups())
    if source is None:
        places = [place for place, value in enumerate(values) if [str(value)] == here]
        places = places if len(places) == 1 else []
    else:
        places = [place for place, (one, two) in enumerate(zip(key, source, strict=False)) if one != two]
    fits = [str(key[place]) for place in places] == here and len(there) == len(here)
    if not names or not fits or places[-1] >= len(values):
        return note
    said = (f"{names[place]} {one} instead of {two}" for place, one, two in zip(places, there, here, strict=True))
    return f"{note[: found.start()]}, measured with {', '.join(said)}"


def _plainly(note: str) -> str:
    """Return a note whose ratios are said as percentages."""
    note = _NOTE.sub(
        lambda found: (
            f"{_more(found[1])} slower than the best candidates on weighted average, {_more(found[2])} at "
            f"{found[3]} tokens; eligible candidates: {found[4]}"
        ),
        note,
    )
    return _TIED.sub(
        lambda found: (
            f"{found[1]} candidates are within noise, and this is the smallest"
            + (f"; the fastest of them is {_more(found[2])} slower" if found[2] else "")
        ),
        note,
    )


def _more(ratio: str) -> str:
    try:
        return f"{100 * (float(ratio) - 1):.1f} %"
    except ValueError:
        return ratio


class Users:
    """Finds the models whose calls have an autotune key, by the binaries that have its values."""

    def __init__(self, kernel: PackedKernel, manifest: Manifest) -> None:
        self._name, self._models = kernel.name, manifest.models
        self._relaxed = {one.argument for one in kernel.relaxations}
        self._binaries = [(_constants(binary), _pointers(binary), binary.models) for binary in kernel.binaries]
        self._known: dict[tuple[object, ...], str] = {}

    def of(self, key: Key) -> str:
        """Return the models and their TP; empty if it cannot be told."""
        values, types = _split(key)
        names = key_names(self._name, len(values))
        if names is None:
            return ""
        fixed = tuple((name, value) for name, value in zip(names, values, strict=True) if name not in self._relaxed)
        place = (repr(fixed), *types)
        if place not in self._known:
            wanted = [part.removeprefix("torch.") for part in types]
            self._known[place] = self._said({
                model
                for constants, pointers, models in self._binaries
                if (len(pointers) != len(wanted) or pointers == wanted)
                and all(constants.get(name, value) == value for name, value in fixed)
                for model in models
            })  # fmt: skip
        return self._known[place]

    def _said(self, found: Iterable[int]) -> str:
        sizes: dict[str, set[int]] = {}
        for index in sorted(found):
            sizes.setdefault(self._models[index].name, set()).add(self._models[index].tp)
        return "; ".join(f"{name} TP {', '.join(map(str, sorted(tp)))}" for name, tp in sizes.items())


def _constants(binary: Binary) -> dict[str, object]:
    """Return the constexprs of a binary by name."""
    names = list(binary.specialization.signature)
    return {
        names[path[0]]: value["constexpr"] if isinstance(value, dict) and "constexpr" in value else value
        for path, value in binary.specialization.constants
        if len(path) == 1 and path[0] < len(names)
    }


def _pointers(binary: Binary) -> list[str]:
    """Return the number types of the pointers that a binary takes, as keys name them."""
    kinds = [kind for kind in binary.specialization.signature.values() if isinstance(kind, str) and kind[:1] == "*"]
    return [_TYPES.get(kind[1:], kind) for kind in kinds]

"""Arguments of the kinds that a specialization names: what a launch is called with to be specialized in the same way.

Relied on, and checked by whoever calls this: an integer is specialized by whether it is a multiple of 16 and by the
bits that it needs, a pointer by the type of its elements and by whether it is a multiple of 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.triton_internals.encoding import decode

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALIGNED = "tt.divisibility"
_SIXTEEN = 16
_INTEGERS = {"i32": _SIXTEEN, "i64": _SIXTEEN << 40, "u64": 1 << 63}
_OTHERS = {"fp32": 0.5, "fp64": 0.5, "u1": True, "i1": True}


class UnknownKindError(Exception):
    """A type of argument that is not made here."""


def make(
    tuner: Any, specialization: Mapping[str, Any], tuning: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments and keyword arguments of a call of an ``Autotuner``.

    ``specialization`` is of the launch that it came to; its constants hold what configurations and heuristics gave.
    ``tuning`` has ``key``, ``positional`` and ``keywords`` of the call; see `gdn_aot.capture.form.CapturedTuning`.
    Numbers that are part of the key are those of the key.

    Raises:
        UnknownKindError: The specialization has a type of argument that cannot be made.
        KeyError: The call has an argument that the specialization does not know.
    """
    values = _values(specialization)
    given = tuner.arg_names[: tuning["positional"]]
    order = [*given, *tuning["keywords"]]
    if tuning["key"] is not None:
        named = [name for name in tuner.keys if name in order]
        for name, value in zip(named, tuning["key"], strict=False):
            if type(values.get(name)) in (int, float):
                values[name] = value
    for name in order:
        if name not in values:
            values[name] = specialization["options"][name]
    return tuple(values[name] for name in given), {name: values[name] for name in tuning["keywords"]}


def make_plain(specialization: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments of a call of a ``JITFunction``, options included.

    Raises:
        UnknownKindError: As for `make`.
    """
    return {**_values(specialization), **specialization["options"]}


def _values(specialization: Mapping[str, Any]) -> dict[str, Any]:
    constants = {tuple(path): value for path, value in specialization["constants"]}
    attributes = {tuple(path): value for path, value in specialization["attributes"]}
    made: dict[str, Any] = {}
    for place, (name, kind) in enumerate(specialization["signature"].items()):
        if kind == "constexpr":
            made[name] = decode(constants[place,])
        else:
            aligned = any(attribute[0] == _ALIGNED for attribute in attributes.get((place,), ()))
            made[name] = _value(kind, aligned=aligned)
    return made


def _value(kind: Any, *, aligned: bool) -> Any:
    if not isinstance(kind, str):
        raise UnknownKindError(f"an argument of type {kind}")
    if kind.startswith("*"):
        return _pointer(kind.removeprefix("*").removeprefix("k"), aligned=aligned)
    if kind in _INTEGERS:
        return _INTEGERS[kind] + (not aligned)
    if kind not in _OTHERS:
        raise UnknownKindError(f"an argument of type {kind}")
    return _OTHERS[kind]


def _pointer(kind: str, *, aligned: bool) -> Any:
    """Return a tensor on the CPU whose elements have Triton's type ``kind``."""
    import torch
    from triton._utils import type_canonicalisation_dict

    names = [name for name, canonical in type_canonicalisation_dict.items() if canonical == kind]
    dtypes = [found for name in names if isinstance(found := getattr(torch, name, None), torch.dtype)]
    if not dtypes:
        raise UnknownKindError(f"a pointer to {kind}")
    size = dtypes[0].itemsize
    storage = torch.empty(4 * _SIXTEEN, dtype=torch.uint8)
    start = -storage.data_ptr() % _SIXTEEN + (0 if aligned else size)
    if size >= _SIXTEEN:
        raise UnknownKindError(f"a pointer to {kind}")
    return storage[start : start + size].view(dtypes[0])

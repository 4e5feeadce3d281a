"""Whether choices and metadata of a manifest are such that Triton can launch them."""

from __future__ import annotations

from keyword import iskeyword
from typing import TYPE_CHECKING

from gdn_aot.artifact.names import CONFIG_BOUNDS
from gdn_aot.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.artifact.manifest import GPU
    from gdn_aot.launches import Config, Json, Scalar

_MAX_INTEGER = (1 << 31) - 1
_MAX_NAME = 200
"""Characters of a name."""
_MAX_WORD = 64
"""Characters of a constexpr that is a word."""
_NUMBERS = {
    **{name: CONFIG_BOUNDS[name] for name in ("num_warps", "num_ctas", "num_stages")},
    "global_scratch_size": (0, _MAX_INTEGER),
    "profile_scratch_size": (0, _MAX_INTEGER),
}
"""Metadata that are numbers: least and most. Warp specialization may make other numbers of warps than powers of two."""
_SWITCHES = ("launch_cooperative_grid", "launch_pdl")


def check_choice(config: Config, where: str) -> Iterator[Problem]:
    """Yield what no launch can have in a configuration at a path of a manifest."""
    for name, (least, most) in CONFIG_BOUNDS.items():
        number, warps = getattr(config, name), name == "num_warps"
        if name == "maxnreg" and number is None:
            continue
        if not least <= number <= most or (warps and number & (number - 1)):
            expected = f"a power of two up to {most}" if warps else f"{least} to {most}"
            yield Problem(f"{where}.{name}", f"expected {expected}, got {number}")
    for number, (name, value) in enumerate(config.kwargs):
        if not is_name(name):
            yield Problem(f"{where}.kwargs[{number}][0]", "is no name of an argument")
        if not _is_small(value):
            what = f"expected an integer of 32 bits, a bool, a number or up to {_MAX_WORD} characters"
            yield Problem(f"{where}.kwargs[{number}][1]", what)


def check_metadata(metadata: dict[str, Json], target: GPU, where: str) -> Iterator[Problem]:
    """Yield what launching a binary would stumble over in its metadata at a path of a manifest."""
    wanted = {"backend": "cuda", "arch": int(target.name.removeprefix("sm_")), "warp_size": target.warp_size}
    for name, value in metadata.items():
        if not is_name(name) or name[:1] == "_":
            yield Problem(where, "has a key that is no name")
        elif isinstance(value, dict) and name != "target":
            yield Problem(f"{where}.{name}", "expected no object")
    if metadata.get("target") != wanted:
        yield Problem(f"{where}.target", f"is not that of the artifact, {wanted}")
    own = metadata.get("name")
    if not (isinstance(own, str) and is_name(own)):
        yield Problem(f"{where}.name", "expected the name of a kernel")
    for key, (least, most) in {**_NUMBERS, "shared": (0, target.max_shared)}.items():
        number = metadata.get(key)
        if type(number) is not int or not least <= number <= most:
            yield Problem(f"{where}.{key}", f"expected {least} to {most}")
    for key in _SWITCHES:
        if type(metadata.get(key)) is not bool:
            yield Problem(f"{where}.{key}", "expected bool")


def is_name(text: str) -> bool:
    """Say whether text can be the name of an argument or of a field."""
    return len(text) <= _MAX_NAME and text.isascii() and text.isidentifier() and not iskeyword(text)


def is_dotted(text: str) -> bool:
    """Say whether text can be the name of a module, or of a function in one."""
    return len(text) <= _MAX_NAME and all(map(is_name, text.split(".")))


def _is_small(value: Scalar) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_WORD
    return not isinstance(value, int) or -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER

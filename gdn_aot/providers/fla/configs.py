"""FLA's own configuration files: what ``fla.ops.utils.cache`` reads from ``$FLA_CONFIG_DIR/KERNEL.json``.

FLA documents the files but ships none. With ``FLA_CACHE_MODE=strict`` an autotuner of FLA's class ``CachedAutotuner``
(decorator ``fla_cache_autotune``) takes the configuration that the file of its kernel's name has for its key, and
benchmarks only where the file has none. Kernels with Triton's own ``autotune`` read no file. The form here is that of
fla-core 0.5.1 to 0.6.0. Imports neither torch nor fla: which decorator a kernel has is read in the installed source.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from gdn_aot._files import is_there, read_regular, write_whole
from gdn_aot.errors import NotWritableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gdn_aot.launches import Config, Scalar

DISTRIBUTION = "fla-core"
_PACKAGE = "fla"
_DECORATOR = "fla_cache_autotune"
_READER = "fla.ops.utils.cache"
_ENTRIES = "autotune_entries"
"""Member of the files in which the reader looks keys up; older versions of it knew one configuration per kernel."""
_MAX_BYTES = 64 << 20
"""Bytes of an exported file."""
_MAKER = "gdn-aot"
"""In the files that were written here, so that they can be told from those of others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedChoice:
    """One choice to export."""

    kernel: str
    """``module:qualname``."""
    key: tuple[Scalar, ...]
    config: Config


@dataclass(frozen=True, kw_only=True, slots=True)
class NotServed:
    """A kernel that FLA does not look up in files."""

    kernel: str
    choices: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """Files to write, and what they cannot hold."""

    files: Mapping[str, bytes]
    """By file name."""
    entries: Mapping[str, int]
    """Number of keys in each file."""
    not_served: tuple[NotServed, ...]


def environment(directory: Path) -> dict[str, str]:
    """Return the variables that make FLA read the files."""
    return {"FLA_CACHE_MODE": "strict", "FLA_CONFIG_DIR": str(directory)}


def prepare(choices: Iterable[ExportedChoice], triton: str) -> Export:
    """Make the files of choices that were made for the installed version of FLA; they note the version of Triton.

    Raises:
        UsageError: The installed FLA reads no such files, or two of its kernels would read different configurations
            for one key from one file: FLA looks for the file by the function's name alone, without its module.
    """
    if _ENTRIES not in _source(_READER):
        raise UsageError(
            f"the installed {DISTRIBUTION} reads no configuration files with a key for each call",
            hint=f"pip install '{DISTRIBUTION}>=0.5.1'",
        )
    by_name: dict[str, dict[str, ExportedChoice]] = {}
    not_served: dict[str, int] = {}
    for choice in choices:
        if not is_served(choice.kernel):
            not_served[choice.kernel] = not_served.get(choice.kernel, 0) + 1
            continue
        name = choice.kernel.rpartition(":")[2]
        other = by_name.setdefault(name, {}).setdefault(key_digest(choice.key), choice)
        if other.config != choice.config:
            raise UsageError(
                f"{other.kernel} and {choice.kernel} both read {name}.json, and for the key {list(choice.key)} one has "
                f"{other.config} and the other {choice.config}",
                hint="FLA cannot tell them apart; serve these kernels from an artifact instead",
            )
    return Export(
        files={f"{name}.json": _document(name, found, triton) for name, found in sorted(by_name.items())},
        entries={f"{name}.json": len(found) for name, found in sorted(by_name.items())},
        not_served=tuple(
            NotServed(kernel=kernel, choices=count, reason=f"it is not decorated with {_DECORATOR}")
            for kernel, count in sorted(not_served.items())
        ),
    )


def is_served(kernel: str) -> bool:
    """Say whether FLA looks a kernel up in files, by the decorators of its function in the installed source.

    Raises:
        UsageError: The installed FLA has no such function.
    """
    module, _, qualname = kernel.partition(":")
    found = [decorators for name, decorators in _functions(module) if name == qualname]
    if not found:
        raise UsageError(
            f"the installed {DISTRIBUTION} has no kernel {kernel}",
            hint=f"install the version of {DISTRIBUTION} that the choices were made for",
        )
    return all(_DECORATOR in decorators for decorators in found)


def key_digest(key: tuple[Scalar, ...]) -> str:
    """Return what ``AutotuneKey.key_hash`` of FLA returns."""
    text = json.dumps(list(key), separators=(",", ":"), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def write(export: Export, directory: Path) -> None:
    """Write the files, each whole, and remove those of an earlier export that this one does not have.

    Files that were not written here are left as they are.

    Raises:
        UsageError: A file of one of the names is there and was not written here; nothing was written.
        NotWritableError: A file cannot be written; each that is there is whole.
    """
    try:
        earlier = {path.name for path in directory.glob("*.json") if _is_ours(path)}
        foreign = [name for name in export.files if name not in earlier and is_there(directory / name)]
        if foreign:
            raise UsageError(
                f"{directory / foreign[0]} is there already and was not written by {_MAKER}",
                hint="choose another directory with -o, or remove the file",
            )
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in export.files.items():
            if name not in earlier or read_regular(directory / name, _MAX_BYTES) != content:
                write_whole(directory / name, content, sync=True)
        for name in earlier.difference(export.files):
            (directory / name).unlink()
    except OSError as error:
        raise NotWritableError(f"cannot write to {directory}: {error.strerror or error}") from error


def _document(name: str, choices: Mapping[str, ExportedChoice], triton: str) -> bytes:
    entries = {
        digest: {"autotune_key": list(choice.key), "config": _config(choice.config)}
        for digest, choice in sorted(choices.items(), key=lambda item: str(item[1].key))
    }
    document = {
        "kernel_name": name,
        "triton_version": triton,
        "made_by": _MAKER,
        "default_config": None,
        _ENTRIES: entries,
    }
    return (json.dumps(document, indent=1) + "\n").encode("ascii")


def _config(config: Config) -> dict[str, object]:
    return {**asdict(config), "kwargs": dict(config.kwargs), "ir_override": None}


def _is_ours(path: Path) -> bool:
    try:
        document = json.loads(read_regular(path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("made_by") == _MAKER


@functools.cache
def _functions(module: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Return (name, names of its decorators) of every function in a module of FLA."""
    found = []
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.FunctionDef):
            called = (item.func if isinstance(item, ast.Call) else item for item in node.decorator_list)
            found.append((node.name, frozenset(ast.unparse(item).rpartition(".")[2] for item in called)))
    return tuple(found)


def _source(module: str) -> str:
    """Return the text of a module of the installed FLA without importing it; empty if there is none."""
    spec = importlib.util.find_spec(_PACKAGE)
    steps = module.split(".")
    if (
        spec is None
        or not spec.submodule_search_locations
        or steps[0] != _PACKAGE
        or not all(map(str.isidentifier, steps))
    ):
        return ""
    for root in spec.submodule_search_locations:
        place = Path(root).joinpath(*steps[1:])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file.read_text(encoding="utf-8")
    return ""

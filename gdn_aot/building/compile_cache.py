"""The compile cache of an engine, read from the folder of the machine that made it.

The files are bytes here: nothing in them is imported, run or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickletools
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdn_aot._files import read_regular
from gdn_aot._text import shown
from gdn_aot.artifact.cached import FOLDER, MAX_BYTES, MAX_FILES, MAX_PATH, PATTERN, PIECE, unit_of
from gdn_aot.artifact.manifest import CachedFile, CompileCache
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COMPILED = re.compile(r"torch_aot_compile/[^/]+/rank_[^/]+/model")
"""The file of PyTorch's that says on what machine it was compiled; others cannot be read without running them."""
_FACTORS = "cache_key_factors.json"
"""vLLM's file with what its key was made of."""
_HINT = f"name the folder {FOLDER} that vLLM left in VLLM_CACHE_ROOT"
_CLASS = "SystemInfo"
_SYSTEM = ("python_version", "torch_version", "toolkit_version", "triton_version", "gpu_name")
"""Fields of PyTorch's ``SystemInfo``, in the order in which it is pickled."""
_OBJECT = "torch_version"
"""The one whose text comes after the name of its class: up to the next field, the last text counts."""
_LONGEST = 200
"""Characters of what is said of the machine."""


@dataclass(frozen=True, kw_only=True)
class ReadCache:
    """A compile cache as it is packed."""

    record: CompileCache
    pieces: dict[str, bytes]
    """What its files hold, by the SHA-256 of each piece."""
    size: int
    """Bytes of all files."""


def read_cache(folder: Path) -> ReadCache:
    """Read a folder ``torch_compile_cache``.

    Hidden files and locks are left out: they are what processes leave that still write, or were killed.

    Raises:
        UsageError: It cannot be read; it has links or other things that are no regular files, names that an artifact
            cannot have, more or larger files than an artifact may have, or none; or it is of several machines.
    """
    pieces: dict[str, bytes] = {}
    files: list[CachedFile] = []
    made: list[dict[str, str]] = []
    factors: list[dict[str, str]] = []
    size = 0
    for path in sorted(_walk(folder)):
        if len(files) == MAX_FILES:
            raise UsageError(f"{folder} has more than {MAX_FILES} files", hint="empty it, and start vLLM once more")
        content = _read(folder, path, MAX_BYTES - size)
        size += len(content)
        cut = [content[at : at + PIECE] for at in range(0, len(content), PIECE)]
        digests = [hashlib.sha256(piece).hexdigest() for piece in cut]
        pieces |= zip(digests, cut, strict=True)
        files.append(CachedFile(path=path, blobs=tuple(digests)))
        if _COMPILED.fullmatch(path):
            made.append(made_on(content))
        elif path.endswith(f"/{_FACTORS}"):
            factors.append(_paths(content))
    if not files:
        within = f"; it has a folder {FOLDER}" if (folder / FOLDER).is_dir() else ""
        raise UsageError(f"{folder} has nothing that vLLM compiled{within}", hint=_HINT)
    return ReadCache(
        record=CompileCache(
            kind="vllm-compile-cache",
            torch=_one(folder, "versions of PyTorch", [row["torch_version"] for row in made]),
            python=_one(folder, "versions of Python", [row["python_version"] for row in made]),
            card=_one(folder, "GPUs", [row["gpu_name"] for row in made]),
            environment=tuple(sorted(_common(factors).items())),
            files=tuple(files),
        ),
        pieces=pieces,
        size=size,
    )


def _walk(folder: Path, below: str = "") -> Iterator[str]:
    """Yield the path of every file to pack, relative to the folder."""
    try:
        entries = list(os.scandir(folder / below))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {folder / below}: {getattr(error, 'strerror', error)}", hint=_HINT) from error
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith(".") or entry.name.endswith(".lock"):
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and len(path) <= MAX_PATH:
            if path == FOLDER:
                raise UsageError(f"{folder} is not the compile cache, but has it in {FOLDER}", hint=_HINT)
            yield from _walk(folder, path)
        elif not stat.S_ISREG(mode):
            raise UsageError(f"{shown(folder / path, 1000)} is neither a regular file nor a folder", hint=_HINT)
        elif len(path) > MAX_PATH or not re.match(PATTERN, path) or not unit_of(path):
            raise UsageError(f"{shown(folder / path, 1000)} is no file that vLLM puts there", hint=_HINT)
        else:
            yield path


def _read(folder: Path, path: str, most: int) -> bytes:
    try:
        return read_regular(folder / path, most, follow=False)
    except OSError as error:
        what = f"cannot read {folder / path}: {error.strerror}"
        if error.strerror and "larger" in error.strerror:
            what = f"{folder} has more than {MAX_BYTES} bytes"
        raise UsageError(what, hint="empty it, and start vLLM once more with one deployment") from error


def made_on(content: bytes) -> dict[str, str]:
    """Return what PyTorch wrote into a compiled function of the machine, by the fields of its `_CLASS`.

    The instructions of the pickle are listed, none is carried out. What is not found is empty.
    """
    found = dict.fromkeys(_SYSTEM, "")
    begun, field = False, ""
    with suppress(ValueError, LookupError, UnicodeError, AttributeError, TypeError):  # what ends early, or is no pickle
        for text in _texts(content):
            begun = begun or text == _CLASS
            if begun and text in found:
                field = text
            elif field and text is not None:
                found[field] = text
            if text not in found and field != _OBJECT:
                field = ""
    return found


def _texts(content: bytes) -> Iterator[str | None]:
    """Yield each string that a pickle pushes, and None for every other instruction but those that only remember."""
    memo: dict[int, str | None] = {}
    last: str | None = None
    argument: Any
    for code, argument, _ in pickletools.genops(content):
        if code.name == "MEMOIZE":
            memo[len(memo)] = last
            continue
        if code.name.endswith("PUT"):
            memo[int(argument)] = last
            continue
        got = memo.get(int(argument)) if code.name.endswith("GET") else None
        last = argument if "UNICODE" in code.name else got
        yield last


def _paths(content: bytes) -> dict[str, str]:
    """Return the variables of vLLM's key that hold an absolute path."""
    with suppress(ValueError, LookupError, RecursionError, TypeError, AttributeError):
        read: dict[str, Any] = json.loads(content)["env"]
        return {
            name: value
            for name, value in read.items()
            if re.fullmatch(r"VLLM_[A-Z0-9_]{1,90}", name) and isinstance(value, str) and value.startswith("/")
        }
    return {}


def _common(rows: list[dict[str, str]]) -> dict[str, str]:
    """Return what all have alike."""
    first, *others = rows or [{}]
    return {name: value for name, value in first.items() if all(row.get(name) == value for row in others)}


def _one(folder: Path, what: str, values: list[str]) -> str:
    several = sorted({*values} - {""})
    if len(several) > 1:
        message = f"{folder} was made with several {what}: {shown(', '.join(several))}"
        raise UsageError(message, hint="empty it, and start vLLM once more")
    return several[0][:_LONGEST] if several else ""

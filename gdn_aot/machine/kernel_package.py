"""A folder with a copy of a provider: a kernel of the Hugging Face Hub, a checkout, a vendored package.

Read without importing any of it. A kernel repository has its packages in ``build/VARIANT/``; the library ``kernels``
imports one under the identifier that is in its ``metadata.json``, a name that changes with every revision.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import read_regular
from gdn_aot._text import shown
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_METADATA = "metadata.json"
LICENSE = re.compile(r"^(licen[cs]e|copying|notice)", re.IGNORECASE)
"""Beginnings of the names of files that hold a licence."""
_MOST = 1 << 20
"""Bytes of a file that is read here."""
_MOST_FILES = 5000
_CACHED = re.compile(r"^(?:models|kernels)--([^-].*?)--(.+)$")
"""Folder of a repository in a cache of the Hub."""
_VERSION = "0+"
"""Beginning of the version of what was built from a folder; a digest of its Python files follows."""
_DIGITS = 12
_PORTABLE = ("torch-universal", "torch-noarch", "torch-cuda", "torch")
"""Variants without compiled code, which Triton kernels are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelPackage:
    """What can be said of a folder before it is imported."""

    folder: str
    """Of the package: it has ``__init__.py``."""
    module: str
    """The name to import it under."""
    distribution: str
    """The repository on the Hub, as ``kernels-community/fla``, or what the package calls itself."""
    version: str
    """Made of a digest of its Python files, which decide what is compiled."""
    licenses: tuple[tuple[str, bytes], ...]
    """(file name, text) of each licence in the folder or above it, as far as its repository goes."""


def read_package(path: str, marker: str) -> KernelPackage:
    """Find the one package in a folder that has the module ``marker``, as ``ops/gated_delta_rule``.

    The folder is that of the package, of one build, or of a kernel repository.

    Raises:
        UsageError: There is none, there are several, or it cannot be read.
    """
    try:
        found = find_packages(path, marker)
    except OSError as error:  # a name too long, or a folder that may not be searched
        raise UsageError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
    if not found:
        raise UsageError(
            f"{shown(path)} has no package with {marker}, neither itself nor in build/ or torch-ext/",
            hint="name the folder of a package that is laid out as flash-linear-attention is",
        )
    if len(found) > 1:
        raise UsageError(
            f"{shown(path)} has several packages: {', '.join(shown(str(one)) for one in found)}",
            hint="name one of them",
        )
    folder = found[0]
    try:
        digest = source_digest(folder)
        return KernelPackage(
            folder=str(folder),
            module=_module(folder),
            distribution=_distribution(folder),
            version=f"{_VERSION}{digest[:_DIGITS]}",
            licenses=tuple(sorted(_licenses(folder).items())),
        )
    except OSError as error:
        raise UsageError(f"{shown(str(folder))} cannot be read: {error}") from error


def find_packages(path: str, marker: str) -> list[Path]:
    """Return the packages in a folder that have the module ``marker``; of the variants of a build, the portable one.

    Raises:
        OSError: It cannot be looked at.
    """
    return list(dict.fromkeys(_packages(Path(path), marker)))


def source_digest(folder: Path) -> str:
    """Return a digest of the Python files of a package."""
    hasher = hashlib.sha256()
    files = sorted(folder.rglob("*.py"))
    if len(files) > _MOST_FILES:
        raise UsageError(f"{shown(str(folder))} has more than {_MOST_FILES} Python files")
    for file in files:
        hasher.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        hasher.update(hashlib.sha256(read_regular(str(file), _MOST)).digest())
    return hasher.hexdigest()


def _packages(path: Path, marker: str) -> Iterator[Path]:
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links of a cache must stay: they lead to the repository's name
    own = [folder for folder in (path, *_folders(path)) if _is_package(folder, marker)]
    if own:
        yield from own[:1] if own[0] == path else own
        return
    variants = {folder.name: folder for folder in _folders(path / "build")}
    portable = [variants[name] for name in _PORTABLE if name in variants]
    for variant in portable[:1] or variants.values():
        yield from _packages(variant, marker)
    if not variants:
        yield from (folder for folder in _folders(path / "torch-ext") if _is_package(folder, marker))


def _is_package(folder: Path, marker: str) -> bool:
    place = folder / marker
    return (folder / "__init__.py").is_file() and (place.is_dir() or place.with_suffix(".py").is_file())


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(folder for folder in path.iterdir() if folder.is_dir())
    except OSError:
        return []


def metadata(folder: Path) -> dict[str, object]:
    """Return what a build says of itself, or nothing."""
    for place in (folder, folder.parent):
        try:
            found = json.loads(read_regular(str(place / _METADATA), _MOST))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _module(folder: Path) -> str:
    """Return the name that a package expects to have: it may import itself by it."""
    named = metadata(folder).get("id")
    for name in (named, folder.name):
        if isinstance(name, str) and name.isidentifier() and len(name) < 200:  # noqa: PLR2004
            return name
    return "fla"


def repository(folder: Path) -> str:
    """Return the name of the repository of the Hub whose cache a folder lies in, or nothing."""
    for part in reversed(folder.parts):
        if cached := _CACHED.match(part):
            return f"{cached[1]}/{cached[2]}"
    return ""


def _distribution(folder: Path) -> str:
    named = metadata(folder).get("name")
    return repository(folder) or (named if isinstance(named, str) and named else folder.name)


def _licenses(folder: Path) -> dict[str, bytes]:
    """Return the licence texts of a package: the nearest, up to the folder of its repository or checkout."""
    for place in (folder, *list(folder.parents)[:4]):
        found = {
            file.name: read_regular(str(file), _MOST)
            for file in sorted(place.iterdir())
            if LICENSE.match(file.name) and file.is_file()
        }
        if found or any((place / end).exists() for end in (".git", "build", "build.toml", "pyproject.toml")):
            return found
    return {}

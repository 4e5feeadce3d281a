"""Which version of a distribution is installed. Imports nothing of it, and nothing slow: serving processes ask too."""

from __future__ import annotations

import os
import re
import sys
from functools import cache

from gdn_aot._files import file_sha256
from gdn_aot.errors import ProviderMissingError, ToolchainMissingError

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from gdn_aot.catalogue.providers import ProviderInfo


def version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None.

    Reads the names of ``.dist-info`` directories on ``sys.path``: ``importlib.metadata`` takes as long to import as
    the loader may take in all. It is asked where there is no such directory.
    """
    place = place_of(distribution)
    if place is not None:
        return _distributions(place)[normal_name(distribution)]
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def place_of(distribution: str) -> str | None:
    """Return the directory of ``sys.path`` that a distribution is in, as packages usually are, or None.

    Quick where it is not there, unlike `version`.
    """
    wanted = normal_name(distribution)
    return next((place or "." for place in sys.path if wanted in _distributions(place or ".")), None)


def require(provider: str) -> str:
    """Return the installed version of a provider.

    Raises:
        ProviderMissingError: It is not installed.
        UsageError: There is no such provider.
    """
    from gdn_aot.catalogue.providers import get_provider  # the loader does not need the table

    info = get_provider(provider)
    found = version(info.distribution)
    if found is None:
        raise ProviderMissingError(
            f"provider {provider} needs the distribution {info.distribution}, which is not installed here",
            hint=info.install,
        )
    return found


def require_toolchain(command: str) -> None:
    """Check that torch and Triton are installed, by their metadata; serving processes and builds bring them themselves.

    Raises:
        ToolchainMissingError: One of them is not, or this system is not one that they compile on.
    """
    missing = [name for name in ("torch", "triton") if version(name) is None]
    if missing:
        lacking = " and ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ToolchainMissingError(f"gdn-aot {command} needs {lacking}, which {verb} not installed here")
    if not hasattr(os, "fork"):
        hint = "run it on Linux; fetch, lock, list, verify, inspect and cache work here"
        raise ToolchainMissingError(f"gdn-aot {command} works by processes that this system does not have", hint=hint)


def built_from(provider: ProviderInfo) -> str:
    """Return the version of what is built from: of the copy that stands for the provider, else of the installed one.

    Raises:
        ProviderMissingError: It is not installed.
    """
    return provider.copy.version if provider.copy else require(provider.name)


def forget() -> None:
    """Look at the disk again when next asked."""
    _distributions.cache_clear()
    source_sha256.cache_clear()


@cache
def source_sha256(path: str) -> str:
    """Return the SHA-256 of an installed file, in hexadecimal, or nothing where it cannot be read."""
    try:
        return file_sha256(path)
    except (OSError, ValueError):  # of a path that none can have
        return ""


@cache
def _distributions(place: str) -> dict[str, str]:
    try:
        names = os.listdir(place)
    except OSError:
        return {}
    pairs = (name[: -len(".dist-info")].partition("-") for name in names if name.endswith(".dist-info"))
    return {normal_name(name): version for name, _, version in pairs if version}


def normal_name(name: str) -> str:
    """Return the name of a distribution as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()

"""The places that keyrings are known from, and whether one speaks of an artifact.

Keyrings are neither checked nor believed here, so that whoever has nothing that is signed does not wait for what does.
"""

from __future__ import annotations

import json
import os
from binascii import a2b_base64

from gdn_aot._files import read_regular
from gdn_aot._text import shown
from gdn_aot.errors import KeyringError, Problem
from gdn_aot.trust import MAX_ENVELOPE

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = "GDN_AOT_KEYS"
"""The variable that names a directory of keyrings, in place of `SYSTEM` and of the user's own."""
OURS = "wheel"
WHEEL = f"{os.path.dirname(os.path.abspath(__file__))}/keyrings"
SYSTEM = "/etc/gdn-aot/keys.d"
BESIDE = "trust"
"""The directory in ``GDN_AOT_HOME``, beside the store, of what was learned from registries."""
MAX_CHAIN = 32 * MAX_ENVELOPE
"""Bytes of the keyrings that were taken from one registry."""


def places() -> list[tuple[str, str]]:
    """Return (source, directory) of every place that keyrings are known from."""
    named = os.environ.get(KEYS)
    if named:
        return [(OURS, WHEEL), (KEYS, named)]
    config = os.environ.get("XDG_CONFIG_HOME", "")
    config = config if os.path.isabs(config) else os.path.expanduser("~/.config")
    user = [("user", f"{config}/gdn-aot/keys.d")] if os.path.isabs(config) else []
    return [(OURS, WHEEL), ("system", SYSTEM), *user]


def check_named() -> None:
    """Check that the directory which the environment names can be read: else nobody knows what should count.

    Raises:
        KeyringError: It cannot.
    """
    named = os.environ.get(KEYS)
    why = ""
    if named and not os.path.isabs(named):
        why = "is not absolute"
    elif named:
        try:
            os.scandir(named).close()
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
    if named and why:
        what = f"{KEYS} names it as the directory of keyrings, and it {why}"
        hint = f"let {KEYS} name a directory by its absolute path, or unset it"
        raise KeyringError(f"{shown(named, 1000)}: {what}", [Problem(named, what)], hint=hint)


def known_repositories() -> list[str]:
    """Return the repositories that a keyring was put in a place for, as the names of the files say."""
    names = dict.fromkeys(name for _, name in _placed())
    return [f"hf://{name.removesuffix('.json').replace('--', '/')}" for name in names]


def said(home: str) -> list[bytes]:
    """Return what the keyrings of all repositories say that one is known of, as bytes: no digest is in them by chance.

    Those that are damaged say nothing.
    """
    files = {f"{folder}/{name}": MAX_ENVELOPE for folder, name in _placed()}
    if home:
        files |= {f"{home}/{BESIDE}/{name}l": MAX_CHAIN for _, name in _placed()}
    return [payload for path, limit in files.items() for payload in _payloads(path, limit)]


def _placed() -> Iterator[tuple[str, str]]:
    for _, folder in places():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        yield from ((folder, name) for name in sorted(names) if name.endswith(".json"))


def _payloads(path: str, limit: int) -> Iterator[bytes]:
    try:
        for line in read_regular(path, limit).splitlines():
            yield a2b_base64(json.loads(line)["payload"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return

"""The places that keyrings are known from. No keyring is read here: whoever has none pays for no more than this."""

from __future__ import annotations

import os

from gdn_aot._text import shown
from gdn_aot.errors import KeyringError, Problem

KEYS = "GDN_AOT_KEYS"
"""The variable that names a directory of keyrings, in place of `SYSTEM` and of the user's own."""
OURS = "wheel"
WHEEL = f"{os.path.dirname(os.path.abspath(__file__))}/keyrings"
SYSTEM = "/etc/gdn-aot/keys.d"


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
    found: dict[str, None] = {}
    for _, folder in places():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in sorted(names):
            if name.endswith(".json"):
                found[f"hf://{name.removesuffix('.json').replace('--', '/')}"] = None
    return list(found)

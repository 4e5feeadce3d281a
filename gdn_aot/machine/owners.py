"""Whose files are used: those that root or this user alone may have written.

Where a system has no owners with numbers, as Windows, who may write is for its own access lists to say: Python sees
neither owners nor modes there.
"""

from __future__ import annotations

import os
import stat

from gdn_aot._files import check_size, open_regular
from gdn_aot.errors import Problem, UntrustedError

TRUST = "GDN_AOT_TRUST"
"""The variable that says what is used: one of `TRUSTS`."""
TRUSTS = ("owner", "signed", "any")
"""``owner``, the default: what is signed, and what root or this user alone may have written. ``signed``: what is signed
and nothing else. ``any``: whatever is there, of whoever wrote it."""


def policy() -> str:
    """Return which of `TRUSTS` the environment asks for; ``owner`` if it asks for none of them."""
    asked = os.environ.get(TRUST, "").strip().lower()
    return asked if asked in TRUSTS else TRUSTS[0]


def trusts_any() -> bool:
    """Say whether the environment asks to use what anybody wrote."""
    return policy() == "any"


def user() -> int | None:
    """Return the number of this process's user; None where users have none, as on Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else None


def check_trust(status: os.stat_result, path: str, *, always: bool = False) -> None:
    """Check by its status that root or this user alone may have written something, where owners have numbers.

    ``GDN_AOT_TRUST=any`` lifts that, but not ``always``, which is for what says whom to trust.

    Raises:
        UntrustedError: Others may have.
    """
    who, what = user(), ""
    if who is None:
        return
    if status.st_uid not in (0, who):
        what = f"belongs to user {status.st_uid}, who is neither root nor user {who}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        what = f"may be written by others: its mode is {stat.S_IMODE(status.st_mode):04o}"
    if what and (always or not trusts_any()):
        raise UntrustedError(f"{path} {what}", [Problem(path, what)])


def read_trusted(path: str, limit: int) -> bytes:
    """Return what a regular file holds that says whom to trust, of at most ``limit`` bytes.

    Raises:
        OSError: It cannot be read, is no regular file or too large.
        UntrustedError: Others may have written it, whatever the environment asks for.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        check_trust(os.fstat(file.fileno()), path, always=True)
        return file.read(check_size(file.fileno(), limit, path))


def read_owned(path: str, limit: int) -> tuple[bytes, UntrustedError | None]:
    """Return what a regular file holds that the user named, and who else may have written it.

    Raises:
        OSError: It cannot be read, is no regular file or too large.
    """
    foreign = None
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            check_trust(os.fstat(file.fileno()), path)
        except UntrustedError as error:
            foreign = error
        return file.read(check_size(file.fileno(), limit, path)), foreign

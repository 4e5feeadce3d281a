"""What the environment asks of the loader. Read once, when it is installed."""

from __future__ import annotations

import os

from gdn_aot._plain import Plain
from gdn_aot.errors import UsageError
from gdn_aot.machine.owners import TRUST, TRUSTS
from gdn_aot.store.store import default_home

POLICIES = ("nearest", "tune", "error")
"""What to do with an autotune key that the artifact lacks."""

_FLAGS = {"0": False, "false": False, "no": False, "off": False, "1": True, "true": True, "yes": True, "on": True}


class Settings(Plain):
    """The loader's settings.

    Args:
        enabled: ``GDN_AOT`` is not 0.
        home: ``GDN_AOT_HOME``: the directory of the store; empty where there can be none.
        artifact: ``GDN_AOT_ARTIFACT``: use this file, or the files in this directory, and not the store.
        strict: ``GDN_AOT_STRICT``: a compile or benchmark of a covered kernel is an error.
        on_miss: ``GDN_AOT_ON_MISS``: one of `POLICIES`.
        log: ``GDN_AOT_LOG``: level of messages on stderr.
    """

    __slots__ = ("artifact", "enabled", "home", "log", "on_miss", "strict")

    def __init__(
        self, *, enabled: bool, home: str, artifact: str | None, strict: bool, on_miss: str, log: str | None
    ) -> None:
        self.enabled, self.home, self.artifact = enabled, home, artifact
        self.strict, self.on_miss, self.log = strict, on_miss, log


def read_settings(problems: list[str]) -> Settings:
    """Read the environment. What it holds that cannot be understood is ignored, and said in ``problems``."""
    on_miss = os.environ.get("GDN_AOT_ON_MISS") or "nearest"
    if on_miss not in POLICIES:
        problems.append(f"GDN_AOT_ON_MISS={on_miss} is none of {', '.join(POLICIES)}; using nearest")
        on_miss = "nearest"
    if on_miss == "nearest" and os.environ.get("FLA_CACHE_MODE", "disabled") != "disabled":
        on_miss = "tune"  # the user has configuration files of FLA: what they hold is better than a neighbour's
    home, trust = "", os.environ.get(TRUST, "owner")
    if trust.strip().lower() not in TRUSTS:
        problems.append(f"{TRUST}={trust} is none of {', '.join(TRUSTS)}; using owner")
    try:
        home = default_home()
    except UsageError as error:
        problems.append(error.message)
    return Settings(
        enabled=_flag("GDN_AOT", True, problems),
        home=home,
        artifact=os.environ.get("GDN_AOT_ARTIFACT") or None,
        strict=_flag("GDN_AOT_STRICT", False, problems),
        on_miss=on_miss,
        log=os.environ.get("GDN_AOT_LOG") or None,
    )


def _flag(name: str, default: bool, problems: list[str]) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text and text not in _FLAGS:
        problems.append(f"{name}={text} is neither 0 nor 1; using {int(default)}")
    return _FLAGS.get(text, default)


def asked(name: str) -> bool:
    """Say whether a variable asks for something by ``1``, and ``GDN_AOT`` has not switched everything off."""
    return _flag(name, False, []) and _flag("GDN_AOT", True, [])

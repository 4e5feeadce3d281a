"""What a child process finds around it: its variables and its directory for temporary files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_VARIABLES = ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH", "TRITON_LIBDEVICE_PATH", "TRITON_LIBCUDA_PATH")
"""Variables of Triton that choose tools; other ``TRITON_*``, ``FLA_*`` and ``SGLANG_*`` may change keys: dropped."""

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE|ACCOUNT|SIGNING|ENCRYPTION)_?KEY|AUTH"
    r"|(^|_)(KEYS?|PASS|(?<=_)PWD|PAT|JWT|COOKIE|DSN|WEBHOOK)(_|$)"  # PWD itself is where a shell is
    r"|^(HF_(?!HOME$|\w*OFFLINE$)|(HUGGING_?FACE|AWS|AZURE|GOOGLE|GITHUB|GH|GITLAB|ACTIONS)_|(PIP|UV)_(\w+_)?INDEX)",
    re.IGNORECASE,
)
"""By its words; of the Hub's what says that nobody may go online stays."""
_SECRET_VALUE = re.compile(r"://[^/\s@]+@")
"""Credentials in an address, as those of a proxy or a package index."""


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables without those that hold tokens, passwords or accounts by their name or their form."""
    return {
        name: value
        for name, value in variables.items()
        if not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
    }


def child_environment(scratch: str, variables: Mapping[str, str], *, keep_settings: bool) -> dict[str, str]:
    """Return the environment of a child with its own ``scratch`` folder; `gdn_aot.machine.child.Child` has the rest.

    Nothing in it leads Python to the current directory, and no secrets of the caller are in it.
    """
    dropped = ("LD_PRELOAD",) if keep_settings else ("TRITON_", "FLA_", "SGLANG_", "LD_PRELOAD")
    kept = {
        name: value
        for name, value in without_secrets(os.environ).items()
        if name in KEPT_VARIABLES or not name.startswith(dropped)
    }
    for name in KEPT_VARIABLES:  # they may be relative to where the caller is, and the child is elsewhere
        if os.path.dirname(kept.get(name, "")) and os.path.exists(kept[name]):  # noqa: PTH110, PTH120
            kept[name] = os.path.abspath(kept[name])  # noqa: PTH100
    root = str(Path(__file__).parent.parent.parent)
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([root, *_absolute(kept.get("PYTHONPATH", ""))]),
        "PYTHONHASHSEED": "0",
        "TRITON_CACHE_DIR": str(Path(scratch) / "triton"),
        "TMPDIR": scratch,
        "GDN_AOT_SCRATCH": scratch,
        "GDN_AOT": "0",
        **variables,
    }


def find_program(name: str) -> str | None:
    """Return where a program is; one of the current directory is none, whatever ``PATH`` says."""
    return shutil.which(name, path=os.pathsep.join(_absolute(os.environ.get("PATH", os.defpath))))


def _absolute(places: str) -> list[str]:
    """Return the entries of a list of directories that do not depend on the current one."""
    return [place for place in places.split(os.pathsep) if os.path.isabs(place)]  # noqa: PTH117

"""The compile cache of an engine in an artifact: its bounds, and the form of its paths. Serving processes import it."""

from __future__ import annotations

from gdn_aot.artifact.names import MAX_BLOB

ENGINE = "vllm"
"""The provider whose engine has one that is packed."""
SWITCH = "GDN_AOT_COMPILE_CACHE"
"""The variable with which a server asks for it."""
FOLDER = "torch_compile_cache"
"""The folder of it in vLLM's cache."""
_AHEAD_OF_TIME = "torch_aot_compile"
"""The folder in that one which has what is compiled ahead of time, a folder for each hash."""
PIECE = MAX_BLOB
"""Bytes of each blob of a file but its last one: no blob is larger, and files have up to 5.4 MB."""
MAX_BYTES = 384 << 20
"""Bytes of all files: an artifact unpacks to 512 MiB at most, and 128 MiB are left for its kernels. vLLM's for one rank
of a model with four layers has 35 MB."""
MAX_FILES = 4096
"""Files. vLLM's for one rank of a model with four layers has 94."""
MAX_PATH = 400
"""Characters of a path; those of vLLM have up to 240."""
PATTERN = r"^(?:[A-Za-z0-9_][A-Za-z0-9._+-]*/)+[A-Za-z0-9_][A-Za-z0-9._+-]*(?![\s\S])"
"""Of a path relative to `FOLDER`: below a folder of it, without ``.``, ``..`` and hidden names."""


def unit_of(path: str) -> str:
    """Return the folder with which a file is put in place or not: that of one hash of vLLM's.

    It is empty where the file is in none.
    """
    parts = path.split("/")
    depth = 2 if parts[0] == _AHEAD_OF_TIME else 1
    return "/".join(parts[:depth]) if len(parts) > depth else ""

"""The store: the directory on this machine that artifacts are installed in, laid out for the loader. Reading it.

::

    $GDN_AOT_HOME/store/format               "1"
    $GDN_AOT_HOME/store/artifacts/NAME/      one artifact: index (see `gdn_aot.store.index`), blobs, compressed
                                             manifest, and where it came from

NAME is the identifier and the first digits of the file's SHA-256, so two builds of one identifier stand side by side.
`gdn_aot.store.install` writes it: everything under another name that is then renamed, so a reader sees a whole
artifact or none, and whoever is killed leaves only a temporary file or directory behind.
"""

from __future__ import annotations

import os

from gdn_aot.errors import Problem, UnknownFormatError
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.index import Index

FORMAT = "1"
_SUFFIX = ".tar.zst"


def artifact_files(path: str) -> list[str]:
    """Return an artifact file itself, or those in a directory, sorted by name.

    Raises:
        OSError: The directory cannot be read, or none is in it.
    """
    if not os.path.isdir(path):
        return [path]
    files = sorted(f"{path}/{name}" for name in os.listdir(path) if name.endswith(_SUFFIX))
    if not files:
        raise FileNotFoundError(f"no *{_SUFFIX} file is in {path}")
    return files


def default_home() -> str:
    """Return ``$GDN_AOT_HOME``, or ``gdn-aot`` in the user's cache directory."""
    if home := os.environ.get("GDN_AOT_HOME"):
        return os.path.abspath(home)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "gdn-aot")


class Store:
    """One store, in a home as `default_home` returns it. Reading takes no right to write and never waits."""

    def __init__(self, home: str) -> None:
        self.root = f"{home}/store"

    def artifacts(self) -> list[str]:
        """Return the directories of the installed artifacts, the one installed last first: it is preferred.

        Raises:
            UnknownFormatError: A newer gdn-aot made the store.
        """
        try:
            names = os.listdir(f"{self.root}/artifacts")
        except OSError:
            return []
        self.format()
        ages = []
        for name in names:
            if not name.startswith("."):
                try:
                    ages.append((-os.stat(f"{self.root}/artifacts/{name}").st_mtime_ns, name))
                except OSError:
                    continue  # it was just removed
        return [f"{self.root}/artifacts/{name}" for _, name in sorted(ages)]

    def open_index(self, place: str) -> Index:
        """Open the index of an artifact by its directory.

        Raises:
            OSError: It is not there or cannot be read.
            VerificationError: It is damaged.
        """
        return Index(f"{place}/{INDEX}")

    def format(self) -> str | None:
        """Return the format of the store: this one, or None where there is no store yet.

        Raises:
            UnknownFormatError: A newer gdn-aot made it.
        """
        try:
            with open(f"{self.root}/format") as file:
                found = file.read().strip()
        except OSError:
            return None
        if found != FORMAT:
            problem = Problem(f"{self.root}/format", f"{found!r}, expected {FORMAT!r}")
            raise UnknownFormatError(f"the store {self.root} is of another format", [problem])
        return found

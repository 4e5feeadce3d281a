"""The store: the directory on this machine that artifacts are installed in, laid out for the loader. Reading it.

::

    $GDN_AOT_HOME/store/format               "1"
    $GDN_AOT_HOME/store/artifacts/NAME/      one artifact: manifest.json and index (see `gdn_aot.artifact.index`)
    $GDN_AOT_HOME/store/blobs/ab/ab12...     cubins by SHA-256, shared by all artifacts

NAME is the identifier and the first digits of the file's SHA-256, so two builds of one identifier stand side by side.
`gdn_aot.artifact.install` writes it: everything under another name that is then renamed, so a reader sees a whole
artifact or none, and whoever is killed leaves only a temporary file or directory behind.
"""

from __future__ import annotations

import hashlib
import os

from gdn_aot.artifact.index import NAME as INDEX
from gdn_aot.artifact.index import Index
from gdn_aot.errors import Problem, UnknownFormatError, VerificationError

FORMAT = "1"
MANIFEST = "manifest.json"
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
    """One store. Reading needs no write access and makes no file.

    Args:
        home: What `default_home` returns, or another directory.
    """

    def __init__(self, home: str) -> None:
        self.root = f"{home}/store"

    def artifacts(self) -> list[str]:
        """Return the directories of the installed artifacts, the one installed last first: it is preferred.

        Raises:
            UnknownFormatError: A newer gdn-aot made the store.
        """
        try:
            with os.scandir(f"{self.root}/artifacts") as entries:
                ages = [(-entry.stat().st_mtime_ns, entry.name) for entry in entries if not entry.name.startswith(".")]
        except OSError:
            return []
        self.check_format()
        return [f"{self.root}/artifacts/{name}" for _, name in sorted(ages)]

    def artifact_directory(self, sha256: str) -> str | None:
        """Return where the artifact file of this SHA-256 is installed, with its index, or None."""
        places = (place for place in self.artifacts() if place.endswith(f"-{sha256[:16]}"))
        return next((place for place in places if os.path.isfile(f"{place}/{INDEX}")), None)

    def open_index(self, place: str) -> Index:
        """Open the index of an artifact.

        Args:
            place: Its directory, as `artifacts` returns it.

        Raises:
            OSError: It is not there or cannot be read.
            VerificationError: It is damaged.
        """
        return Index(f"{place}/{INDEX}")

    def blob_path(self, sha256: str) -> str:
        """Return where a blob is, or would be."""
        return f"{self.root}/blobs/{sha256[:2]}/{sha256}"

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of a blob.

        Raises:
            OSError: It is not there or cannot be read.
            VerificationError: It is damaged.
        """
        path = self.blob_path(sha256)
        with open(path, "rb") as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != sha256:
            problem = Problem(path, "its content is not what its name says")
            raise VerificationError(f"{path} is damaged", [problem])
        return content

    def check_format(self) -> None:
        """Refuse a store that this version does not know. One that is not there is fine.

        Raises:
            UnknownFormatError: A newer gdn-aot made it.
        """
        try:
            with open(f"{self.root}/format") as file:
                found = file.read().strip()
        except OSError:
            return
        if found != FORMAT:
            problem = Problem(f"{self.root}/format", f"{found!r}, expected {FORMAT!r}")
            raise UnknownFormatError(f"the store {self.root} is of another format", [problem])

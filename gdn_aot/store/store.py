"""The store: the directory on this machine that artifacts are installed in, laid out for the loader. Reading it.

::

    $GDN_AOT_HOME/store/format               "1"
    $GDN_AOT_HOME/store/artifacts/NAME/      one artifact: index (see `gdn_aot.store.index`), compressed
                                             manifest, and where it came from
    $GDN_AOT_HOME/store/packs/               cubins, shared by all artifacts (see `gdn_aot.store.pack`)

NAME is the identifier and the first digits of the file's SHA-256, so two builds of one identifier stand side by side.
`gdn_aot.store.install` writes it: everything under another name that is then renamed, so a reader sees a whole
artifact or none, and whoever is killed leaves only a temporary file or directory behind.
"""

from __future__ import annotations

import errno
import hashlib
import os

from gdn_aot.errors import Problem, UnknownFormatError, VerificationError
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.index import Index
from gdn_aot.store.pack import Pack

FORMAT = "1"
MANIFEST = "manifest.json.zst"
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
    """One store. Reading needs no write access, makes no file and waits for no lock.

    Args:
        home: What `default_home` returns, or another directory.
    """

    def __init__(self, home: str) -> None:
        self.root = f"{home}/store"
        self._packs: dict[tuple[str, int], Pack] = {}
        """Those opened so far, by name and inode; some may be gone since."""

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

    def packs(self) -> list[Pack]:
        """Return the packs that are there now, sorted by name. What is not a pack is left out."""
        found = []
        for key in self._pack_files():
            if key not in self._packs:
                try:
                    self._packs[key] = Pack(f"{self.root}/packs/{key[0]}")
                except (OSError, VerificationError):
                    continue
            found.append(self._packs[key])
        return found

    def blob_sizes(self) -> dict[str, int]:
        """Return the bytes of each blob that is there, by its SHA-256."""
        return {sha256: size for pack in self.packs() for sha256, size in pack.blobs()}

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of a blob.

        Packs that were opened stay readable when they are removed, and new ones are looked for where they do not have
        the blob, so that a process which serves outlives what is done to the store.

        Raises:
            OSError: It is not there or cannot be read.
            VerificationError: It is damaged.
        """
        wanted, asked, damaged = bytes.fromhex(sha256), set(), ""
        for look in (self._packs.values, self.packs):
            for pack in list(look()):
                if pack in asked:
                    continue
                asked.add(pack)
                content = pack.read(wanted)
                if content is not None and hashlib.sha256(content).digest() == wanted:
                    return content
                damaged = damaged if content is None else pack.path
        if damaged:
            problem = Problem(damaged, f"the content of blob {sha256} is not what its name says")
            raise VerificationError(f"{damaged}: blob {sha256} is damaged", [problem])
        raise FileNotFoundError(errno.ENOENT, f"no pack has blob {sha256}", f"{self.root}/packs")

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

    def _pack_files(self) -> list[tuple[str, int]]:
        try:
            with os.scandir(f"{self.root}/packs") as entries:
                return sorted((entry.name, entry.inode()) for entry in entries if not entry.name.startswith("."))
        except OSError:
            return []

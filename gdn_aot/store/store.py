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

import errno
import os

from gdn_aot._text import shown
from gdn_aot.artifact.names import SUFFIX
from gdn_aot.errors import Problem, UnknownFormatError, UnreadableError, UntrustedError, UsageError
from gdn_aot.store.folder import ARTIFACTS, Folder, is_hidden, open_below, open_place
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.index import Index

FORMAT = "1"
_MOST_FORMAT = 64
"""Bytes that ``format`` may have; more is no number."""
_RIGHTS = frozenset({errno.EACCES, errno.EPERM})
"""What reading fails with for who reads; else it is for what is there: a link, a file, a disk that fails."""


def artifact_files(path: str) -> list[str]:
    """Return an artifact file itself, or those in a directory, sorted by name.

    Raises:
        OSError: The directory cannot be read, or none is in it.
    """
    if not os.path.isdir(path):
        return [path]
    files = sorted(f"{path}/{name}" for name in os.listdir(path) if name.endswith(SUFFIX))
    if not files:
        raise FileNotFoundError(f"no *{SUFFIX} file is in {path}")
    return files


def default_home() -> str:
    """Return ``$GDN_AOT_HOME``, or ``gdn-aot`` in the user's cache directory.

    Raises:
        UsageError: It is not an absolute path, which would be another directory for every working directory.
    """
    home = os.environ.get("GDN_AOT_HOME")
    if not home:
        cache = os.environ.get("XDG_CACHE_HOME", "")  # to be ignored if it is relative, says its specification
        cache = cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")
        home = os.path.join(cache, "gdn-aot")
    if not os.path.isabs(home):
        what = "GDN_AOT_HOME is relative" if os.environ.get("GDN_AOT_HOME") else "this user has no home directory"
        raise UsageError(f"{what}: {home!r} is not used as a store", hint="let GDN_AOT_HOME be an absolute path")
    return os.path.normpath(home)


class Store:
    """One store, in a home as `default_home` returns it, or none. Reading takes no right to write and never waits."""

    def __init__(self, home: str) -> None:
        self.home, self.root = home, f"{home}/store" if home else ""

    def artifacts(self) -> list[str]:
        """Return the directories of the installed artifacts, the one installed last first: it is preferred.

        Raises:
            UnknownFormatError: A newer gdn-aot made the store.
            UnreadableError: There is one, or something in its place, and it cannot be read.
        """
        try:
            with open_below(self.home, "store", ARTIFACTS) as folder:
                self.format()
                found = sorted(_by_age(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(error) from error
        return [f"{self.root}/artifacts/{name}" for _, name in found]

    def exists(self) -> bool:
        """Say whether there is a store.

        Raises:
            UnreadableError: There may be one, and it cannot be looked at.
        """
        try:
            open_below(self.home, "store").close()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unreadable(error) from error
        return True

    def open_index(self, place: str) -> Index:
        """Open the index of an artifact by its directory.

        Raises:
            OSError: It is not there or cannot be read.
            UntrustedError: It is not signed, and somebody else than root or this user may have written it.
            VerificationError: It is damaged.
        """
        try:
            with open_place(place) as folder:
                folder.check_trust()
                return Index(folder.trusted_file(INDEX), f"{place}/{INDEX}")
        except UntrustedError:  # of others; it may be signed
            from gdn_aot.store.stored import StoredArtifact

            return StoredArtifact(place).index

    def format(self) -> str | None:
        """Return the format of the store, or None where none is known: whoever writes next says so.

        Raises:
            UnknownFormatError: A newer gdn-aot made it.
            UnreadableError: It is there and cannot be read.
        """
        try:
            with open_below(self.home, "store") as root:
                return read_format(root)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> UnreadableError:
        where = f" ({error.filename})" if error.filename not in (None, self.root) else ""
        hint = UnreadableError.default_hint if error.errno in _RIGHTS else "let GDN_AOT_HOME name another directory"
        return UnreadableError(
            f"the store {shown(self.root)} cannot be read: {error.strerror or error}{where}", hint=hint
        )


def read_format(root: Folder) -> str | None:
    """Return the format of a store that is open; see `Store.format`.

    Raises:
        OSError: It says one, and that cannot be read.
        UnknownFormatError: A newer gdn-aot made it.
    """
    try:
        found = root.read("format", _MOST_FORMAT).strip()
    except OSError as error:
        if is_hidden(error):
            raise
        return None
    if found.isdigit() and int(found) > int(FORMAT):
        problem = Problem(f"{root.path}/format", f"{found.decode()}, expected {FORMAT}")
        hint = f"upgrade gdn-aot, or remove {root.path}: it is a cache, which fetch fills again"
        raise UnknownFormatError(f"the store {root.path} is of another format", [problem], hint=hint)
    return FORMAT if found == FORMAT.encode() else None


def _by_age(folder: Folder) -> list[tuple[int, str]]:
    """Return (negative time of installing, name) of the artifacts in a directory."""
    ages = []
    for name in folder.names():
        if not name.startswith(".") and name.isascii() and name.isprintable():  # others are none of ours
            try:
                ages.append((-folder.status(name).st_mtime_ns, name))
            except FileNotFoundError:
                continue  # it was just removed
    return ages

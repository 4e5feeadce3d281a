"""Directories of a store, held open.

Everything below a store is reached from the descriptor of the directory that it is in, and no symbolic link is
followed: whoever may write there cannot have us read, write or remove anything elsewhere. Where a system has no
descriptors of directories, as Windows, paths are looked at before they are used, and who may write is for its own
access lists to say: Python sees neither owners nor modes there.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress

from gdn_aot._files import flags, is_link, open_regular, read_regular, write_whole
from gdn_aot.machine.owners import check_trust, trusts_any

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

ARTIFACTS = "artifacts"
"""The directory of a store that artifacts are in."""
_DIRECTORY = os.O_RDONLY | flags("O_DIRECTORY", "O_CLOEXEC")
_NOT_FOLLOWED = flags("O_NOFOLLOW")
_HELD = (
    {os.open, os.mkdir, os.stat, os.unlink, os.rmdir, os.rename} <= os.supports_dir_fd
    and {os.listdir, os.utime} <= os.supports_fd
    and bool(_NOT_FOLLOWED and flags("O_DIRECTORY"))
)
"""This system opens directories, and what is in them by their descriptors."""
_UNNAMED = flags("O_TMPFILE")
"""Makes a file without a name, which is gone with its descriptor; not every file system can."""


class Folder:
    """A directory, held open until it is left or dropped. Every name is that of an entry, and is not followed.

    Every method raises `OSError`, with the whole path of what it is about.
    """

    def __init__(self, path: str, descriptor: int | None) -> None:
        self.path, self._descriptor = path, descriptor

    @classmethod
    def at(cls, path: str) -> Self:
        """Open a directory by a path that the user gave, in which links are followed."""
        if _HELD:
            return cls(path, os.open(path, _DIRECTORY))
        _check_folder(path, os.stat(path))
        return cls(path, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close it; once more does nothing."""
        if self._descriptor is not None and self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _entry(self, name: str) -> str:
        """Return how the system is told an entry, together with the descriptor: a path where there is none."""
        return f"{self.path}/{name}" if self._descriptor is None else name

    def own_status(self) -> os.stat_result:
        """Return the status of the directory itself."""
        return os.stat(self.path) if self._descriptor is None else os.fstat(self._descriptor)

    def touch(self, ns: tuple[int, int] | None = None) -> None:
        """Set the times of the directory itself, by default to now."""
        place = self.path if self._descriptor is None else self._descriptor
        os.utime(place) if ns is None else os.utime(place, ns=ns)

    def check_trust(self) -> None:
        """Check that root or this user alone may have written into it.

        Raises:
            UntrustedError: Others may have.
        """
        check_trust(self.own_status(), self.path)

    @contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Have errors name the whole path of an entry."""
        try:
            yield
        except OSError as error:
            path = f"{self.path}/{name}"
            if error.errno in (errno.ENOTDIR, errno.ELOOP) and os.path.islink(path):
                raise OSError(errno.ELOOP, "is a symbolic link", path) from None
            raise OSError(error.errno, error.strerror, path) from None

    def folder(self, name: str) -> Folder:
        """Open a directory in it."""
        path = f"{self.path}/{name}"
        with self.naming(name):
            if self._descriptor is not None:
                return Folder(path, os.open(name, _DIRECTORY | _NOT_FOLLOWED, dir_fd=self._descriptor))
            _check_folder(path, os.stat(path, follow_symlinks=False))
            return Folder(path, None)

    def make(self, name: str, mode: int | None = None) -> Folder:
        """Open a directory in it, which is made if it is not there."""
        with self.naming(name), suppress(FileExistsError):
            os.mkdir(self._entry(name), _mode(0o777) if mode is None else mode, dir_fd=self._descriptor)
        return self.folder(name)

    def names(self) -> list[str]:
        """Return the names of its entries."""
        try:
            return os.listdir(self.path if self._descriptor is None else self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from None

    def status(self, name: str) -> os.stat_result:
        """Return the status of an entry, of a link itself."""
        with self.naming(name):
            return os.stat(self._entry(name), dir_fd=self._descriptor, follow_symlinks=False)

    def file(self, name: str, access: int = os.O_RDONLY) -> int:
        """Open a regular file in it and return the descriptor."""
        with self.naming(name):
            return open_regular(self._entry(name), folder=self._descriptor, follow=False, access=access)

    def trusted_file(self, name: str) -> int:
        """Open a regular file in it that root or this user alone may have written.

        Raises:
            UntrustedError: Others may have.
        """
        file = self.file(name)
        try:
            check_trust(os.fstat(file), f"{self.path}/{name}")
        except BaseException:
            os.close(file)
            raise
        return file

    def read(self, name: str, limit: int) -> bytes:
        """Return what a regular file in it holds, of at most ``limit`` bytes."""
        with self.naming(name):
            return read_regular(self._entry(name), limit, folder=self._descriptor, follow=False)

    def write(self, name: str, content: bytes, *, sync: bool = False, mode: int | None = None) -> None:
        """Write a file as `write_whole` does; what has the name is replaced, not written through."""
        mode = _mode(0o666) if mode is None else mode
        with self.naming(name):
            write_whole(self._entry(name), content, sync=sync, folder=self._descriptor, mode=mode)

    def put(self, name: str, content: bytes, *, mode: int) -> None:
        """Write a file as `write` does, of which a process that is killed meanwhile leaves nothing.

        It has no name before it is whole, where the file system can do that and nothing has the name yet.
        """
        if self._descriptor is not None and _UNNAMED:
            with suppress(OSError):
                unnamed = os.open(".", os.O_WRONLY | _UNNAMED | flags("O_CLOEXEC"), mode, dir_fd=self._descriptor)
                with os.fdopen(unnamed, "wb", buffering=0) as file:
                    if file.write(content) == len(content):
                        os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=self._descriptor)
                        return
        self.write(name, content, mode=mode)

    def create(self, name: str, mode: int | None = None) -> int:
        """Make a file, which must not be there, to read and write it, and return its descriptor."""
        new = os.O_RDWR | os.O_CREAT | os.O_EXCL | flags("O_CLOEXEC", "O_BINARY")
        with self.naming(name):
            return os.open(self._entry(name), new, _mode(0o666) if mode is None else mode, dir_fd=self._descriptor)

    def rename(self, old: str, new: str) -> None:
        """Rename an entry."""
        with self.naming(old):
            held = self._descriptor
            os.rename(self._entry(old), self._entry(new), src_dir_fd=held, dst_dir_fd=held)

    def unlink(self, name: str) -> None:
        """Remove a link or a file."""
        with self.naming(name):
            os.unlink(self._entry(name), dir_fd=self._descriptor)

    def discard(self, name: str) -> None:
        """Remove a link, a file, or a directory of files. A directory in a directory is none of ours: it stays."""
        if not stat.S_ISDIR(self.status(name).st_mode):
            self.unlink(name)
            return
        self.check_flat(name)
        with self.folder(name) as inner:
            for entry in inner.names():
                inner.unlink(entry)
        with self.naming(name):
            os.rmdir(self._entry(name), dir_fd=self._descriptor)

    def check_flat(self, name: str) -> None:
        """Check that no directory is in a directory: gdn-aot makes none."""
        if stat.S_ISDIR(self.status(name).st_mode):
            with self.folder(name) as inner:
                for entry in inner.names():
                    if stat.S_ISDIR(inner.status(entry).st_mode):
                        what = "is a directory that gdn-aot has not made"
                        raise OSError(errno.ENOTEMPTY, what, f"{inner.path}/{entry}")

    def size(self, name: str = "") -> int:
        """Return the bytes of the regular files in it or in one of its entries; what cannot be read counts nothing."""
        with suppress(OSError):
            if not name:
                return sum(self.size(entry) for entry in self.names())
            status = self.status(name)
            if stat.S_ISDIR(status.st_mode):
                with self.folder(name) as inner:
                    return inner.size()
            return status.st_size
        return 0


def open_below(path: str, *names: str) -> Folder:
    """Open a directory that is below ``path``, in which alone links are followed.

    Raises:
        OSError: It is not there, cannot be read, or is no directory.
    """
    folder = Folder.at(path)
    for name in names:
        with folder:
            inner = folder.folder(name)
        folder = inner
    return folder


def open_place(place: str) -> Folder:
    """Open the directory of an installed artifact, ``HOME/store/artifacts/NAME``; see `open_below`."""
    return open_below(*place.rsplit("/", 3))


def _check_folder(path: str, status: os.stat_result) -> None:
    """Check what was found at the path of a directory, which is not opened."""
    if is_link(status):
        raise OSError(errno.ELOOP, "is a symbolic link", path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


_OF_CONTENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG)
"""What reading fails with where what is there is not what should be: see `gdn_aot._files`."""


def is_hidden(error: BaseException) -> bool:
    """Say whether reading failed for whoever reads or for the disk, so that nothing is known of the content."""
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_CONTENT


def _mode(mode: int) -> int:
    """Return the mode of what we make: only its owner may write it, whatever the umask leaves, unless all trust all."""
    return mode if trusts_any() else mode & 0o755

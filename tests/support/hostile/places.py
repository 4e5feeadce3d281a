"""Where a case happens: a store, a user's files next to it that nothing may touch, and what nothing may be left in."""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

_KEPT = {
    "notes.txt": b"the user's own\n",
    "empty": b"",
    "blobs/abc": b"a blob of somebody else",
    "artifacts/one/index": b"not ours",
    "artifacts/one/pack": b"not ours either",
    "packs/a": b"a pack",
    ".lock": b"123456\n",
    ".tmp-0123456789abcdef": b"somebody is writing this",
}
"""A canary: names that a store has too, since links in a store may lead here."""


class Place:
    """A folder with everything that a case needs: ``home`` has the store, ``file`` is for what is handed over.

    ``canary`` and ``bystander`` are a user's; ``tmp`` is where temporary files go, ``cwd`` is the working directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.canary, self.bystander = root / "home", root / "canary", root / "bystander.txt"
        self.tmp, self.cwd, self.user, self.files = root / "tmp", root / "cwd", root / "user", root / "files"
        for folder in (self.home, self.tmp, self.cwd, self.user, self.files):
            folder.mkdir(parents=True)
        for name, content in _KEPT.items():
            path = self.canary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (self.canary / "link").symlink_to(self.bystander)
        self.bystander.write_bytes(b"beside the store\n")
        self._before = self._seen()

    def settle_in(self) -> None:
        """Have this process keep its home and its temporary files here."""
        os.environ |= {"HOME": str(self.user), "TMPDIR": str(self.tmp)}
        tempfile.tempdir = None

    def clean(self) -> None:
        """Empty what a case may have filled."""
        for folder in (self.home, self.files, self.tmp, self.cwd):
            for path in folder.iterdir():
                remove(path)

    def touched(self) -> list[str]:
        """Return what is no longer as it was outside the store and the handed files; put it right."""
        now = self._seen()
        found = sorted(name for name in {*now, *self._before} if now.get(name) != self._before.get(name))
        if found:
            for path in self.root.iterdir():
                remove(path)
            self.__init__(self.root)  # type: ignore[misc]
        return found

    def _seen(self) -> dict[str, object]:
        """Return what is below the root but for ``home`` and ``files``: kinds, modes, times and contents."""
        found: dict[str, object] = {}
        folders = [str(self.root)]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    path, status = entry.path, entry.stat(follow_symlinks=False)
                    name = os.path.relpath(path, self.root)
                    if name in ("home", "files"):
                        found[name] = entry.is_dir(follow_symlinks=False)
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                        emptied = name in ("tmp", "cwd")
                        found[name] = status.st_mode if emptied else (status.st_mode, status.st_mtime_ns)
                    elif stat.S_ISREG(status.st_mode):
                        digest = hashlib.sha256(Path(path).read_bytes()).digest()
                        found[name] = (status.st_mode, status.st_mtime_ns, digest)
                    else:
                        found[name] = status.st_mode
        return found


def remove(path: Path) -> None:
    """Remove whatever is at a path, and follow nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()

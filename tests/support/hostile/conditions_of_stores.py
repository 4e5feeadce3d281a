"""Surroundings that are broken: stores, artifacts and file systems; see `hostile.hosts`."""

import fcntl
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from hostile import stores
from hostile.hosts import Setting, SkippedError, condition
from hostile.planting import plant_plain

NO_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def _without_privilege(setting: Setting) -> None:
    """Let permissions count for root too."""
    if os.geteuid():
        return
    if not shutil.which("setpriv"):
        raise SkippedError("setpriv, which takes privileges from root, is not installed")
    setting.wrapper = [*NO_PRIVILEGE, *setting.wrapper]


def _mounted(setting: Setting, *commands: str) -> None:
    """Run the process where some file systems are others."""
    command = ["unshare", "--mount", "sh", "-c", "; ".join([*commands, 'exec "$0" "$@"'])]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=10)
    except OSError as error:
        raise SkippedError("unshare is not installed") from error
    if done.returncode:
        raise SkippedError(f"no other file systems can be mounted here: {done.stderr.decode()[:80]!a}")
    setting.wrapper = [*setting.wrapper, *command]


_FILES: dict[str, Callable[[Setting], Path]] = {
    "store": lambda setting: setting.store,
    "artifacts": lambda setting: setting.store / "artifacts",
    "index": lambda setting: setting.there / "index",
    "pack": lambda setting: setting.there / "pack",
    "format": lambda setting: setting.store / "format",
    ".lock": lambda setting: setting.store / ".lock",
}
_INSTEAD = {
    "store": ("loop", "FIFO", "dangling link"),
    "artifacts": ("loop", "FIFO", "socket"),
    "index": ("missing", "loop", "folder", "FIFO", "socket", "device", "dangling link", "sparse"),
    "pack": ("missing", "loop", "folder", "FIFO", "device"),
    "format": ("FIFO", "device", "folder", "socket"),
    ".lock": ("FIFO", "folder"),
}


def _instead(what: str, kind: str) -> None:
    @condition(f"{what}: {kind}")
    def change(setting: Setting) -> None:
        path = _FILES[what](setting)
        plant_plain(path, kind, outside=setting.root / "user")


def _unreadable(what: str) -> None:
    @condition(f"{what}: unreadable")
    def change(setting: Setting) -> None:
        _without_privilege(setting)
        _FILES[what](setting).chmod(0)


for _what, _kinds in _INSTEAD.items():
    for _kind in _kinds:
        _instead(_what, _kind)
for _what in ("store", "artifacts", "index", "pack"):
    _unreadable(_what)


def _format(name: str, content: bytes) -> None:
    @condition(name)
    def change(setting: Setting) -> None:
        (setting.store / "format").write_bytes(content)


_format("format of the future", b"99\n")
_format("format is garbage", b"\xff\x00" * 50)


@condition("written in 1843")
def old(setting: Setting) -> None:
    os.utime(setting.there, (-4_000_000_000, -4_000_000_000))


@condition("300 artifacts")
def many(setting: Setting) -> None:
    there = setting.there
    for number in range(300):
        shutil.copytree(there, there.with_name(f"fla0.6.0-triton3.5.{number}-sm_90-{number:016x}"))


@condition("read-only file system")
def read_only(setting: Setting) -> None:
    shutil.rmtree(setting.there)
    _mounted(setting, f"mount --bind {setting.root} {setting.root}", f"mount -o remount,bind,ro {setting.root}")


@condition("full file system")
def full(setting: Setting) -> None:
    _mounted(
        setting, f"mount -t tmpfs -o size=4k,mode=700 none {setting.home}", f"head -c 9000 /dev/zero > {setting.home}/x"
    )
    setting.wrapper[-1] = setting.wrapper[-1].replace("/x;", "/x 2>/dev/null;")


@condition("no /proc")
def no_proc(setting: Setting) -> None:
    shutil.rmtree(setting.there)
    setting.store.chmod(0o555)
    _mounted(setting, "mount -t tmpfs none /proc")


@condition("files may not grow")
def no_growth(setting: Setting) -> None:
    shutil.rmtree(setting.there)
    setting.limits = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    setting.before = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"


@condition("little memory")
def little(setting: Setting) -> None:
    setting.before = """
import resource
held = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (held + (24 << 20),) * 2)
"""


def _lock(setting: Setting, kind: int) -> None:
    path = setting.store / ".lock"
    path.touch(0o600)
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, kind)
    setting.close.append(lambda: os.close(file))


@condition("lock held")
def lock_held(setting: Setting) -> None:
    _lock(setting, fcntl.LOCK_EX)


@condition("lock held, artifact not installed")
def lock_held_new(setting: Setting) -> None:
    shutil.rmtree(setting.there)
    _lock(setting, fcntl.LOCK_SH)


def _handed(name: str, make: Callable[[Path, Setting], None]) -> None:
    """Add a condition of what ``GDN_AOT_ARTIFACT``, and ``install``, is given."""

    @condition(f"artifact: {name}")
    def change(setting: Setting) -> None:
        path = setting.root / "handed.tar.zst"
        make(path, setting)
        setting.env["GDN_AOT_ARTIFACT"] = setting.file = str(path)


def _folder(path: Path, setting: Setting) -> None:
    path.mkdir()
    os.mkfifo(path / "a.tar.zst")
    shutil.copy(setting.artifact, path / "b.tar.zst")


def _thousand(path: Path, setting: Setting) -> None:
    path.mkdir()
    for number in range(1000):
        (path / f"{number}.tar.zst").write_bytes(b"x" * 100)


def _cut(path: Path, setting: Setting) -> None:
    data = setting.artifact.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _newly_sealed(path: Path, setting: Setting) -> None:
    """The digest is right and the rest is not."""
    import factory

    path.write_bytes(factory.wrap(setting.artifact.read_bytes()[:-1000]))


for _kind in ("FIFO", "link to zero", "sparse", "loop", "socket"):
    _handed(_kind, lambda path, setting, kind=_kind: plant_plain(path, kind, outside=setting.root / "user"))  # type: ignore[misc]
_handed("a folder with a FIFO", _folder)
_handed("cut", _cut)
_handed("cut, with a right digest", _newly_sealed)
_handed("empty", lambda path, _: path.touch())
_handed("a folder without files", lambda path, _: path.mkdir())
_handed("1,000 files", _thousand)


def _forged(name: str, change_header: Callable[[dict[str, object]], object]) -> None:
    """Add a condition of an index that has right digests."""

    @condition(f"index: {name}")
    def change(setting: Setting) -> None:
        path = setting.there / "index"
        path.write_bytes(stores.with_header(path.read_bytes(), change_header))


_forged("lacks keys", lambda header: {"identifier": header["identifier"]})
_forged("a list", lambda header: [header])
_forged("nested deep", lambda _: b"[" * 200_000)
_forged("20,000 modules", lambda header: {**header, "modules": [f"fla.m{number}" for number in range(20_000)]})
_forged("modules of other types", lambda header: {**header, "modules": [None, 3, {}, [], "\0"]})


def _owned(name: str, change_status: Callable[[Path], object]) -> None:
    @condition(name)
    def change(setting: Setting) -> None:
        if os.geteuid():
            raise SkippedError("not root")
        for path in (setting.there, *setting.there.iterdir()):
            change_status(path)


_owned("artifact of a foreign owner", lambda path: os.chown(path, 54321, 54321))
_owned("artifact writable by its group", lambda path: path.chmod(path.stat().st_mode | 0o020))
_owned("artifact writable by all", lambda path: path.chmod(path.stat().st_mode | 0o002))

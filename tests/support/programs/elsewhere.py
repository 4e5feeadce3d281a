"""``gdn-aot`` as on a system that lacks what Linux has: ``python elsewhere.py SYSTEM COMMAND...``.

``windows`` takes away what Python has not there (the "Availability" lines of the documentation of ``os``) and refuses
what it refuses there: descriptors of directories, renaming onto what is there. ``msvcrt`` is a stand-in, whose locks
are real ones. ``bare`` is Linux with a Python that has neither ``fcntl`` nor ``resource``. Neither has torch or Triton.
"""

import builtins
import os
import runpy
import shutil
import signal
import sys
import types
from pathlib import Path
from typing import Any, cast

_GONE = (
    "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_PATH", "pread", "pwrite", "preadv", "writev",
    "readv", "geteuid", "getuid", "getegid", "getgid", "getgroups", "fchmod", "fchown", "chown", "lchown", "statvfs",
    "fstatvfs", "register_at_fork", "fork", "forkpty", "lockf", "pipe2", "killpg", "setsid", "getpgid", "uname",
    "sysconf", "mkfifo", "RTLD_LAZY", "RTLD_NOW", "RTLD_NOLOAD", "sched_getaffinity", "nice", "openpty", "posix_spawn",
)  # fmt: skip
_SIGNALS = ("SIGKILL", "SIGCHLD", "SIGHUP", "SIGPIPE", "SIGALRM", "SIGUSR1", "SIGUSR2", "pthread_sigmask")
_MODULES = ("resource", "pwd", "grp", "termios", "pty", "tty")
_HEAVY = ("torch", "triton", "fla", "numpy")


def take_away(*modules: str) -> None:
    """Let modules be ones that this Python does not have."""
    for name in modules:
        sys.modules[name] = None  # type: ignore[assignment]


_OWN = f"{Path(__file__).parents[3]}{os.sep}gdn_aot{os.sep}"
_BINARY = 1 << 30
"""No flag of Linux; everything that our code opens must have it, else Windows changes line ends."""
_PLAIN = {name: getattr(os, name) for name in ("open", "stat", "listdir", "utime", "rename", "mkdir", "unlink")}


def _no_descriptors(more: dict[str, Any]) -> None:
    if any(more.get(name) is not None for name in ("dir_fd", "src_dir_fd", "dst_dir_fd")):
        raise NotImplementedError("dir_fd unavailable on this platform")


def _open(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
    _no_descriptors(more)
    assert flags & _BINARY or not sys._getframe(1).f_code.co_filename.startswith(_OWN), f"{path} is opened as text"
    if Path(os.fspath(path)).is_dir():
        raise PermissionError(13, "Permission denied", path)
    return int(_PLAIN["open"](path, flags & ~_BINARY, mode))


def _rename(old: Any, new: Any, **more: Any) -> None:
    _no_descriptors(more)
    if os.path.lexists(new):
        raise FileExistsError(17, "Cannot create a file when that file already exists", old, None, new)
    _PLAIN["rename"](old, new)


def _by_path(name: str) -> Any:
    def call(path: Any, *arguments: Any, **more: Any) -> Any:
        _no_descriptors(more)
        if isinstance(path, int) and name != "stat":
            raise TypeError(f"{name}: path should be string, not int")
        return _PLAIN[name](path, *arguments, **more)

    return call


def _msvcrt() -> types.ModuleType:
    import fcntl

    def locking(file: int, mode: int, size: int) -> None:
        assert (mode, size) == (module.LK_NBLCK, 1)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    module: Any = types.ModuleType("msvcrt")
    module.locking, module.LK_NBLCK = locking, 2
    return module  # type: ignore[no-any-return]


def windows() -> None:
    """Make this process one of a system like Windows."""
    msvcrt, changed = _msvcrt(), cast("Any", os)
    usage = shutil.disk_usage("/")
    take_away("fcntl", *_MODULES)
    sys.modules["msvcrt"] = msvcrt
    for module, names in ((os, _GONE), (signal, _SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    changed.O_BINARY, changed.open, changed.rename = _BINARY, _open, _rename
    for name in ("stat", "listdir", "utime", "mkdir", "unlink"):
        setattr(os, name, _by_path(name))
    for ability in (os.supports_dir_fd, os.supports_fd, os.supports_effective_ids):
        cast("set[Any]", ability).clear()
    cast("Any", shutil).disk_usage = lambda _path: usage


def bare() -> None:
    """Make this process one of a Python without modules that it can be built without."""
    take_away("fcntl", "msvcrt", *_MODULES)


def main() -> None:
    """Become another system and run the command line."""
    system = sys.argv.pop(1)
    import_module = builtins.__import__  # what the standard library imports for itself is another system's own
    for name in ("tempfile", "subprocess", "random", "threading", "ctypes", "logging", "concurrent.futures"):
        import_module(name)
    take_away(*_HEAVY)
    {"windows": windows, "bare": bare}[system]()
    sys.argv[0] = "gdn-aot"
    runpy.run_module("gdn_aot", run_name="__main__")


if __name__ == "__main__":
    main()

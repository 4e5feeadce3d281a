"""The recorder: in every Python process of a deployment, writes each launch of a Triton kernel when it is first seen.

One file per process in the folder that ``gdn-aot capture`` made, made when there is something to write. A line is one
JSON object, written at once by one ``write``, so that a killed process leaves what it had; see `gdn_aot.capture.merge`
for what the lines mean. Imports nothing at start that a process would wait for.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time

from gdn_aot._version import __version__

TYPE_CHECKING = False  # as in typing: this is imported into every process of a deployment
if TYPE_CHECKING:
    from typing import Any

    from gdn_aot.triton_internals.observing import Seen

FORMAT = 1
"""Of a process's file and of a capture."""
ENDING = ".jsonl"
_SYNC_SECONDS = 5.0
"""Least time between two flushes to the disk."""
_LONGEST = 1000
"""Characters of a string that a kernel may take."""
_MOST_PROBLEMS = 5
"""Problems that a process says; more are of the same kind."""


class Recorder:
    """Writes what one process launches to a file in a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._file: int | None = None
        self._synced = 0.0
        self._kernels: dict[tuple[str, str | None], int] = {}
        self._written: set[tuple[object, ...]] = set()
        self._packages: set[str] = set()
        self._problems = 0
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        """Give the child a file of its own. What its parent has written it need not write again, but must name."""
        self._lock = threading.RLock()
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self._kernels.clear()
        self._packages.clear()

    def note(self, seen: Seen) -> None:
        """Write a launch, unless this process has."""
        from gdn_aot.triton_internals.encoding import NotPlainError
        from gdn_aot.triton_internals.observing import described_target

        with self._lock:
            text, cache_key = seen.identity()
            sha256 = hashlib.sha256(text.encode()).hexdigest() if text is not None else None
            try:
                key, specialization = seen.launch()
                tuning = _tuning(seen)
                json.dumps(specialization, allow_nan=False)
                if _has_path([specialization, tuning]):
                    raise NotPlainError("a string of the launch may be a path")
            except (TypeError, ValueError) as error:
                # The text of others' errors may hold values.
                reason = str(error) if isinstance(error, NotPlainError) else type(error).__name__
                self._once((seen.kernel, reason), {"left_out": [seen.kernel, reason]})
                return
            target = described_target(seen.target)
            identity = (seen.kernel, cache_key, target, key, json.dumps(tuning))
            if identity in self._written:
                return
            launch = {
                "kernel": self._kernel(seen.kernel, sha256, cache_key),
                "target": target,
                "key": key,
                "specialization": specialization,
                "tuning": tuning,
            }
            self._once(identity, {"launch": launch})

    def problem(self, error: BaseException) -> None:
        """Say that a launch could not be recorded."""
        self._problems += 1
        if self._problems <= _MOST_PROBLEMS:
            from gdn_aot._text import shown

            sys.stderr.write(f"gdn-aot: a launch is not recorded: {type(error).__name__}: {shown(error)}\n")

    def _once(self, identity: tuple[object, ...], line: dict[str, Any]) -> None:
        if identity not in self._written:
            self._write(line)
            self._written.add(identity)

    def _kernel(self, name: str, sha256: str | None, cache_key: str | None) -> int:
        number = self._kernels.get((name, cache_key))
        if number is None:
            module, _, qualname = name.partition(":")
            self._package(module.partition(".")[0])
            number = len(self._kernels)
            known = {"module": module, "qualname": qualname, "source_sha256": sha256, "cache_key": cache_key}
            self._write({"kernel": known, "number": number})
            self._kernels[name, cache_key] = number
        return number

    def _package(self, package: str) -> None:
        """Write which version of a provider the package belongs to. Others are not looked up: it takes long."""
        if package in self._packages:
            return
        from gdn_aot.catalogue.providers import PROVIDERS
        from gdn_aot.machine import installed

        for provider in PROVIDERS.values():
            if provider.package == package:
                version = installed.version(provider.distribution)
                self._write({"package": {"distribution": provider.distribution, "version": version}})
        self._packages.add(package)

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None  # noqa: S101
        # The line begins with its end: half of one that could not be written, on a full disk, damages no other.
        data = ("\n" + json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode("ascii")
        while data:
            data = data[os.write(self._file, data) :]
        now = time.monotonic()
        if now - self._synced >= _SYNC_SECONDS:
            os.fsync(self._file)
            self._synced = now

    def _open(self) -> None:
        import triton

        path = os.path.join(self._folder, f"{os.getpid()}-{os.urandom(4).hex()}{ENDING}")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._write({"format": FORMAT, "tool": f"gdn-aot {__version__}", "triton": str(triton.__version__)})


def _tuning(seen: Seen) -> dict[str, Any] | None:
    """Return what an autotuner had to do with a launch, in JSON form.

    Raises:
        NotPlainError: Something in its key or configuration has none.
    """
    from gdn_aot.triton_internals.encoding import NotPlainError

    tuning = seen.tuning
    if tuning is None:
        return None
    values = [*(tuning.key or ()), *(value for _, value in tuning.config["kwargs"])]
    for value in values:
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise NotPlainError.of(value)
    return {
        "key": None if tuning.key is None else list(tuning.key),
        "config": tuning.config,
        "positional": tuning.positional,
        "keywords": tuning.keywords,
    }


def _has_path(value: Any) -> bool:
    """Say whether there is a string in some JSON that could be the path of a file."""
    if isinstance(value, dict):
        return any(map(_has_path, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_path, value))
    return isinstance(value, str) and (os.sep in value or len(value) > _LONGEST)


def start(folder: str) -> Recorder:
    """Record this process: watch Triton as soon as it is imported."""
    from gdn_aot._hooks import ImportHook

    recorder = Recorder(folder)
    hook = ImportHook()
    watching: list[Any] = []

    def watch(module: str) -> None:
        try:
            from gdn_aot.triton_internals import observing

            if not watching:
                watching.append(observing.Observer(recorder.note, recorder.problem))
            (watching[0].watch_jit if module == JIT else watching[0].watch_autotuner)()
        except Exception as error:  # noqa: BLE001 - someone else's import
            recorder.problem(error)

    hook.after_import(JIT, watch)
    hook.after_import(AUTOTUNER, watch)
    return recorder


JIT, AUTOTUNER = "triton.runtime.jit", "triton.runtime.autotuner"
"""As in `gdn_aot.triton_internals.observing`, which is imported when Triton is."""

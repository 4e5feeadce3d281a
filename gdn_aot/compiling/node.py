"""What runs on a node of a cluster: functions that Ray calls there, and the worker processes behind them.

They need nothing of Ray, and answer with plain dictionaries, so that an error does not have to be unpickled. A process
of Ray keeps the worker of the target that it was asked for last, and of the one before: tasks for it find the provider
imported.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot.catalogue.providers import get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.compiling.client import Worker, WorkerEndedError
from gdn_aot.compiling.versions import difference, versions
from gdn_aot.errors import GdnAotError, NotWritableError
from gdn_aot.machine import scratch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARGIN_SECONDS = 60.0
"""Beyond the time that a kernel may take, in which one of the kernels at hand has to be done."""
_MOST_HOSTS = 2


class LostWorkerError(Exception):
    """The worker process of a target ended or hung, and what it had in hand is to be done again."""


class _Host:
    """The worker process of one target in this process of Ray, with a build cache that nobody else has."""

    def __init__(self, job: str, provider: str, target: str) -> None:
        _work_in(job_folder(job))
        self._cache = BuildCache(Path(scratch.make("cache")))
        self._worker = Worker(provider, get_target(target)).__enter__()
        self._begun = False
        self.versions = versions(get_provider(provider), target)

    def ready(self) -> None:
        self._worker.ready()

    def compile(self, pool: Mapping[str, Any], payloads: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        worker = self._worker
        worker.ready()
        worker.silence = pool["timeout"] + pool["margin"]
        if not self._begun:
            self._begun = True
            worker.start_pool(self._cache, pool["compiler"], pool["jobs"], pool["timeout"])
        for number, payload in enumerate(payloads):
            worker.submit(number, dict(payload))
        return [self._with_bytes(worker.expect("compiled")) for _ in payloads]

    def _with_bytes(self, message: dict[str, Any]) -> dict[str, Any]:
        found = self._cache.object(message["object"]) if "object" in message else None
        if found is None:
            return message
        ptx = self._cache.ptx(found.cubin) if self._cache.has_ptx(found.cubin) else None
        return {**message, "record": msgspec.to_builtins(found), "cubin": self._cache.cubin(found.cubin), "text": ptx}

    def close(self) -> None:
        self._worker.end(at_once=True)


_hosts: dict[tuple[str, str], _Host] = {}


def job_folder(job: str) -> Path:
    """Return the directory on a node of everything that a command does there."""
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"gdn-aot-node-{job}"  # noqa: S108


def _work_in(folder: Path) -> None:
    """Have all scratch of this process in a folder, which goes when the command ends, or when nobody holds it.

    Raises:
        NotWritableError: It cannot be made, or somebody else has made it.
    """
    if tempfile.tempdir == str(folder):
        return
    try:
        scratch.sweep(str(folder.parent))
        folder.mkdir(mode=0o700, exist_ok=True)
        while not scratch.hold(str(folder)):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise NotWritableError(f"cannot write to {folder}: {error.strerror or error}") from error
    tempfile.tempdir = str(folder)


def prepare(job: str, provider: str, target: str, here: Mapping[str, str]) -> dict[str, Any]:
    """Import a provider for a target in a worker process; `compile_batch` has the arguments and what is returned."""
    return _answered(job, provider, target, here, lambda host: host.ready())


def compile_batch(
    job: str,
    provider: str,
    target: str,
    here: Mapping[str, str],
    pool: Mapping[str, Any],
    payloads: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Compile launches of one target for the machine whose `versions` are ``here``.

    Returns ``answers``, each with the ``task``'s place in ``payloads`` and the bytes of what was made; or ``differs``,
    in what this node does from that machine; or ``broken``, why the provider cannot be imported.

    Raises:
        LostWorkerError: The worker process is gone, or hung.
    """
    return _answered(job, provider, target, here, lambda host: host.compile(pool, payloads))


def _answered(job: str, provider: str, target: str, here: Mapping[str, str], work: Any) -> dict[str, Any]:
    key = (provider, target)
    try:
        host = _hosts.pop(key, None) or _Host(job, provider, target)
        _hosts[key] = host
        while len(_hosts) > _MOST_HOSTS:
            _hosts.pop(next(iter(_hosts))).close()
        if wrong := difference(here, host.versions, get_provider(provider).distribution):
            return {"differs": wrong}
        return {"answers": work(host)}
    except WorkerEndedError as error:
        _hosts.pop(key).close()
        raise LostWorkerError(error.message) from None
    except GdnAotError as error:
        return {"broken": error.message}


def end(job: str) -> None:
    """Remove everything of a command from this node; its worker processes may be ending meanwhile."""
    scratch.remove(str(job_folder(job)))

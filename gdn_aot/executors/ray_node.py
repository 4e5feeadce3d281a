"""What runs on a node of a cluster: compile workers for one target or more, and their build cache.

An actor of Ray, which needs nothing of Ray itself. Its methods answer with plain dictionaries, so that an error does
not have to be unpickled; one that ``compile`` or ``prepare`` cannot survive comes as ``broken``.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot.catalogue.providers import get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.errors import GdnAotError
from gdn_aot.executors.versions import versions
from gdn_aot.tracing.client import Worker, WorkerEndedError

if TYPE_CHECKING:
    from collections.abc import Mapping


class CompileNode:
    """Compiles for one driver on one node. Nothing of it stays when it is closed."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gdn-aot-node-"))
        self._workers: dict[str, _Workers] = {}

    async def versions(self, provider: str, target: str) -> dict[str, str]:
        """Return `gdn_aot.executors.versions.versions` of this node."""
        return await asyncio.to_thread(versions, get_provider(provider), target)

    async def prepare(self, provider: str, target: str) -> dict[str, Any]:
        """Start the process of a target, and wait until it has imported the provider."""
        if target not in self._workers:
            self._workers[target] = _Workers(provider, target, BuildCache(self._folder / "cache"))
        return await asyncio.to_thread(self._workers[target].ready)

    async def compile(self, target: str, pool: Mapping[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
        """Compile one launch of a target that was prepared; calls may arrive in any order.

        Args:
            target: Which.
            pool: ``compiler``, ``jobs`` and ``timeout`` of the compile workers, which the first call starts.
            payload: The launch.

        Returns:
            What the worker answers, with the bytes of what it made.
        """
        return await self._workers[target].compile(pool, payload)

    async def end(self, target: str) -> None:
        """End the processes of a target."""
        workers = self._workers.pop(target, None)
        if workers is not None:
            workers.close()

    async def close(self) -> None:
        """End everything and remove the cache."""
        for target in list(self._workers):
            await self.end(target)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Workers:
    """The process of one target on this node. It is started, and dies, with the thread of the actor's loop."""

    def __init__(self, provider: str, target: str, cache: BuildCache) -> None:
        self._worker = Worker(provider, get_target(target)).__enter__()
        self._cache = cache
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._ended: dict[str, Any] | None = None
        self._begun = self._closed = False

    def ready(self) -> dict[str, Any]:
        try:
            self._worker.ready()
        except GdnAotError as error:
            return _broken(error)
        return {}

    async def compile(self, pool: Mapping[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
        if self._ended is not None:
            return self._ended
        if not self._begun:
            self._begun = True
            self._worker.start_pool(self._cache, pool["compiler"], pool["jobs"], pool["timeout"])
            threading.Thread(target=self._read, name="answers", daemon=True).start()
        self._count += 1
        number = self._count
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = future
        with contextlib.suppress(GdnAotError):  # the reading thread sees it, too
            self._worker.submit(number, payload)
        return await future

    def _read(self) -> None:
        while True:
            try:
                message = self._worker.receive("compiled")
            except (GdnAotError, OSError) as error:
                if not self._closed:
                    self._loop.call_soon_threadsafe(self._fail, _broken(error))
                return
            number = message.pop("task")
            self._loop.call_soon_threadsafe(self._resolve, number, self._with_bytes(message))

    def _with_bytes(self, message: dict[str, Any]) -> dict[str, Any]:
        found = self._cache.object(message["object"]) if "object" in message else None
        if found is None:
            return message
        ptx = self._cache.ptx(found.cubin) if self._cache.has_ptx(found.cubin) else None
        return {**message, "record": msgspec.to_builtins(found), "cubin": self._cache.cubin(found.cubin), "text": ptx}

    def _resolve(self, number: int, message: dict[str, Any]) -> None:
        future = self._waiting.pop(number)
        if not future.done():
            future.set_result(message)

    def _fail(self, message: dict[str, Any]) -> None:
        self._ended = message
        for number in list(self._waiting):
            self._resolve(number, message)

    def close(self) -> None:
        self._closed = True
        self._worker.__exit__(InterruptedError, None, None)


def _broken(error: Exception) -> dict[str, Any]:
    ended = isinstance(error, WorkerEndedError)
    return {"ended" if ended else "broken": getattr(error, "message", str(error))}

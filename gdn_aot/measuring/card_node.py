"""What runs on a node with a card: the measuring process, and the files that it reads. An actor of Ray."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.catalogue.providers import get_provider
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.compiling.versions import versions
from gdn_aot.errors import GdnAotError
from gdn_aot.machine import scratch
from gdn_aot.machine.card import probe
from gdn_aot.machine.child import Child, EndedError
from gdn_aot.measuring.process import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.measuring.process import PlannedKernel


class CardNode:
    """Measures for one driver on one card; with ``any_card`` Ray gave it none, and hides all, which is undone."""

    def __init__(self, *, any_card: bool) -> None:
        if any_card and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            del os.environ["CUDA_VISIBLE_DEVICES"]
        self._folder = Path(scratch.make("card"))
        self._cache = BuildCache(self._folder / "cache")
        self._process: Child | None = None

    async def describe(self, provider: str, target: str) -> dict[str, Any]:
        """Return the versions of this node, and its card or why there is none."""
        return await asyncio.to_thread(_described, provider, target)

    async def start(self, module: str, variables: Mapping[str, str], silence: float) -> None:
        """Start a measuring process in the place of the last one."""
        self._end(at_once=True)
        self._process = Child(module, silence=silence, variables=variables).__enter__()

    async def lacks(self, cubins: Sequence[str]) -> list[str]:
        """Return those of these cubins that are not here yet."""
        return [sha256 for sha256 in cubins if not self._cache.has_cubin(sha256)]

    async def plan(self, kernels: list[PlannedKernel], cubins: Mapping[str, bytes]) -> str:
        """Write a plan and cubins that it names. Returns the path of the plan."""
        for sha256, data in cubins.items():
            self._cache.put_cubin(sha256, data)
        return Plan(str(self._cache.root), kernels).write(self._folder / "plan.json")

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send the process a message."""
        if self._process is not None:
            self._process.send(message)

    async def receive(self, silence: float) -> dict[str, Any]:
        """Wait for its next ``message``; a process that is over gives ``ended``, the reason, and its last ``note``."""
        assert self._process is not None  # noqa: S101
        self._process.silence = silence
        try:
            return {"message": await asyncio.to_thread(self._process.receive)}
        except EndedError as error:
            return {"ended": error.reason, "note": error.note}

    async def end(self, *, at_once: bool) -> None:
        """End the process."""
        await asyncio.to_thread(self._end, at_once=at_once)

    def _end(self, *, at_once: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(at_once=at_once)

    async def close(self) -> None:
        """End everything and remove the files."""
        await self.end(at_once=True)
        scratch.end()


def _described(provider: str, target: str) -> dict[str, Any]:
    found = {"versions": versions(get_provider(provider), target)}
    try:
        card = probe()
    except GdnAotError as error:
        return {**found, "problem": error.message}
    return {**found, "card": {**asdict(card), "target": card.target.name}}

"""The executor on a Ray cluster: tracing, choosing and packing here, compiling and measuring on its nodes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gdn_aot.executors.ray_cluster import Cluster
from gdn_aot.executors.ray_compiling import RayCompiling
from gdn_aot.executors.ray_crew import Crew
from gdn_aot.executors.ray_measuring import find_cards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.executors.base import Cards, Order
    from gdn_aot.measuring.client import Method
    from gdn_aot.tracing.client import Worker


class RayExecutor:
    """Works on the nodes of a cluster. Entering connects.

    Args:
        address: ``HOST:PORT`` of the cluster's head, or ``auto`` for the one that this machine is a node of.
        say: Told what happens to nodes.
    """

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        self._cluster = Cluster(address)
        self._crew = Crew(self._cluster, say)
        self._say = say

    def __enter__(self) -> Self:
        self._cluster.__enter__()
        return self

    def __exit__(self, *left: object) -> None:
        try:
            self._crew.close()
        finally:
            self._cluster.__exit__(*left)

    def describe(self) -> str:
        """Return in a few words which cluster this is."""
        return f"the Ray cluster at {self._cluster.place()} with {len(self._cluster.nodes())} nodes"

    def expect(self, provider: ProviderInfo, targets: Sequence[Target]) -> None:
        """Start the compile workers of these targets on every node."""
        for target in targets:
            self._crew.expect(provider, target.name)

    @contextlib.contextmanager
    def compiling(self, order: Order, worker: Callable[[], Worker]) -> Iterator[RayCompiling]:
        """Return compile workers on every node; the worker here only traces."""
        del worker
        try:
            yield RayCompiling(self._crew, order)
        finally:
            self._crew.end(order.target.name)

    @contextlib.contextmanager
    def measuring(self, method: Method, cache: BuildCache, target: Target) -> Iterator[Cards]:
        """Return the cards of all nodes that offer the target."""
        with find_cards(self._cluster, method, cache, target, self._say) as found:
            yield found

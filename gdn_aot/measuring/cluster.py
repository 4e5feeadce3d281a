"""Cards of a cluster: nodes that offer a target's resource, checked, and driven from here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from gdn_aot.catalogue.providers import get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.versions import difference, versions
from gdn_aot.errors import ClusterError, NothingSelectedError, UsageError
from gdn_aot.machine.card import CardInfo, CardUser
from gdn_aot.machine.child import EndedError
from gdn_aot.machine.cluster import reason
from gdn_aot.measuring.card_node import CardNode
from gdn_aot.measuring.cards import MODULE, VARIABLES, LostError
from gdn_aot.measuring.process import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.machine.cluster import Cluster, Node
    from gdn_aot.measuring.cards import Cards
    from gdn_aot.measuring.client import Method
    from gdn_aot.measuring.process import PlannedKernel

FREE_SECONDS = 120.0
"""In which a node must have its resource free: it may be in use by another tuning."""


def places(cluster: Cluster, target: Target) -> list[Node]:
    """Return the nodes that offer a target's resource, each as often as it has a card for it.

    Raises:
        NothingSelectedError: None does.
    """
    resource, nodes = f"arch:{target}", cluster.nodes()
    found = []
    for node in nodes:
        offered = int(node.resources.get(resource, 0))
        found += [node] * (min(offered, node.gpus) if node.gpus else min(offered, 1))
    if not found:
        offers = sorted({name for node in nodes for name in node.resources})
        raise NothingSelectedError(
            f"no node of the cluster offers {resource}: {len(nodes)} nodes offer {', '.join(offers) or 'no arch:*'}",
            hint=f"on a machine with such a card: ray start --address HOST:PORT --resources '{{\"{resource}\": 1}}'",
        )
    return found


@contextlib.contextmanager
def find_cards(
    cluster: Cluster, method: Method, cache: BuildCache, target: Target, say: Callable[[str], None]
) -> Iterator[Cards]:
    """Take all cards of a target, and check that they are of one kind.

    Raises:
        NothingSelectedError: No node offers the target.
        UsageError: A node has other versions, another target's card, or another card or driver than the others.
        ClusterError: None of the nodes answers.
    """
    found = places(cluster, target)
    names = _names(found)
    cards = [RayCard(cluster, node, name, target, cache) for node, name in zip(found, names, strict=True)]
    try:
        infos = _described(cards, method, target, say)
        for card, info in infos:
            if text := info.warning():
                say(f"Warning: {card.name}: {text}")
        yield infos[0][1], [card for card, _ in infos]
    finally:
        cluster.end([card.close() for card in cards])
        for card in cards:
            card.stop()


def _names(nodes: Sequence[Node]) -> list[str]:
    count: dict[str, int] = {}
    names = []
    for node in nodes:
        count[node.id] = number = count.get(node.id, -1) + 1
        names.append(f"{node.name} card {number}" if number else node.name)
    return names


def _described(
    cards: Sequence[RayCard], method: Method, target: Target, say: Callable[[str], None]
) -> list[tuple[RayCard, CardInfo]]:
    provider = get_provider(method.provider)
    here = versions(provider, target.name)
    calls = [(card, card.describe(method.provider)) for card in cards]
    found: list[tuple[RayCard, CardInfo]] = []
    lost = []
    for card, call in calls:
        try:
            answer = card.get(call, FREE_SECONDS)
        except LostError as error:
            lost.append(str(error))
            say(f"{error}: it is left out")
            continue
        if wrong := difference(here, answer["versions"], provider.distribution):
            raise UsageError(
                f"node {card.name} cannot work for this machine: {wrong}",
                hint="install the same versions of gdn-aot, Triton and the provider on every node",
            )
        if "problem" in answer:
            raise UsageError(f"node {card.name} offers arch:{target}, but: {answer['problem']}", hint=_WRONG_NODE)
        plain = answer["card"]
        processes = tuple(CardUser(**row) for row in plain["processes"])
        found.append((card, CardInfo(**{**plain, "target": get_target(plain["target"]), "processes": processes})))
    if not found:
        raise ClusterError(f"no card of {target} can be used: {'; '.join(lost)}")
    _check_alike(found, target)
    return found


_WRONG_NODE = "start the node without that resource, or on the machine with its card"


def _check_alike(found: Sequence[tuple[RayCard, CardInfo]], target: Target) -> None:
    first, one = found[0]
    for card, info in found:
        if info.target != target:
            raise UsageError(f"node {card.name} offers arch:{target}, but its card is {info.target}", hint=_WRONG_NODE)
        if (info.name, info.driver, info.memory) != (one.name, one.driver, one.memory):
            raise UsageError(
                f"a record is of one kind of card and one driver: node {first.name} has {one.name}, driver "
                f"{one.driver}, {one.memory >> 20} MiB, node {card.name} {info.name}, driver {info.driver}, "
                f"{info.memory >> 20} MiB",
                hint="offer the resource on nodes of one kind at a time",
            )


class RayCard:
    """A card of a node."""

    def __init__(self, cluster: Cluster, node: Node, name: str, target: Target, cache: BuildCache) -> None:
        self._cluster, self.name, self._target, self._cache = cluster, name, target.name, cache
        gpus = {"num_gpus": 1} if node.gpus else {}
        resources = {f"arch:{target}": 1}
        kind = cluster.actor(CardNode, node, {"any_card": not node.gpus}, num_cpus=0, resources=resources, **gpus)
        self._actor = kind
        self._stopped = False

    def describe(self, provider: str) -> Any:
        """Ask for versions and card; `get` has the answer."""
        return self._actor.describe.remote(provider, self._target)

    def get(self, call: Any, seconds: float | None = None) -> Any:
        """Wait for the answer to a call.

        Raises:
            LostError: The node is gone, or does not answer in this time.
        """
        import ray
        from ray.exceptions import GetTimeoutError, RayError, RayTaskError

        try:
            return ray.get(call, timeout=seconds)
        except GetTimeoutError:
            why = f"it did not take the work in {seconds:g} s; its card may be in use by another tuning"
            raise LostError(f"node {self.name}: {why}") from None
        except RayTaskError:
            raise  # a fault of ours
        except RayError as error:
            why = "measuring was stopped" if self._stopped else reason(error)
            raise LostError(f"node {self.name}: {why}") from None

    def start(self) -> RayProcess:
        """Start a measuring process on the node."""
        if self._stopped:
            raise LostError("measuring was stopped")
        self.get(self._actor.start.remote(MODULE, VARIABLES, START_SECONDS), START_SECONDS)
        return RayProcess(self, self._actor)

    def plan(self, kernels: list[PlannedKernel]) -> str:
        """Write the plan on the node, and the cubins that it lacks."""
        rows = (row for kernel in kernels for row in kernel.binaries.values())
        wanted = sorted({row.cubin for row in rows if not isinstance(row, str)})
        lacking = self.get(self._actor.lacks.remote(wanted))
        cubins = {sha256: self._cache.cubin(sha256) for sha256 in lacking}
        return str(self.get(self._actor.plan.remote(kernels, cubins)))

    def close(self) -> Any:
        """Ask the node to end everything."""
        return self._actor.close.remote()

    def stop(self) -> None:
        """Kill the process, now."""
        self._stopped = True
        self._cluster.kill(self._actor)


class RayProcess:
    """A measuring process on a node."""

    def __init__(self, card: RayCard, actor: Any) -> None:
        self._card, self._actor = card, actor
        self.silence: float | None = START_SECONDS

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        self._card.get(self._actor.send.remote(dict(message)))

    def receive(self) -> dict[str, Any]:
        """Wait for the next message."""
        answer = self._card.get(self._actor.receive.remote(self.silence))
        if "ended" in answer:
            raise EndedError(answer["ended"], answer["note"])
        message: dict[str, Any] = answer["message"]
        return message

    def end(self, *, at_once: bool) -> None:
        """End it; where the node is gone, it has ended."""
        with contextlib.suppress(LostError):
            self._card.get(self._actor.end.remote(at_once=at_once))

"""More fetches at once, and more that are killed, than after every change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.test_hub_many import fetch_at_once, kill_fetches

if TYPE_CHECKING:
    from registry.loopback import LoopbackHub
    from registry.machines import Machine
    from registry.making import Published


def test_fetchers_at_once(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    fetch_at_once(16, hub, machine, repo, published)


def test_killed_at_any_moment(hub: LoopbackHub, machine: Machine, repo: str, published: Published) -> None:
    kill_fetches(50, hub, machine, repo, published)

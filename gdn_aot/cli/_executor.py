"""From ``--executor`` and ``--address`` to where the work is done."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from gdn_aot.cli._output import note
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from gdn_aot.compiling.executor import Executor
    from gdn_aot.machine.card import CardInfo
    from gdn_aot.measuring.cards import Cards
    from gdn_aot.measuring.plan import TuneTask


def check(name: str, address: str | None) -> None:
    """Check that the options fit together.

    Raises:
        UsageError: They do not.
    """
    if name == "local" and address is not None:
        raise UsageError("--address is of --executor ray", hint=f"--executor ray --address {address}")
    if name == "ray" and click.get_current_context().get_parameter_source("jobs") is ParameterSource.COMMANDLINE:
        raise UsageError(
            "--jobs is of --executor local: on a cluster each node compiles on all CPUs that it offers",
            hint="leave --jobs out, and start nodes with ray start --num-cpus N",
        )


@contextlib.contextmanager
def executor(name: str, address: str | None) -> Iterator[Executor]:
    """Return where ``--executor`` and ``--address`` say to work; what it has started ends with the block.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        ClusterError: The cluster does not answer.
    """
    check(name, address)
    if name == "local":
        from gdn_aot.compiling.executor import LocalExecutor

        yield LocalExecutor()
        return
    from gdn_aot.compiling.cluster import RayExecutor

    with RayExecutor(address or os.environ.get("RAY_ADDRESS") or "auto", note) as found:
        note(f"working on {found.describe()}")
        yield found


def cards(work: Executor, card: CardInfo | None, task: TuneTask) -> AbstractContextManager[Cards]:
    """Return what is measured on: the card of this machine, or without one all of the target's on the cluster."""
    if card is not None:
        from gdn_aot.measuring.cards import this_card

        return this_card(card, task.job.cache)
    from gdn_aot.compiling.cluster import RayExecutor
    from gdn_aot.measuring.cluster import find_cards

    assert isinstance(work, RayExecutor)  # noqa: S101
    return find_cards(work.cluster, task.method, task.job.cache, task.target, note)

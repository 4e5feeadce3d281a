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

    from gdn_aot.executors.base import Executor
    from gdn_aot.machine.card import CardInfo


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
def executor(name: str, address: str | None, card: CardInfo | None = None) -> Iterator[Executor]:
    """Return where to work; what it has started ends with the block.

    Args:
        name: ``local`` or ``ray``.
        address: Of the cluster, or None for ``$RAY_ADDRESS`` or the one that this machine is a node of.
        card: The card of this machine, if something is to be measured on it.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        ClusterError: The cluster does not answer.
    """
    check(name, address)
    if name == "local":
        from gdn_aot.executors.local import LocalExecutor

        yield LocalExecutor(card)
        return
    from gdn_aot.executors.ray import RayExecutor

    with RayExecutor(address or os.environ.get("RAY_ADDRESS") or "auto", note) as found:
        note(f"working on {found.describe()}")
        yield found

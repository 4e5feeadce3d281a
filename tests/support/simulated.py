"""A card that is not there: launches of the gated norm are computed with PyTorch, times follow a formula.

The worker finds it by name (``simulated:Card``). What misbehaves, and how, comes with its options.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gdn_aot.catalogue.targets import Target, get_target
from gdn_aot.machine.card import CardInfo
from gdn_aot.store.index_records import BinaryRecord
from gdn_aot.tracing import stub
from gdn_aot.triton_internals import make_source

INFO = CardInfo(
    name="Simulated 90", driver="1.2.3", target=get_target("sm_90"), memory=1 << 30, utilization=0, processes=()
)
"""What `gdn_aot.machine.card` would say of it."""
KERNEL = "layer_norm_gated_fwd_kernel"
BEST = (32, 4)
"""BT and warps of the configuration that the formula makes the fastest from 512 tokens on; below it is the largest."""


def microseconds(block: int, warps: int, tokens: int) -> float:
    """Return the time of a configuration: a start, and work that the best one does in the fewest steps."""
    if tokens < 512:
        return 3.0 + 0.2 * (64 - block) / 64 + 0.1 * (warps != 16)
    return 3.0 + tokens / 256 * (1 + 0.3 * abs(block - BEST[0]) / 32 + 0.2 * abs(warps - BEST[1]) / 4)


class Card:
    """Args:
    target: What the process pretends to have.
    faults: ``{"config": "BT=16 num_warps=8", "do": ...}`` with one of ``crash``, ``exit``, ``hang``, ``refuse``,
        ``memory``, ``full``, ``wrong``, ``nan``, ``unwritten``; ``when`` may be ``timed``, ``tokens`` those of a call.
    state: A file in which each launch leaves a line, if given.
    delay: Seconds that each timing takes.
    crash_when_waiting_at: Tokens of a call after whose timing the process dies when it waits for the device.
    all_wrong: Every configuration computes the same wrong result.
    """

    device = "cpu"

    def __init__(
        self,
        target: str,
        faults: Sequence[Mapping[str, Any]] = (),
        state: str = "",
        delay: float = 0.0,
        crash_when_waiting_at: int = 0,
        all_wrong: bool = False,
    ) -> None:
        stub.activate(get_target(target))
        self._faults = {fault["config"]: fault for fault in faults}
        self._state, self._delay = state, delay
        self._crash_at, self._all_wrong = crash_when_waiting_at, all_wrong
        self._seen: tuple[int, int, int] = (0, 0, 0)
        self._timing = self._timed = False

    def become(self, target: Target) -> None:
        stub.activate(target)

    def describe(self) -> dict[str, Any]:
        return {"name": INFO.name, "sm_count": 7, "memory": 1 << 30, "l2": 1 << 20}

    def load(self, jit: Any, record: BinaryRecord, code: bytes) -> Callable[..., None]:
        assert code[:4] == b"\x7fELF"
        assert jit.fn.__name__ == KERNEL
        assert make_source(jit, record.specialization).signature, "what Triton's own launcher is made of"
        warps = record.metadata["num_warps"]

        def launch(grid: tuple[int, int, int], arguments: Mapping[str, Any]) -> None:
            assert grid == (-(-arguments["T"] // arguments["BT"]), 1, 1)
            self._seen = (arguments["BT"], warps, arguments["T"])
            self._timed = False
            name = f"BT={arguments['BT']} num_warps={warps}"
            if self._state:
                with Path(self._state).open("a") as file:
                    file.write(name + "\n")
            compute(arguments, self._fault(name) or ("wrong" if self._all_wrong else ""))

        return launch

    def _fault(self, name: str) -> str:
        fault = self._faults.get(name)
        if fault is None or (fault.get("when") == "timed" and not self._timing):
            return ""
        if fault.get("tokens", self._seen[2] // 4) != self._seen[2] // 4:
            return ""
        misbehave(fault["do"])
        return fault["do"]

    def synchronize(self) -> None:
        if self._crash_at and self._seen[2] // 4 == self._crash_at and not self._timing and self._timed:
            misbehave("crash")  # after the last launch of the call: no candidate is to blame

    def time(
        self, launches: Sequence[Callable[[], None]], before: Callable[[], None], rounds: int
    ) -> list[list[float]]:
        time.sleep(self._delay)
        self._timing = True
        times = []
        try:
            for launch in launches:
                before()
                launch()
                block, warps, rows = self._seen
                exact = microseconds(block, warps, rows // 4)
                times.append([exact * (1 + 0.002 * (number % 3)) for number in range(rounds)])
        finally:
            self._timing, self._timed = False, True
        return times


def misbehave(what: str) -> None:
    match what:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "refuse":
            raise RuntimeError("Triton Error [CUDA]: out of resources")
        case "memory":
            raise torch.OutOfMemoryError("no memory left for this\nand more")
        case "full":
            raise RuntimeError("Triton Error [CUDA]: out of memory")


def compute(a: Mapping[str, Any], fault: str) -> None:
    """Write what the kernel writes: y and the reciprocal of the norm."""
    x = a["x"].float()
    rstd = (x.square().mean(-1) + a["eps"]).rsqrt()
    gate = a["g"].float()
    y = x * rstd[:, None] * a["w"].float() * gate.sigmoid() * (1 if a["ACTIVATION"] == "sigmoid" else gate)
    if fault == "wrong":
        y = y * 1.05
    if fault == "nan":
        y[3, 3] = float("nan")
    if fault == "unwritten":
        a["y"][:-1].copy_(y[:-1])
    else:
        a["y"].copy_(y)
    a["rstd"].copy_(rstd)

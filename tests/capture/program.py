"""What tests record: kernels launched under a driver that launches nothing, in one process or several."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "triton_versions")]


def start() -> None:
    import launching

    launching.start("sm_90")


def add(odd: int = 3, absent: object = None) -> None:
    """Launch a kernel that is not autotuned; even values of ``odd`` are another launch key."""
    import kernels
    import torch

    x = torch.zeros(64)
    kernels.every[(1,)](
        x, x, 1, 32, odd, 1 << 40, 0.5, None, 7, 5, BLOCK=16, NAME="relu", FLAG=True, KIND=kernels.tl.float16,
        ABSENT=absent, RATIO=0.25,
    )  # fmt: skip


class Private:
    """A constant that says of itself what no capture may say."""

    def __repr__(self) -> str:
        return f"<Private of /home/me/secret at {id(self):#x}>"


def keep_secrets() -> None:
    add()
    for absent in (Private(), "/home/me/secret", "s" * 5000):
        with contextlib.suppress(Exception):  # whether it compiles is not asked
            add(absent=absent)


def tune(n: int = 64) -> None:
    import kernels
    import torch

    kernels.tuned._do_bench = lambda call, **_: (call(), [1.0, 1.0, 1.0])[1]
    x = torch.zeros(64)
    kernels.tuned[(1,)](x, None, x, n, True)


def child(odd: int) -> None:
    start()
    add(odd)


def fork() -> None:
    """Launch the same in a process and its child, and more in the child."""
    start()
    add()
    pid = os.fork()
    if not pid:
        add(16)
        tune()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    add()


def tell_signals() -> None:
    """Print which signals come, up to a second after the first."""
    got: list[str] = []
    for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
        signal.signal(getattr(signal, name), lambda number, _frame: got.append(signal.Signals(number).name))
    Path(sys.argv[2]).touch()
    while not got:
        time.sleep(0.05)
    time.sleep(1)
    print(*got)


def main(mode: str) -> None:  # noqa: C901 - a table
    match mode:
        case "one":
            start()
            add()
            tune()
        case "spawn":
            worker = multiprocessing.get_context("spawn").Process(target=child, args=(16,))
            worker.start()
            start()
            add()
            worker.join()
            assert worker.exitcode == 0
        case "fork":
            fork()
        case "killed":
            pid = os.fork()
            if not pid:
                start()
                add(16)
                os.kill(os.getpid(), signal.SIGKILL)
            assert os.waitpid(pid, 0)[1] == signal.SIGKILL
            start()
            add()
            os._exit(7)
        case "subprocess":
            subprocess.run([sys.executable, __file__, "one"], check=True)
        case "private":
            start()
            keep_secrets()
        case "nothing":
            pass
        case "wait":
            start()
            add()
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
            Path(sys.argv[2]).touch()
            time.sleep(60)
        case "signals":
            start()
            add()
            tell_signals()


if __name__ == "__main__":
    main(sys.argv[1])

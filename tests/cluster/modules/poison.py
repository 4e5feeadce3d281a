"""Importing this kills the process of Ray that has it compiled: the parent of the zygote of the worker of this one."""

import os
import signal
from pathlib import Path


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


os.kill(parent(parent(os.getppid())), signal.SIGKILL)
signal.pause()  # until those that it started are gone, too: nothing is answered

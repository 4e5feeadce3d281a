"""Importing this kills the actor that has it compiled: the parent's parent of the compile worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


os.kill(parent(os.getppid()), signal.SIGKILL)

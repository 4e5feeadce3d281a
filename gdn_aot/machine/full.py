"""Whether a call failed for want of memory on the device."""

from __future__ import annotations

import re

_FULL = re.compile(r"out of memory|_STATUS_ALLOC_FAILED")


def lacks_memory(error: BaseException) -> bool:
    """Say whether a call failed because the card was full: PyTorch, the driver, Triton, cuBLAS or cuDNN says so."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or bool(_FULL.search(str(error)))

"""What FLA has to be told where tensors are on no device: under the stub driver, and under the stand-in of the tests.

Its backward passes ask for the shared memory of a tensor's device (``check_shared_mem(arch, k.device.index)``) and take
larger blocks where there is enough. The index of a tensor on the CPU is None, for which the answer is no.
"""

from __future__ import annotations

import inspect

from fla.utils import check_shared_mem


class _OfEachDevice(list[int]):
    """Bytes of shared memory by the index of a device; None stands for the current one, which is the first."""

    def __getitem__(self, index: int | None) -> int:  # type: ignore[override]
        return super().__getitem__(index or 0)


def answer_for_tensors_on_no_device() -> None:
    """Have FLA take the stand-in's device for that of every tensor. Does nothing a second time."""
    scope = inspect.unwrap(check_shared_mem).__globals__
    own = scope["get_all_max_shared_mem"]
    if getattr(own, "answers", False):
        return

    def answer() -> list[int]:
        return _OfEachDevice(own())

    answer.answers = True  # type: ignore[attr-defined]
    scope["get_all_max_shared_mem"] = answer
    getattr(check_shared_mem, "cache_clear", lambda: None)()

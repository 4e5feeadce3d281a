"""Skip tests marked ``gpu`` where there is no CUDA device; torch is imported only if one is selected."""

from __future__ import annotations

import pytest

pytest_plugins = ["builds"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))

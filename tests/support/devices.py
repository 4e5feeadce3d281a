"""Processes that may serve several artifacts, on stand-ins of several devices."""

import os
from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import python
from launching import PRELUDE

CODE = """
def own():
    served = gdn_aot.serving.loader.state().kernels
    return {name: {str(key): str(config) for key, config in kernel.tuner.cache.items()}
        for name, kernel in served.items() if kernel.tuner}
def devices():
    return sorted({device for device, _, _ in gdn_aot.serving.loader.state().modules})
def norm():
    import torch
    from fla.modules.norm.l2norm import l2norm
    return l2norm(torch.empty(1, 128, 16, 128, dtype=torch.bfloat16))
"""


@pytest.fixture
def together(tmp_path: Path) -> Any:
    """Run code in a process of its own that may serve several artifacts."""

    def together(code: str, *built: Built) -> Any:
        folder = tmp_path / "artifacts"
        folder.mkdir(exist_ok=True)
        for one in built:
            os.link(one.path, folder / one.path.name)
        extra = {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
        return python(PRELUDE + CODE + code, folder, home=tmp_path / "home", extra=extra)

    return together


def nothing_was_made(got: Any) -> bool:
    return (got["compiled"], got["benchmarked"], got["report"]["misses"]) == ([], 0, [])

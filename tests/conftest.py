"""Leave out what this machine cannot run: tests marked ``gpu`` without a CUDA device, ``hub`` without a repository."""

import contextlib
import os

import pytest

pytest_plugins = ["builds", "commands", "tuning_tasks"]

with contextlib.suppress(ModuleNotFoundError):  # a machine with a GPU may lack it
    from hypothesis import settings

    settings.register_profile("here", deadline=None)  # an example may take long on a loaded machine
    settings.load_profile("here")

REAL_HUB = ("HF_TOKEN_FOR_TESTS", "GDN_AOT_TEST_REPO")
"""Variables that tests marked ``hub`` need; see ``tests/registry/test_hub_real.py``."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not all(map(os.environ.get, REAL_HUB)):
        deselected = [item for item in items if item.get_closest_marker("hub")]
        items[:] = [item for item in items if not item.get_closest_marker("hub")]
        config.hook.pytest_deselected(items=deselected)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    # torch is imported only if one is selected.
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))

"""A folder for each provider: its functions as workloads, its kernel modules. Nothing else names these."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, cast

from gdn_aot.catalogue.providers import get_provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.catalogue.models import Model, ModelShape
    from gdn_aot.providers.workload import ProviderModule, Workload


def module_name(provider: str) -> str:
    """Return the module of ours that knows a provider's functions; to be imported where its device is answered for."""
    return f"{__name__}.{provider}.workloads"


def load(provider: str) -> ProviderModule:
    """Import the module of ours that knows a provider's functions, and with it the provider.

    Raises:
        ImportError: The provider, or something that it needs, is not installed.
    """
    name = module_name(provider)
    return cast("ProviderModule", sys.modules.get(name) or importlib.import_module(name))


def lacking(module: ProviderModule, shape: ModelShape) -> str:
    """Return why the installed version of a provider makes no call for a model, or nothing if it does."""
    lacks: Callable[[ModelShape], str] | None = getattr(module, "lacks", None)
    return lacks(shape) if lacks else ""


def makes(provider: str, workload: Workload, shape: ModelShape) -> bool:
    """Say whether a model makes calls of a provider's workload; none is asked for of a model that does not.

    The provider's row in `gdn_aot.catalogue.providers` says of which families they are, the workload of which models.
    """
    return shape.family in get_provider(provider).families_of([workload.name]) and workload.applies(shape)


def builds(provider: str, model: Model, version: str, capability: tuple[int, int]) -> bool:
    """Say whether a build takes a model of the catalogue, for a release of an engine that need not be installed.

    Nothing of the engine is imported. ``capability`` is that of the target.
    """
    engine = importlib.import_module(f"{__name__}.{provider}.engine")
    return bool(engine.builds(model, version, capability))


def uncovered(provider: str) -> tuple[tuple[str, str], ...]:
    """Return calls of a provider's functions that no workload covers, each with what of its kind is; often none."""
    name = f"{__name__}.{provider}.uncovered"
    if importlib.util.find_spec(name) is None:
        return ()
    return cast("tuple[tuple[str, str], ...]", importlib.import_module(name).UNCOVERED)

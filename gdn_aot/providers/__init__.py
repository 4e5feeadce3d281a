"""A folder for each provider: its functions as workloads, its kernel modules. Nothing else names these."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from gdn_aot.providers.workload import ProviderModule


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

"""The providers: installed packages whose GDN kernels are built.

To add one: write a module like `gdn_aot.providers.fla`, and add a row here.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from gdn_aot.errors import ProviderMissingError, UsageError
from gdn_aot.providers.base import Call, Limits, ProviderInfo, ProviderVersion, Workload

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PROVIDERS",
    "Call",
    "Limits",
    "ProviderInfo",
    "ProviderVersion",
    "Workload",
    "build_command",
    "get_provider",
    "installed_version",
    "require_installed",
]

PROVIDERS: Mapping[str, ProviderInfo] = {
    "fla": ProviderInfo(
        name="fla",
        distribution="fla-core",
        license="MIT",
        package="fla",
        module="gdn_aot.providers.fla",
        install="pip install 'gdn-aot[fla]'",
        workloads=(
            ("transformers-prefill", "inference"),
            ("transformers-decode", "inference"),
            ("layer-prefill", "inference"),
            ("layer-recurrent", "inference"),
            ("small-chunks", "inference"),
            ("gated-norm", "inference"),
            ("short-conv", "inference"),
            ("transformers-train", "train"),
            ("layer-train", "train"),
            ("gated-norm-train", "train"),
            ("short-conv-train", "train"),
        ),
        versions=(
            ProviderVersion(version="0.6.0", status="reference", note="every test"),
            ProviderVersion(version="0.5.2", status="tested", note="traced and compiled for one target"),
            ProviderVersion(version="0.5.1", status="tested", note="traced and compiled for one target"),
            ProviderVersion(
                version="0.5.0",
                status="tested",
                note="traced and compiled for one target; no beta sigmoid in the operator",
            ),
            ProviderVersion(
                version="0.4.2",
                status="tested",
                note="traced and compiled for one target; key heads repeated to value heads, no gate in kernel",
            ),
        ),
    ),
    "vllm": ProviderInfo(
        name="vllm",
        distribution="vllm",
        license="Apache-2.0",
        package="vllm",
        module="gdn_aot.providers.vllm",
        install="pip install vllm, or what docs/how-to/vllm.md says for a machine without a GPU",
        paged=True,
        catalogue_only=(
            "a shape does not say which layer of vLLM runs the model, nor the attention heads that size its cache pages"
        ),
        serve="vllm serve MODEL",
        workloads=(
            ("prefill", "inference"),
            ("decode", "inference"),
            ("mixed", "inference"),
            ("speculative", "inference"),
            ("gated-norm", "inference"),
        ),
        versions=(
            ProviderVersion(
                version="0.24.0",
                status="reference",
                note="every test; Triton 3.6.0",
                triton="3.6.0",
                absent=("sm_70",),
                source="its wheel asks for torch 2.11.0, which asks for triton 3.6.0; cuobjdump: code from sm_75 on",
            ),
            ProviderVersion(
                version="0.33.0",
                status="tested",
                note="traced, compiled and covered for one target; Triton 3.8.0; drafts by its Triton kernels",
                triton="3.8.0",
                python="3.11",
                absent=("sm_70",),
                source="its wheel asks for torch 2.14.0, which asks for triton ~=3.8.0; cuobjdump: code from sm_75 on",
            ),
            ProviderVersion(
                version="0.20.2",
                status="tested",
                note="traced, compiled and covered for one target; Triton 3.6.0",
                triton="3.6.0",
                source="its wheel asks for torch 2.11.0, which asks for triton 3.6.0",
            ),
            ProviderVersion(
                version="0.19.1",
                status="tested",
                note="traced, compiled and covered for one target; Triton 3.6.0",
                triton="3.6.0",
                source="its wheel asks for torch 2.10.0, which asks for triton 3.6.0",
            ),
            ProviderVersion(
                version="0.17.1",
                status="tested",
                note="traced, compiled and covered for one target; Triton 3.6.0; no OLMo-Hybrid",
                triton="3.6.0",
                source="its wheel asks for torch 2.10.0, which asks for triton 3.6.0",
            ),
        ),
    ),
}


def get_provider(name: str) -> ProviderInfo:
    """Return the provider called ``name``.

    Raises:
        UsageError: There is none; the hint suggests a close name.
    """
    if name in PROVIDERS:
        return PROVIDERS[name]
    close = difflib.get_close_matches(name, PROVIDERS, n=1)
    known = ", ".join(PROVIDERS)
    raise UsageError(
        f"unknown provider {name!r}; known: {known}",
        hint=f"did you mean {close[0]}?" if close else "see gdn-aot providers",
    )


def installed_version(name: str) -> str | None:
    """Return the installed version of a provider's distribution, or None. Imports nothing of it."""
    import importlib.metadata  # slow to import, and not needed for the table

    try:
        return importlib.metadata.version(get_provider(name).distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_installed(name: str) -> str:
    """Return the installed version of a provider.

    Raises:
        ProviderMissingError: It is not installed.
    """
    provider = get_provider(name)
    version = installed_version(name)
    if version is None:
        raise ProviderMissingError(
            f"provider {name} needs the distribution {provider.distribution}, which is not installed here",
            hint=provider.install,
        )
    return version


def build_command(provider: str, target: str) -> str:
    """Return the command that builds an artifact, to be shown as advice; the model's name is left to its reader.

    Args:
        provider: Its name; what is none becomes a placeholder.
        target: Its name; what is none becomes a placeholder.
    """
    arch = target if target.startswith("sm_") else "TARGET"
    return f"gdn-aot build --arch {arch} --provider {provider if provider in PROVIDERS else 'PROVIDER'} --model NAME"

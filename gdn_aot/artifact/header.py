"""The header of an index: what identifies an artifact and says whether it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.catalogue.providers import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping


def header_of(manifest: Mapping[str, Any], sha256: str, manifest_sha256: str) -> dict[str, Any]:
    """Return the header of an index from a manifest as plain JSON."""
    kernels, target, provider = manifest["kernels"], manifest["target"], manifest["provider"]
    info = PROVIDERS[provider["name"]]
    return {
        "identifier": manifest["identifier"],
        "sha256": sha256,
        "manifest_sha256": manifest_sha256,
        "target": target["name"],
        "capability": target["capability"],
        "provider": provider["name"],
        "distribution": provider["distribution"],
        "version": provider["version"],
        "triton": manifest["triton"]["version"],
        "workloads": manifest["workloads"],
        "models": manifest["models"],
        "max_tokens": manifest["max_tokens"],
        "max_batch": manifest["max_batch"],
        "modules": sorted({kernel["module"] for kernel in kernels}),
        "packages": [info.package],
        **({"card": manifest["deployment"]["card"]} if manifest.get("deployment") else {}),
        **({"copy": True} if provider["distribution"] != info.distribution else {}),
        "kernels": len(kernels),
        "choices": sum(len(kernel["choices"]) for kernel in kernels),
        "binaries": sum(len(kernel["binaries"]) for kernel in kernels),
        "dirty": manifest["build"]["dirty"],
        **({"placed": len(manifest["placed"])} if manifest.get("placed") else {}),
        **({"compile_cache": len(manifest["compile_cache"]["files"])} if manifest.get("compile_cache") else {}),
    }

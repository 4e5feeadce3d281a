"""Writing an index; see `gdn_aot.artifact.index`."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from gdn_aot.artifact.index import FIXED, MAGIC, ROW, binary_name, digest, record_name
from gdn_aot.artifact.index_records import BinaryRecord, ChoiceRecord, ConfigRecord, KernelRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.artifact.manifest import Binary, Choice, Kernel, Manifest


def write_index(manifest: Manifest, sha256: str) -> bytes:
    """Return the bytes of an artifact's index.

    Args:
        manifest: The artifact's manifest.
        sha256: Of the artifact file.
    """
    records: dict[bytes, bytes] = {}
    models: list[dict[str, list[tuple[str, Sequence[int]]]]] = [{} for _ in manifest.models]
    for kernel in manifest.kernels:
        name = f"{kernel.module}:{kernel.qualname}"
        records[record_name("choices", name)] = _dump([_choice(choice) for choice in kernel.choices])
        for binary in kernel.binaries:
            key = binary_name(name, binary.launch_key)
            records[key] = _dump(_binary(binary))
            for model in binary.models:
                models[model].setdefault(name, []).append((key.hex(), binary.workloads))
    for number, wanted in enumerate(models):
        records[record_name("model", str(number))] = _dump(wanted)
    records[record_name("blobs")] = _dump([(blob.sha256, blob.size) for blob in manifest.blobs])
    records[record_name("kernels")] = _dump([_kernel(kernel) for kernel in manifest.kernels])
    header = _dump(_header(manifest, sha256))
    rows, body, offset = [], [], 0
    for key in sorted(records):
        record = records[key]
        rows.append(ROW.pack(key, offset, len(record), digest(record)))
        body.append(record)
        offset += len(record)
    table = b"".join(rows)
    fixed = FIXED.pack(MAGIC, len(header), len(rows), hashlib.sha256(header).digest(), hashlib.sha256(table).digest())
    return b"".join([fixed, header, table, *body])


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _header(manifest: Manifest, sha256: str) -> dict[str, object]:
    return {
        "identifier": manifest.identifier,
        "sha256": sha256,
        "target": manifest.target.name,
        "capability": manifest.target.capability,
        "provider": manifest.provider.name,
        "distribution": manifest.provider.distribution,
        "version": manifest.provider.version,
        "triton": manifest.triton.version,
        "workloads": manifest.workloads,
        "models": [
            {
                "name": model.name,
                "tp": model.tp,
                "heads": model.heads,
                "v_heads": model.v_heads,
                "k_dim": model.k_dim,
                "v_dim": model.v_dim,
                "conv_width": model.conv_width,
                "dtype": model.dtype,
            }
            for model in manifest.models
        ],
        "modules": sorted({kernel.module for kernel in manifest.kernels}),
        "kernels": len(manifest.kernels),
        "choices": sum(len(kernel.choices) for kernel in manifest.kernels),
        "binaries": sum(len(kernel.binaries) for kernel in manifest.kernels),
        "dirty": manifest.build.dirty,
    }


def _kernel(kernel: Kernel) -> KernelRecord:
    return KernelRecord(
        kernel.module,
        kernel.qualname,
        kernel.source_sha256,
        [(source.path, source.sha256) for source in kernel.sources],
        [(needed.name, needed.module, needed.qualname, needed.source_sha256) for needed in kernel.dependencies],
        [(used.name, used.value) for used in kernel.globals],
    )


def _choice(choice: Choice) -> ChoiceRecord:
    config = choice.config
    return ChoiceRecord(
        choice.key,
        ConfigRecord(dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg),
        choice.provenance,
    )


def _binary(binary: Binary) -> BinaryRecord:
    specialization = {
        "signature": dict(binary.specialization.signature),
        "constants": binary.specialization.constants,
        "attributes": binary.specialization.attributes,
        "options": dict(binary.specialization.options),
    }
    return BinaryRecord(binary.launch_key, binary.cubin, dict(binary.metadata), specialization)

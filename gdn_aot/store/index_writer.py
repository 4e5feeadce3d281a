"""Writing an index; see `gdn_aot.store.index`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gdn_aot.artifact.names import is_capture
from gdn_aot.store.index import FIXED, MAGIC, ROW, binary_name, digest, part_name, record_name
from gdn_aot.store.index_records import SPECIALIZATION, ChoiceRecord, ConfigRecord, KernelRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.artifact.manifest import Binary, Choice, Manifest
    from gdn_aot.launches import Kernel


def write_index(manifest: Manifest, sha256: str) -> bytes:
    """Return the bytes of an artifact's index.

    Args:
        manifest: The artifact's manifest.
        sha256: Of the artifact file.
    """
    records: dict[bytes, bytes] = {}
    parts = _Parts()
    models: list[dict[str, list[tuple[str, Sequence[int]]]]] = [{} for _ in manifest.models]
    captured: dict[str, list[tuple[str, Sequence[int]]]] = {}
    captures = {number for number, name in enumerate(manifest.workloads) if is_capture(name)}
    for kernel in manifest.kernels:
        name = kernel.name
        records[record_name("choices", name)] = _dump([_choice(choice) for choice in kernel.choices])
        for binary in kernel.binaries:
            key = binary_name(name, binary.launch_key)
            records[key] = _binary(binary, parts)
            for model in binary.models:
                models[model].setdefault(name, []).append((key.hex(), binary.workloads))
            if not captures.isdisjoint(binary.workloads):
                captured.setdefault(name, []).append((key.hex(), binary.workloads))
    for number, wanted in enumerate(models):
        records[record_name("model", str(number))] = _dump(wanted)
    if captured:
        records[record_name("captured")] = _dump(captured)
    records[record_name("blobs")] = _dump([(blob.sha256, blob.size) for blob in manifest.blobs])
    records[record_name("kernels")] = _dump([_kernel(kernel) for kernel in manifest.kernels])
    records |= {part_name(number): text for text, number in parts.numbers.items()}
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


class _Parts:
    """What binaries have in common, numbered in the order met."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        """By the text of their record."""
        self._known: dict[int, int] = {}
        """By the id of objects of the manifest: reading makes one object of what is the same."""

    def number(self, value: Mapping[str, object] | Sequence[object]) -> int:
        """Return the number of a value that the manifest holds."""
        number = self._known.get(id(value))
        if number is None:
            text = _dump(dict(value) if isinstance(value, Mapping) else value)
            number = self._known[id(value)] = self.numbers.setdefault(text, len(self.numbers))
        return number


_quote = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _dump(value: object) -> bytes:
    return _encode(value).encode("ascii")


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


def _kernel(kernel: Kernel) -> tuple[object, ...]:
    """Return the fields of a `KernelRecord`; without relaxations as they were before there were any."""
    record = KernelRecord(
        kernel.module,
        kernel.qualname,
        kernel.source_sha256,
        [(source.path, source.sha256) for source in kernel.sources],
        [(needed.name, needed.module, needed.qualname, needed.source_sha256) for needed in kernel.dependencies],
        [(used.name, used.value) for used in kernel.globals],
        [(relaxed.argument, relaxed.value) for relaxed in kernel.relaxations],
    )
    return tuple(record) if kernel.relaxations else tuple(record)[:-1]


def _choice(choice: Choice) -> ChoiceRecord:
    config = choice.config
    return ChoiceRecord(
        choice.key,
        ConfigRecord(dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg),
        choice.provenance,
    )


def _binary(binary: Binary, parts: _Parts) -> bytes:
    """Return the record that `Index` makes a `BinaryRecord` of. Written by hand: there are thousands."""
    shared = (binary.metadata, *(getattr(binary.specialization, field) for field in SPECIALIZATION))
    numbers = ",".join([str(parts.number(value)) for value in shared])
    return f"[{_quote(binary.launch_key)},{_quote(binary.cubin)},{numbers}]".encode("ascii")

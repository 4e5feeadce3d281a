"""Writing an index; see `gdn_aot.store.index`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from gdn_aot.artifact.header import header_of
from gdn_aot.artifact.names import is_single
from gdn_aot.store.index import BLOB, FIXED, FORMAT, MAGIC, ROW, binary_name, digest, part_name, record_name
from gdn_aot.store.index_records import CacheRecord, ChoiceRecord, ConfigRecord, KernelRecord, PlacedRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.artifact.manifest import Binary, Choice, CompileCache, Manifest
    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.launches import Kernel, SourceFile


def write_index(artifact: Artifact) -> bytes:
    """Return the bytes of an artifact's index, which follow from the artifact alone."""
    manifest = artifact.manifest
    records: dict[bytes, bytes] = {}
    parts = _Parts()
    models: list[dict[str, list[tuple[str, Sequence[int]]]]] = [{} for _ in manifest.models]
    captured: dict[str, list[tuple[str, Sequence[int]]]] = {}
    captures = {number for number, name in enumerate(manifest.workloads) if is_single(name)}
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
    records[record_name("blobs")] = _places(manifest)
    if manifest.not_covered:
        lacking = [(item.kernel, item.reason, len(item.keys)) for item in manifest.not_covered]
        records[record_name("not covered")] = _dump(lacking)
    if manifest.placed:
        records[record_name("placed")] = _dump(placed_records(manifest))
    if manifest.compile_cache:
        records[record_name("compile cache")] = _dump(_cache(manifest.compile_cache))
    records[record_name("kernels")] = _dump([_kernel(kernel) for kernel in manifest.kernels])
    records |= {part_name(number): text for text, number in parts.numbers.items()}
    header, table = _dump(_header(artifact)), b"".join(_rows(records))
    digests = hashlib.sha256(header).digest(), hashlib.sha256(table).digest()
    fixed = FIXED.pack(MAGIC, len(header), len(records), *digests)
    return b"".join([fixed, header, table, *(record for _, record in sorted(records.items()))])


def placed_records(manifest: Manifest) -> list[PlacedRecord]:
    """Return the files of a manifest that are put in place, as `Index.placed` does."""
    return [PlacedRecord(file.kind, file.name, _files(file.sources), file.blob) for file in manifest.placed]


def _cache(cache: CompileCache) -> CacheRecord:
    files = [(file.path, list(file.blobs)) for file in cache.files]
    return CacheRecord(cache.torch, cache.python, cache.card, list(cache.environment), files)


def index_roots(artifact: Artifact) -> dict[str, str]:
    """Return the digest of the first bytes of an artifact's index, by the format of the index in decimal digits.

    These bytes have the digests of everything that is read of an installed artifact: who signs this signs all of it.
    """
    return {str(FORMAT): hashlib.sha256(write_index(artifact)[: FIXED.size]).hexdigest()}


def _rows(records: dict[bytes, bytes]) -> Iterator[bytes]:
    offset = 0
    for key, record in sorted(records.items()):
        yield ROW.pack(key, offset, len(record), digest(record))
        offset += len(record)


class _Parts:
    """What binaries have in common, numbered from 1 in the order met."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        """By the text of their record."""
        self.known: dict[int, int] = {}
        """By the id of objects of the manifest: reading makes one object of what is the same."""

    def add(self, value: Mapping[str, object] | Sequence[object]) -> int:
        """Return the number of a value that was not met before."""
        text = _dump(dict(value) if isinstance(value, Mapping) else value)
        number = self.known[id(value)] = self.numbers.setdefault(text, len(self.numbers) + 1)
        return number


_dump = msgspec.json.encode


def _places(manifest: Manifest) -> bytes:
    """Return where each blob is in the pack: one after another, in the order of the manifest's table."""
    offset, rows = 0, []
    for blob in manifest.blobs:
        rows.append(BLOB.pack(bytes.fromhex(blob.sha256), offset, blob.size))
        offset += blob.size
    return b"".join(sorted(rows))


def _header(artifact: Artifact) -> dict[str, object]:
    manifest = artifact.manifest
    plain = msgspec.to_builtins(msgspec.structs.replace(manifest, kernels=()))
    kernels = [{"module": item.module, "choices": item.choices, "binaries": item.binaries} for item in manifest.kernels]
    return header_of({**plain, "kernels": kernels}, artifact.sha256, hashlib.sha256(artifact.manifest_json).hexdigest())


def _files(sources: Sequence[SourceFile]) -> list[tuple[str, str]]:
    return [(source.path, source.sha256) for source in sources]


def _kernel(kernel: Kernel) -> KernelRecord:
    return KernelRecord(
        kernel.module,
        kernel.qualname,
        kernel.source_sha256,
        _files(kernel.sources),
        [(needed.name, needed.module, needed.qualname, needed.source_sha256) for needed in kernel.dependencies],
        [(used.name, used.value) for used in kernel.globals],
        [relaxed.row for relaxed in kernel.relaxations],
    )


def _choice(choice: Choice) -> ChoiceRecord:
    config = choice.config
    return ChoiceRecord(
        choice.key,
        ConfigRecord(dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg),
        choice.provenance,
    )


def _binary(binary: Binary, parts: _Parts) -> bytes:
    """Return the record that `Index` makes a `BinaryRecord` of, with parts in the order of `SPECIALIZATION`."""
    spec, known = binary.specialization, parts.known
    shared = (binary.metadata, spec.signature, spec.constants, spec.attributes, spec.options)
    return _dump((binary.launch_key, binary.cubin, *[known.get(id(value)) or parts.add(value) for value in shared]))

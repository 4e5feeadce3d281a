"""``manifest.json``: writing a manifest, and reading untrusted bytes as one, without IO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import asdict

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.check import check_file
from gdn_aot.artifact.names import MAX_MANIFEST
from gdn_aot.codec import Form, collector_paused
from gdn_aot.launches import Specialization

if TYPE_CHECKING:
    from typing import Any


MAX_OBJECTS = 200_000
"""Braces in a manifest. One for every model has 12,000."""

FORM = Form(m.ManifestFile, "the manifest", format=m.FORMAT, limit=MAX_MANIFEST, objects=MAX_OBJECTS, check=check_file)

_PARTS = m.Parts.__struct_fields__


class _Table:
    """Numbers values by the JSON of each, in the order in which they come."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._numbers: dict[bytes, int] = {}
        self._known: dict[int, int] = {}
        """By the id of values that somebody else keeps: what was read is one object where it is the same."""

    def number(self, value: object) -> int:
        """Return the number of a value."""
        number = self._known.get(id(value))
        if number is None:
            number = self._numbers.setdefault(msgspec.json.encode(value), len(self.values))
            self._known[id(value)] = number
            if number == len(self.values):
                self.values.append(value)
        return number


def to_json(manifest: m.Manifest) -> bytes:
    """Return the bytes of ``manifest.json``: UTF-8, one line, keys in the order of the fields.

    Raises:
        ValueError: The manifest holds something that JSON cannot carry, or a blob that is not in its table.
    """
    blobs = {blob.sha256: number for number, blob in enumerate(manifest.blobs)}
    tables = {name: _Table() for name in _PARTS}

    def row(binary: m.Binary) -> m.BinaryRow:
        values = {**asdict(binary.specialization), **asdict(binary)}
        numbers = {name: table.number(values[name]) for name, table in tables.items()}
        if binary.cubin not in blobs:
            raise ValueError(f"cubin {binary.cubin} is not in the blob table")
        return m.BinaryRow(launch_key=binary.launch_key, **numbers, blob=blobs[binary.cubin])

    kernels = tuple(
        m.FileKernel(**{**asdict(kernel), "binaries": tuple(map(row, kernel.binaries))}) for kernel in manifest.kernels
    )
    parts: dict[str, Any] = {name: tuple(table.values) for name, table in tables.items()}
    return FORM.encode(m.ManifestFile(**{**asdict(manifest), "parts": m.Parts(**parts), "kernels": kernels}))


def load_manifest(data: bytes) -> m.Manifest:
    """Parse a manifest and check that it makes sense.

    Raises:
        UnknownFormatError: It is of another format version; nothing else was looked at.
        VerificationError: It is not a manifest, or its fields contradict each other; every problem has its path.
    """
    file = FORM.decode(data)
    with collector_paused():
        return _resolved(file)


def _resolved(file: m.ManifestFile) -> m.Manifest:
    parts = [getattr(file.parts, name) for name in _PARTS]
    signatures, constants, attributes, options, metadata, resources, models, workloads = parts

    def binary(row: m.BinaryRow) -> m.Binary:
        return m.Binary(
            launch_key=row.launch_key,
            specialization=Specialization(
                signature=signatures[row.signature],
                constants=constants[row.constants],
                attributes=attributes[row.attributes],
                options=options[row.options],
            ),
            metadata=metadata[row.metadata],
            resources=resources[row.resources],
            models=models[row.models],
            workloads=workloads[row.workloads],
            cubin=file.blobs[row.blob].sha256,
        )

    kernels = tuple(
        m.PackedKernel(**{**asdict(kernel), "binaries": tuple(map(binary, kernel.binaries))}) for kernel in file.kernels
    )
    head = asdict(file)
    del head["parts"]
    return m.Manifest(**{**head, "kernels": kernels})

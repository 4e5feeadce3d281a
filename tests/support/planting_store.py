"""Stores as others may leave them: owners, sockets, indexes whose digests are right and that say what is not so."""

import json
import os
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from gdn_aot.store import index
from gdn_aot.store.stored import StoredArtifact

OTHER = 54321
"""A user that nobody is."""


def bind(path: Path) -> None:
    """Put a socket at a path, which may be longer than an address can be."""
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path belong to somebody else, or us be somebody else if only root may do that."""
    if os.geteuid() == 0:
        os.chown(path, OTHER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)


def rewrite(place: Path, header: object, records: dict[bytes, bytes] | None = None) -> None:
    """Give an artifact another header, and other records if any, with digests that are right."""
    path = place / "index"
    good = path.read_bytes()
    magic, size, rows, _, table_digest = index.FIXED.unpack(good[: index.FIXED.size])
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    rest = good[index.FIXED.size + size :]
    if records:
        table, offset = b"", 0
        for name, record in sorted(records.items()):
            table += index.ROW.pack(name, offset, len(record), index.digest(record))
            offset += len(record)
        rest, rows, table_digest = table + b"".join(dict(sorted(records.items())).values()), len(records), b""
        table_digest = sha256(table).digest()
    path.write_bytes(index.FIXED.pack(magic, len(data), rows, sha256(data).digest(), table_digest) + data + rest)


def header_of(place: Path) -> dict[str, object]:
    return dict(StoredArtifact(str(place)).index.header)


BAD_HEADERS: dict[str, Callable[[dict[str, object]], object]] = {
    "a list": lambda header: [header],
    "deep": lambda _: b"[" * 200_000,
    "no json": lambda _: b"\xff",
    "a key missing": lambda header: {name: value for name, value in header.items() if name != "triton"},
    "a number for text": lambda header: {**header, "version": 6},
    "no capability": lambda header: {**header, "capability": ["9", "0"]},
    "three numbers": lambda header: {**header, "capability": [9, 0, 0]},
    "20,000 modules": lambda header: {**header, "modules": [f"fla.m{number}" for number in range(20_000)]},
    "modules that are none": lambda header: {**header, "modules": [["fla"]]},
    "4 MB": lambda header: {**header, "license": "x" * (4 << 20)},
}

"""Artifacts taken apart and put together again, with everything consistent or with one layer that is not."""

import copy
import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tarfile import GNU_FORMAT, TarInfo
from typing import Any

import factory
import msgspec
import zstandard

from gdn_aot.artifact import tar
from gdn_aot.artifact.archive import MANIFEST_NAME
from gdn_aot.artifact.manifest_json import FORM
from hostile import mutate

TRAILER = 47
"""Bytes behind the zstd frame."""
PARTS = ("signature", "constants", "attributes", "options", "metadata", "resources", "models", "workloads")
_FAST = zstandard.ZstdCompressor(level=1, write_checksum=True)


@dataclass(frozen=True)
class Original:
    """A sound artifact to change."""

    data: bytes
    manifest: dict[str, Any] = field(repr=False)
    """Its ``manifest.json``."""
    blobs: dict[str, bytes] = field(repr=False)

    @cached_property
    def content(self) -> bytes:
        """The tar inside."""
        return factory.unpack(self.data)

    @cached_property
    def expanded(self) -> dict[str, Any]:
        return expand(self.manifest)


def take_apart(data: bytes) -> Original:
    """Return a sound artifact, read by its layout alone."""
    content, at, members = factory.unpack(data), 0, {}
    while content[at : at + 1] != b"\0":
        header = content[at : at + tar.BLOCK]
        size = tar.content_size(header) or 0
        members[header[:100].rstrip(b"\0").decode()] = content[at + tar.BLOCK : at + tar.BLOCK + size]
        at += tar.member_size(size)
    manifest = json.loads(members.pop(MANIFEST_NAME))
    return Original(data, manifest, {name.removeprefix("blobs/"): held for name, held in members.items()})


def originals(real: Sequence[Path]) -> list[Original]:
    """Return the small artifact of the tests, and real ones."""
    return [take_apart(factory.pack(factory.members())), *(take_apart(path.read_bytes()) for path in real)]


def expand(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest whose binaries say themselves what they are, as objects."""
    value: dict[str, Any] = copy.deepcopy({**manifest})
    parts, blobs = value.pop("parts"), value.pop("blobs")
    for kernel in value["kernels"]:
        kernel["binaries"] = [
            {
                "launch_key": row[0],
                **{name: parts[name][number] for name, number in zip(PARTS, row[1:-1], strict=True)},
                "cubin": blobs[row[-1]]["sha256"],
            }
            for row in kernel["binaries"]
        ]
    return value


def fold(expanded: Mapping[str, Any], blobs: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the manifest of what `expand` gave, with its tables made anew."""
    value: dict[str, Any] = copy.deepcopy({**expanded})
    tables: dict[str, dict[str, tuple[int, Any]]] = {name: {} for name in PARTS}
    order = {item["blob"]: None for item in value["provider"]["license_files"]}
    order |= {binary["cubin"]: None for kernel in value["kernels"] for binary in kernel["binaries"]}
    numbers = {digest: number for number, digest in enumerate(order)}

    def row(binary: dict[str, Any]) -> list[Any]:
        places = []
        for name in PARTS:
            table = tables[name]
            places.append(table.setdefault(json.dumps(binary[name]), (len(table), binary[name]))[0])
        return [binary["launch_key"], *places, numbers[binary["cubin"]]]

    for kernel in value["kernels"]:
        kernel["binaries"] = [row(binary) for binary in kernel["binaries"]]
    kernels = value.pop("kernels")
    value["blobs"] = [{"sha256": digest, "size": len(blobs.get(digest, b""))} for digest in order]
    value["parts"] = {name: [held for _, held in table.values()] for name, table in tables.items()}
    value["kernels"] = kernels
    return value


def canonical(text: bytes) -> bytes:
    """Return the JSON of a manifest as we write it, or as it is where that cannot be."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text, type=FORM._record)) + b"\n"
    except (ValueError, RecursionError, OverflowError, TypeError):
        return text


def header(name: str, size: int, mtime: int = 0) -> bytes:
    """Return the header of a member; as other programs write it where we cannot."""
    try:
        found = tar.encode(name, size, mtime)
    except (ValueError, TypeError):
        found = b""
    if len(found) == tar.BLOCK:
        return found
    return TarInfo(name.replace("\0", "?")).tobuf(GNU_FORMAT, "utf-8", "surrogatepass")


def member(name: str, content: bytes, mtime: int = 0) -> bytes:
    return header(name, len(content), mtime) + content + bytes(tar.padding(len(content)))


def members(manifest: bytes, blobs: Mapping[str, bytes], table: Any, epoch: Any = 0) -> list[bytes]:
    """Return raw members: the manifest, then the blobs in the order of its table."""
    when = epoch if type(epoch) is int and 0 <= epoch <= 0o77777777777 else 0
    rows = table if isinstance(table, list) else []
    digests = [row.get("sha256") for row in rows if isinstance(row, dict)] or [*blobs]
    names = [digest for digest in digests if isinstance(digest, str)]
    return [
        member(MANIFEST_NAME, manifest, when),
        *(member(f"blobs/{name}", blobs.get(name, b""), when) for name in names),
    ]


def compress(content: bytes) -> bytes:
    return _FAST.compress(content)


def seal(parts: Sequence[bytes], end: bytes = tar.END) -> bytes:
    """Return a whole file of raw members."""
    return factory.wrap(compress(b"".join(parts) + end))


def assemble(manifest: Any, blobs: Mapping[str, bytes], text: bytes | None = None) -> bytes:
    """Return the artifact of a manifest, as JSON value and perhaps as text, and its blobs."""
    data = canonical(mutate.text_of(manifest)) if text is None else text
    plain = manifest if isinstance(manifest, dict) else {}
    build = plain.get("build")
    return seal(
        members(data, blobs, plain.get("blobs"), build.get("epoch") if isinstance(build, dict) else 0),
    )


def reframed(content: bytes, chosen: random.Random) -> bytes:  # noqa: PLR0911 - a table
    """Return content as other settings of zstd or another tool would have compressed it."""
    make = zstandard.ZstdCompressor
    match chosen.randrange(9):
        case 0:
            return make(level=chosen.choice((-5, 1, 9, 19)), write_checksum=True).compress(content)
        case 1:
            return make(write_checksum=False).compress(content)
        case 2:
            return make(write_checksum=True, write_content_size=False).compress(content)
        case 3:
            log = chosen.choice((10, 20, 23, 24, 27))
            settings = zstandard.ZstdCompressionParameters(window_log=log, write_checksum=True)
            stream = make(compression_params=settings).compressobj(size=len(content))
            return stream.compress(content) + stream.flush()
        case 4:
            at = chosen.randrange(len(content))
            return compress(content[:at]) + compress(content[at:])
        case 5:
            skipped = struct.pack("<II", 0x184D2A50 + chosen.randrange(16), 8) + bytes(8)
            return skipped + compress(content) if chosen.random() < 0.5 else compress(content) + skipped
        case 6:
            stream = make(write_checksum=True).compressobj(size=len(content))
            pieces = [content[at : at + 700] for at in range(0, len(content), 700)]
            flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
            return b"".join(stream.compress(piece) + stream.flush(flush) for piece in pieces) + stream.flush()
        case 7:
            frame = bytearray(compress(content))
            frame[chosen.randrange(4, 18)] = chosen.randrange(256)
            return bytes(frame)
        case _:
            stated = chosen.choice((1, len(content) - 1, len(content) + 1, 1 << 30, 1 << 40, (1 << 63) - 1))
            frame = compress(content)
            rest = frame[zstandard.frame_header_size(frame) :]
            return zstandard.FRAME_HEADER + b"\xc4\x50" + struct.pack("<Q", stated)[:8] + rest


Change = Callable[[Original, random.Random], bytes]

"""Small files that take much of whoever reads them, if he lets them."""

import copy
import random
import struct
from typing import Any

import factory
import zstandard

from gdn_aot.artifact import tar
from hostile.containers import Original, assemble, canonical, fold
from hostile.mutate import text_of


def changed(original: Original, chosen: random.Random) -> bytes:
    """Return an artifact that is small and says much."""
    kinds = (_free, _free, _rows, _strings, _zeros, _blobs, _models, _window, _sections, _sections, _keys, _wrong)
    return chosen.choice(kinds)(original, chosen)


def _free(original: Original, chosen: random.Random) -> bytes:
    """Much JSON where any is allowed: in metadata, options, constants."""
    value = copy.deepcopy(original.manifest)
    name = chosen.choice(("metadata", "options", "constants", "signature", "attributes"))
    count = chosen.choice((2_000, 60_000, 400_000))
    item = chosen.choice(('{"k%d":1.5}', "[%d]", '"\u4e00%d"', '{"a":{"b":[%d]}}', "%d"))
    many = ",".join(item % number for number in range(count))
    part = value["parts"][name]
    place = chosen.choice(("x", "target", "cluster_dims"))
    if isinstance(part[0], dict):
        part[0][place] = "@here@"
    else:
        part[0] = [[[0], "@here@"]]
    text = text_of(value).replace(b'"@here@"', f"[{many}]".encode())
    return assemble(value, original.blobs, canonical(text))


def _rows(original: Original, chosen: random.Random) -> bytes:
    """Many rows of one of the tables."""
    value = copy.deepcopy(original.expanded)
    kernel = next(kernel for kernel in value["kernels"] if kernel["binaries"])
    count = chosen.choice((1_000, 30_000))
    match chosen.randrange(4):
        case 0:
            kernel["binaries"] = [
                {**kernel["binaries"][0], "launch_key": f"k{number}"} for number in range(count // 10)
            ]
        case 1:
            value["kernels"] = [{**kernel, "qualname": f"k{number}"} for number in range(count // 10)]
        case 2:
            value["not_covered"] = [{"kernel": f"fla.x:k{number}", "reason": "", "keys": []} for number in range(count)]
        case _:
            kernel["globals"] = [{"name": f"N{number}", "value": "1"} for number in range(count)]
    return assemble(fold(value, original.blobs), original.blobs)


def _strings(original: Original, chosen: random.Random) -> bytes:
    value = copy.deepcopy(original.manifest)
    text = chosen.choice(("a", "\u4e00", "\U0001f600", "\\", "\x1b", "\0")) * chosen.choice((10_000, 2_000_000))
    inside: Any = chosen.choice((value, value["provider"], value["numerics"], value["kernels"][0], value["build"]))
    name = chosen.choice([name for name, held in inside.items() if isinstance(held, str)])
    inside[name] = text
    return assemble(value, original.blobs)


def _zeros(original: Original, chosen: random.Random) -> bytes:
    """Zeros behind the archive or in place of it: a file of kilobytes that unpacks to gigabytes."""
    size = chosen.choice((1 << 20, 200 << 20))
    content = original.content if chosen.random() < 0.5 else b""
    stream = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj(size=len(content) + size)
    chunk = bytes(1 << 20)
    parts = [stream.compress(content), *(stream.compress(chunk) for _ in range(size >> 20)), stream.flush()]
    return factory.wrap(b"".join(parts))


def _blobs(original: Original, chosen: random.Random) -> bytes:
    """Blobs of zeros that are there and are large."""
    value, held = copy.deepcopy(original.expanded), dict(original.blobs)
    binary = next(kernel for kernel in value["kernels"] if kernel["binaries"])["binaries"]
    each = chosen.choice((1 << 20, 16 << 20))
    count = chosen.choice((1, 10)) if each > 1 << 20 else chosen.choice((3, 150))
    for number in range(count):
        code = b"\x7fELF" + number.to_bytes(4, "little") + bytes(each)
        held[factory.sha256(code)] = code
        binary.append({**binary[0], "launch_key": f"more {number}", "cubin": factory.sha256(code)})
    return assemble(fold(value, held), held)


def _models(original: Original, chosen: random.Random) -> bytes:
    """Many binaries for many models: the index has a row for each pair."""
    value = copy.deepcopy(original.expanded)
    kernel = next(kernel for kernel in value["kernels"] if kernel["binaries"])
    count = chosen.choice((50, 300))
    model = value["models"][0] if value["models"] else None
    if model is not None:
        value["models"] = [{**model, "name": f"m{number}"} for number in range(count)]
        users = [*range(count)]
        rows = range(count)
        kernel["binaries"] = [{**kernel["binaries"][0], "launch_key": f"k{row}", "models": users} for row in rows]
    return assemble(fold(value, original.blobs), original.blobs)


def _sections(original: Original, chosen: random.Random) -> bytes:
    """Code whose section headers all speak of the whole file, or of an endless list of attributes."""
    value, held = copy.deepcopy(original.expanded), dict(original.blobs)
    binaries = [binary for kernel in value["kernels"] for binary in kernel["binaries"]]
    code = held[binaries[0]["cubin"]]
    count, size = chosen.choice(((300, 1 << 20), (60_000, 0), (65_535, 1 << 18)))
    filler = chosen.choice((chosen.randbytes(size), b"\x04\x17\x00\x00" * (size // 4)))
    body = code + filler
    rows = (
        struct.pack("<IIQQQQIIQQ", number, 1, 6, 0, chosen.choice((0, len(code))), len(body), 0, 0, 1, 0)
        for number in range(count)
    )
    new = bytearray(body + b"".join(rows))
    struct.pack_into("<Q", new, 40, len(body))  # where the headers are
    struct.pack_into("<HHH", new, 58, 64, count, chosen.choice((0, 1, count - 1)))
    held[factory.sha256(new)] = bytes(new)
    for binary in binaries:
        binary["cubin"] = factory.sha256(new)
    return assemble(fold(value, held), held)


def _keys(original: Original, chosen: random.Random) -> bytes:
    """Launch keys that are long and hard to take apart."""
    value = copy.deepcopy(original.expanded)
    kernel = next(kernel for kernel in value["kernels"] if kernel["binaries"])
    binary, length = kernel["binaries"][0], chosen.choice((16_000, 16_384, 200_000))
    unit = chosen.choice(("[", "('", "'\\", "\"'", "), (", "a", "\\", "[(", "{'", "]{"))
    begin = chosen.choice(("", "[(", binary["launch_key"][:-3]))
    text = (begin + unit * length)[:length]
    kernel["binaries"] = [{**binary, "launch_key": f"{text}{number}"} for number in range(chosen.choice((1, 300)))]
    return assemble(fold(value, original.blobs), original.blobs)


def _wrong(original: Original, chosen: random.Random) -> bytes:
    """Much that is wrong, each of which could be named."""
    value = copy.deepcopy(original.manifest)
    count = chosen.choice((5_000, 60_000))
    name = chosen.choice(("blobs", "kernels", "not_covered", "models", "workloads"))
    value[name] = [chosen.choice(({"x": number}, [number], None, number)) for number in range(count)]
    return assemble(value, original.blobs)


def _window(original: Original, chosen: random.Random) -> bytes:
    """A window, and a size of the manifest, that a reader would have to hold."""
    size = chosen.choice(((32 << 20) + 1, 32 << 20, 8 << 20))
    data = bytes(size) if chosen.random() < 0.5 else b"[" * size
    content = b"".join((tar.encode("manifest.json", size, 0), data, tar.END))
    return factory.wrap(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(content))

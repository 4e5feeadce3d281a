"""The outer layers of an artifact file: one zstd frame, then a trailer with the digest of all before it.

The trailer is a zstd skippable frame, so that ``zstd -d`` and ``tar --zstd`` read the file as any other, and it makes
every single changed byte visible: the checksum inside the zstd frame covers the content, not the frame's own header.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import BinaryIO

import zstandard

LEVEL = 18
"""Compression level: see ``docs/adr/0002-artifact-container.md`` for what others cost."""
WINDOW_LOG = 23
"""Window of 8 MiB: the most that a reader must hold. Long-distance matching on top of it gains 0.1 %."""
MAX_FILE = 1 << 30
"""Bytes of an artifact file."""

_SKIPPABLE = 0x184D2A50
_MAGIC = b"gdn-aot"
_TRAILER = struct.Struct(f"<II{len(_MAGIC)}s32s")
_INPUT = 512
"""Compressed bytes read at once. A block of 4 bytes can grow to 128 KiB, so this bounds one step to 16 MiB."""
_HASHED = 1 << 20


class FrameError(Exception):
    """The compressed data cannot be read on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Digests:
    """A file as bytes."""

    size: int
    sha256: str
    """Of the whole file."""
    body: int
    """Bytes before the trailer; the whole file if it has none."""
    fault: str
    """What is wrong with the trailer, or empty."""


def compressor(total: int) -> zstandard.ZstdCompressor:
    """Return the one compressor of artifacts, for ``total`` bytes of content."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=total,
        window_log=WINDOW_LOG,
        threads=0,
        write_checksum=True,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def trailer(digest: bytes) -> bytes:
    """Return the trailer for a body with this SHA-256."""
    return _TRAILER.pack(_SKIPPABLE, _TRAILER.size - 8, _MAGIC, digest)


def digest_file(file: BinaryIO, size: int) -> Digests:
    """Read a file of ``size`` bytes once and compare its trailer with what is before it."""
    body = max(size - _TRAILER.size, 0)
    digest = hashlib.sha256()
    left = body
    while left and (chunk := file.read(min(left, _HASHED))):
        digest.update(chunk)
        left -= len(chunk)
    expected, found = trailer(digest.digest()), file.read(_TRAILER.size)
    whole = digest.copy()
    whole.update(found)
    fault = ""
    if found != expected:
        at = _TRAILER.size - 32
        known = len(found) == _TRAILER.size and found[:at] == expected[:at]
        fault = "the digest is not that of the file" if known else "missing; the file is truncated or altered"
        body = body if known else size
    return Digests(size=size, sha256=whole.hexdigest(), body=body, fault=fault)


class FrameReader:
    """Bounded reading of the zstd frame that fills the first ``body`` bytes of a file."""

    def __init__(self, file: BinaryIO, body: int) -> None:
        """Read the frame header.

        Raises:
            FrameError: It is not a zstd frame, or not one that an artifact has.
        """
        self.limit = 0
        """Decompression stops after this many bytes. The owner raises it as it learns what to expect."""
        self._file, self._left = file, body
        self._produced = 0
        self._pending, self._offset = b"", 0
        self._head = self._input()
        if not self._head.startswith(zstandard.FRAME_HEADER):
            raise FrameError("is not zstd data")
        try:
            frame = zstandard.get_frame_parameters(self._head)
        except zstandard.ZstdError as error:
            raise FrameError(f"has a broken frame header: {error}") from error
        if frame.window_size > 1 << WINDOW_LOG:
            raise FrameError(f"needs a window of {frame.window_size} bytes, more than {1 << WINDOW_LOG}")
        if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN or not frame.has_checksum or frame.dict_id:
            raise FrameError("must state its size, have a checksum and need no dictionary")
        self.content_size: int = frame.content_size
        """Uncompressed bytes that the frame header promises; zstd holds it to that."""
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).decompressobj()

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer where the data end.

        Raises:
            FrameError: The data are damaged, or longer than ``limit``.
        """
        end = self._offset + size
        if end <= len(self._pending):
            part = self._pending[self._offset : end]
            self._offset = end
            return part
        parts = []
        while size:
            if self._offset == len(self._pending):
                self._pending, self._offset = self._decompress(), 0
                if not self._pending:
                    break
            part = self._pending[self._offset : self._offset + size]
            self._offset += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def leftover(self) -> int:
        """Return how many bytes of the body come after the end of the frame, once all of it was read."""
        return len(self._decompressor.unused_data) + self._left

    def _decompress(self) -> bytes:
        """Return the next uncompressed bytes, at most 16 MiB; none at the end of the frame."""
        while not self._decompressor.eof:
            if self._produced > self.limit:
                raise FrameError(f"holds more than the {self.limit} bytes expected")
            data, self._head = self._head or self._input(), b""
            if not data:
                raise FrameError("ends early: the file is truncated")
            try:
                output = self._decompressor.decompress(data)
            except zstandard.ZstdError as error:
                raise FrameError(f"is damaged: {error}") from error
            self._produced += len(output)
            if output:
                return output
        return b""

    def _input(self) -> bytes:
        data = self._file.read(min(self._left, _INPUT))
        self._left -= len(data)
        return data

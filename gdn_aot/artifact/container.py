"""The outer layers of an artifact file: one zstd frame, then a trailer with the digest of all before it.

`gdn_aot.artifact.trailer` makes and checks the trailer.
"""

from __future__ import annotations

import zstandard

LEVEL = 18
"""Compression level: see ``docs/adr/0002-artifact-container.md`` for what others cost."""
WINDOW_LOG = 23
"""Window of 8 MiB: the most that a reader must hold. Long-distance matching on top of it gains 0.1 %."""

_LONGEST_HEADER, _BLOCK_HEADER, _CHECKSUM = 18, 3, 4
"""Bytes of parts of a frame; see RFC 8878."""
_REPEATED = 1
"""The type of a block that is one byte, to be repeated."""


class FrameError(Exception):
    """The compressed data cannot be read on."""


def compressor(total: int) -> zstandard.ZstdCompressor:
    """Return the one compressor of artifacts, for ``total`` bytes of content."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=total, window_log=WINDOW_LOG, threads=0, write_checksum=True, write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


class Frame:
    """The zstd frame that a body begins with. Nothing is decompressed before it is asked for.

    Raises:
        FrameError: It is not a zstd frame, or not one that an artifact has.
    """

    def __init__(self, body: memoryview) -> None:
        if body[:4] != zstandard.FRAME_HEADER:
            raise FrameError("is not zstd data")
        try:
            header = zstandard.get_frame_parameters(body[:_LONGEST_HEADER])
        except zstandard.ZstdError as error:
            raise FrameError(f"has a broken frame header: {error}") from error
        if header.window_size > 1 << WINDOW_LOG:
            raise FrameError(f"needs a window of {header.window_size} bytes, more than {1 << WINDOW_LOG}")
        if header.content_size == zstandard.CONTENTSIZE_UNKNOWN or not header.has_checksum or header.dict_id:
            raise FrameError("must state its size, have a checksum and need no dictionary")
        self.content_size: int = header.content_size
        """Uncompressed bytes that the frame header promises; zstd holds it to that."""
        size = _size(body)
        self.cut = size > len(body)
        """The body ends before the frame does."""
        self.leftover = max(len(body) - size, 0)
        """Bytes of the body that come after the end of the frame."""
        self._stream = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).stream_reader(body[:size])

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer where the data end.

        Raises:
            FrameError: The data are damaged.
        """
        try:
            return self._stream.read(size) if size else b""
        except zstandard.ZstdError as error:
            raise FrameError(f"is damaged: {error}") from error


def _size(body: memoryview) -> int:
    """Return the bytes of the frame that a body begins with, by the sizes of its blocks; more where it is cut."""
    at, last = zstandard.frame_header_size(body[:_LONGEST_HEADER]), False
    while not last and at < len(body):
        block = int.from_bytes(body[at : at + _BLOCK_HEADER], "little")
        last = bool(block & 1)
        at += _BLOCK_HEADER + (1 if block >> 1 & 3 == _REPEATED else block >> 3)
    return at + _CHECKSUM

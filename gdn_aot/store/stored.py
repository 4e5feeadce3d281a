"""An artifact of a store, opened: its index and its pack, a file of blobs one after another.

Serving processes read it so, with the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property

from gdn_aot.errors import Problem, VerificationError
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.index import Index

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.artifact.verify import Artifact

PACK = "pack"
"""File name of the blobs in the directory of an artifact. Where each is the index says."""
MANIFEST = "manifest.json.zst"
"""File name of the compressed manifest in the directory of an artifact."""


class StoredArtifact:
    """Reads an artifact. Safe to use from several threads and after a fork; goes on to work when its files are removed.

    Its directory in a store has its index and the pack of its blobs, unless others are given.

    Raises:
        OSError: Its index or its pack cannot be opened.
        VerificationError: Its index is damaged.
    """

    def __init__(self, place: str, index: Index | None = None, pack: str = "") -> None:
        self.place = place
        self.index = index or Index(f"{place}/{INDEX}")
        self._path = pack or f"{place}/{PACK}"
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size
        """Bytes of the pack."""

    @classmethod
    def in_memory(cls, artifact: Artifact) -> StoredArtifact:
        """Unpack a verified artifact in this process's memory. Forked children share it."""
        from gdn_aot.store.index_writer import write_index

        with os.fdopen(os.memfd_create(PACK), "wb") as file:
            file.writelines(content for _, content in artifact.iter_blobs())
            file.flush()
            return cls(str(artifact.path), Index.in_memory(write_index(artifact)), f"/proc/self/fd/{file.fileno()}")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of a blob.

        Raises:
            OSError: It cannot be read.
            VerificationError: It is damaged, or the artifact has none of this name.
        """
        offset, size = self.index.place(sha256)
        content = os.pread(self._file, size, offset) if offset + size <= self.size else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            problem = Problem(self._path, f"the content of blob {sha256} is not what its name says")
            raise VerificationError(f"{self._path}: blob {sha256} is damaged", [problem])
        return content

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, with every check.

        Raises:
            OSError: It cannot be read.
            VerificationError: It is damaged.
        """
        from gdn_aot.artifact.manifest_json import load_manifest

        return load_manifest(read_manifest(self.place))


def read_manifest(place: str) -> bytes:
    """Return the JSON of the manifest of an installed artifact.

    Raises:
        OSError: It is not there or cannot be read.
        VerificationError: It is damaged.
    """
    import zstandard

    from gdn_aot.artifact.manifest_json import MAX_BYTES

    path = f"{place}/{MANIFEST}"
    with open(path, "rb") as file:
        content = file.read()
    try:
        if zstandard.get_frame_parameters(content).content_size <= MAX_BYTES:
            return zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
    except zstandard.ZstdError:
        pass
    raise VerificationError(f"{path} is damaged", [Problem(path, "is not a compressed manifest")])

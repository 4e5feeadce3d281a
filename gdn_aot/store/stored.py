"""An artifact that is installed, read back with every check, for who needs all of it and not single records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.artifact.manifest_json import load_manifest
from gdn_aot.errors import UsageError, VerificationError
from gdn_aot.store.install import read_manifest
from gdn_aot.store.store import Store

if TYPE_CHECKING:
    from os import PathLike

    from gdn_aot.artifact.manifest import Manifest

_HINT = "gdn-aot fetch installs it again"


class StoredArtifact:
    """An artifact in a store. Its blobs are checked as they are read.

    Args:
        place: Its directory, ``.../store/artifacts/NAME``, as ``gdn-aot fetch`` prints it.

    Raises:
        UsageError: That is no artifact of a store.
        VerificationError: Its manifest is damaged. `UnknownFormatError` if a newer gdn-aot made the store.
    """

    def __init__(self, place: str | PathLike[str]) -> None:
        self.path = Path(place).resolve()
        root = self.path.parent.parent
        self._store = Store(str(root.parent))
        if root.name != "store" or str(self.path) not in self._store.artifacts():
            hint = "name a gdn-aot-*.tar.zst file, or a directory that gdn-aot fetch printed"
            raise UsageError(f"{place} is no artifact of a store", hint=hint)
        try:
            content = read_manifest(str(self.path))
        except OSError as error:
            message = f"the manifest of {self.path} cannot be read: {error.strerror}"
            raise VerificationError(message, [], hint=_HINT) from error
        self.manifest: Manifest = load_manifest(content)

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of one blob.

        Raises:
            VerificationError: It is missing or damaged.
        """
        try:
            return self._store.read_blob(sha256)
        except OSError as error:
            message = f"blob {sha256} of {self.path} cannot be read: {error}"
            raise VerificationError(message, [], hint=_HINT) from error

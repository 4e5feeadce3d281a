"""What a publisher signs: one statement of each artifact, and one of the index of a registry.

That of an artifact is beside it in the registry, and in its directory of a store. It has the digest of the installed
index's first bytes, which have the digests of everything that a serving process reads, so that one signature covers all
of it. Serials rise with every publication of a repository; nothing here depends on a clock.
"""

from __future__ import annotations

from gdn_aot._plain import Plain
from gdn_aot.trust.envelope import Envelope, decode, dump, load, refused

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

    from typing_extensions import Self

STATEMENT = "application/vnd.gdn-aot.release+json"
INDEX_STATEMENT = "application/vnd.gdn-aot.index+json"
MAX_SERIAL = (1 << 53) - 1
"""What every JSON reader keeps exactly."""
_RELEASE = ("repo", "identifier", "sha256", "size", "manifest_sha256", "index_sha256", "serial", "commit", "tool")
_INDEX = ("repo", "sha256", "size", "serial", "keyring")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_MOST_NAME = 96
"""Characters of an organization, and of a name, on the Hub."""


class Statement(Plain):
    """What a publisher says of one artifact.

    Args:
        repo: The repository that it is published in, ``hf://org/name``.
        identifier: The artifact's.
        sha256: Of the ``.tar.zst`` file.
        size: Bytes of that file.
        manifest_sha256: Of the manifest in it.
        index_sha256: Of the first bytes of the installed index, by the format of the index in decimal digits.
        serial: Number of the publication.
        commit: Of the sources that it was built from, if they were a checkout.
        tool: Version of gdn-aot that built it.
    """

    __slots__ = _RELEASE
    kind: ClassVar[str] = STATEMENT

    def __init__(
        self,
        *,
        repo: str,
        identifier: str,
        sha256: str,
        size: int,
        manifest_sha256: str,
        index_sha256: Mapping[str, str],
        serial: int,
        commit: str | None,
        tool: str,
    ) -> None:
        self.repo, self.identifier, self.sha256, self.size = repo, identifier, sha256, size
        self.manifest_sha256, self.index_sha256 = manifest_sha256, dict(index_sha256)
        self.serial, self.commit, self.tool = serial, commit, tool

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, Envelope]:
        """Return the statement that the bytes of an envelope hold, and the envelope. No signature is verified.

        Raises:
            SignatureError: They hold none.
        """
        envelope, fields = _fields(cls, data)
        roots = fields["index_sha256"]
        check(fields, digests=("sha256", "manifest_sha256"), numbers=("size", "serial"), texts=("identifier", "tool"))
        if not isinstance(roots, dict) or not all(key.isdecimal() and is_digest(roots[key]) for key in roots):
            raise refused("has no digests of indexes")
        if fields["commit"] is not None and not is_digest(fields["commit"], 40):
            raise refused("has no commit")
        return cls(**fields), envelope


class IndexStatement(Plain):
    """What a publisher says of the index of a repository.

    Args:
        repo: The repository.
        sha256: Of ``index.json``.
        size: Bytes of it.
        serial: Number of the publication.
        keyring: Version of the newest keyring in the repository.
    """

    __slots__ = _INDEX
    kind: ClassVar[str] = INDEX_STATEMENT

    def __init__(self, *, repo: str, sha256: str, size: int, serial: int, keyring: int) -> None:
        self.repo, self.sha256, self.size, self.serial, self.keyring = repo, sha256, size, serial, keyring

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, Envelope]:
        """Return the statement that the bytes of an envelope hold, and the envelope. No signature is verified.

        Raises:
            SignatureError: They hold none.
        """
        envelope, fields = _fields(cls, data)
        check(fields, digests=("sha256",), numbers=("size", "serial", "keyring"))
        return cls(**fields), envelope


def payload(statement: Statement | IndexStatement) -> bytes:
    """Return what is signed of a statement."""
    return dump({name: getattr(statement, name) for name in statement.__slots__})


def _fields(kind: type[Statement | IndexStatement], data: bytes) -> tuple[Envelope, dict[str, Any]]:
    envelope = decode(data, kind.kind)
    fields = load(envelope.payload, kind.__slots__)
    if not is_repository(fields["repo"]):
        raise refused("names no repository")
    return envelope, fields


def check(
    fields: Mapping[str, Any],
    *,
    digests: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    texts: tuple[str, ...] = (),
) -> None:
    """Check the types of fields of a payload.

    Raises:
        SignatureError: One is not what it must be.
    """
    wrong = [name for name in digests if not is_digest(fields[name])]
    wrong += [name for name in numbers if type(fields[name]) is not int or not 0 <= fields[name] <= MAX_SERIAL]
    wrong += [name for name in texts if not isinstance(fields[name], str) or not fields[name].isprintable()]
    if wrong:
        raise refused(f"has no sound {wrong[0]}")


def is_digest(value: object, digits: int = 64) -> bool:
    """Say whether a value is hexadecimal digits, of a SHA-256 unless another number is given."""
    return isinstance(value, str) and len(value) == digits and not set(value) - set("0123456789abcdef")


def is_repository(value: object) -> bool:
    """Say whether a value names a publisher: ``hf://org/name``, also where its files are in a directory."""
    if not isinstance(value, str) or not value.startswith("hf://"):
        return False
    parts = value[5:].split("/")
    sound = all(
        0 < len(part) <= _MOST_NAME and part[0] in _WORD and not set(part) - _WORD - {".", "-"} for part in parts
    )
    return sound and len(parts) == 2 and ".." not in value and "--" not in value  # noqa: PLR2004 - both parts

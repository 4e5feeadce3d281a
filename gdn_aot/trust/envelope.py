"""Signed statements: envelopes of DSSE, the Dead Simple Signing Envelope 1.0.2, as they lie in files.

There is one way to write an envelope: its bytes are those that `Envelope.encode` makes, and its payload is compact JSON
of ASCII alone, its keys in the order of its record. Whatever else decodes to the same is refused, so no bit of a file
is free. Read with the standard library alone: serving processes do.
"""

from __future__ import annotations

import hashlib
import json
from binascii import a2b_base64, b2a_base64

from gdn_aot._plain import Plain
from gdn_aot._text import shown
from gdn_aot.errors import Problem, SignatureError
from gdn_aot.trust import MAX_ENVELOPE

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gdn_aot.trust.ed25519 import Signed

_MOST_SIGNATURES = 64


class Envelope(Plain):
    """A payload and who signed it.

    Args:
        kind: Its media type, which is signed too.
        payload: What is signed.
        signatures: Signature by the id of its key, in the order of the ids.
    """

    __slots__ = ("kind", "payload", "signatures")

    def __init__(self, kind: str, payload: bytes, signatures: Mapping[str, bytes]) -> None:
        self.kind, self.payload = kind, payload
        self.signatures = {key: signatures[key] for key in sorted(signatures)}

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        signatures = [{"keyid": key, "sig": _base64(signature)} for key, signature in self.signatures.items()]
        document = {"payloadType": self.kind, "payload": _base64(self.payload), "signatures": signatures}
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"

    def to_sign(self) -> bytes:
        """Return the bytes that are signed: DSSE's pre-authentication encoding."""
        return pre_authentication(self.kind, self.payload)

    def signed(self, publics: Mapping[str, bytes]) -> list[Signed]:
        """Return what `gdn_aot.trust.ed25519.verify_all` is to verify, with the public keys by their ids.

        Raises:
            SignatureError: Nobody has signed it, or somebody whose key is not among these.
        """
        foreign = [key for key in self.signatures if key not in publics]
        if foreign or not self.signatures:
            raise refused(f"is signed with key {foreign[0]}, which is not known here" if foreign else "is not signed")
        message = self.to_sign()
        return [(publics[key], signature, message) for key, signature in self.signatures.items()]


def decode(data: bytes, kind: str) -> Envelope:
    """Read an envelope whose payload is of one kind. Nothing is verified.

    Raises:
        SignatureError: It is no envelope, or not as it is written here, or of another kind.
    """
    try:
        document = json.loads(data) if len(data) <= MAX_ENVELOPE else {}
        signatures = {one["keyid"]: a2b_base64(one["sig"]) for one in document["signatures"]}
        found = Envelope(document["payloadType"], a2b_base64(document["payload"]), signatures)
        same = found.encode() == data
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise refused("is no envelope of a signed statement, or is damaged") from None
    if not same or len(signatures) > _MOST_SIGNATURES:
        raise refused("is not written as gdn-aot writes it")
    if found.kind != kind:
        raise refused(f"is of the type {shown(found.kind)}, expected {kind}")
    return found


def pre_authentication(kind: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload, which is what is signed."""
    head = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(head), head, len(payload), payload)


def key_id(public: bytes) -> str:
    """Return the id of a key: the first 32 digits of the SHA-256 of its 32 public bytes."""
    return hashlib.sha256(public).hexdigest()[:32]


def dump(fields: Mapping[str, Any]) -> bytes:
    """Return fields as a payload."""
    return json.dumps(fields, separators=(",", ":")).encode()


def load(payload: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a payload, which are these, in this order.

    Raises:
        SignatureError: It is not written as `dump` writes it, or has other fields.
    """
    fields = None
    try:
        fields = json.loads(payload)
        same = dump(fields) == payload
    except (ValueError, RecursionError):
        same = False
    if not same or not isinstance(fields, dict):
        raise refused("has a payload that is not written as gdn-aot writes it")
    if tuple(fields) != names:
        raise refused("has a payload of another form; a newer gdn-aot may know it")
    return fields


def refused(what: str, where: str = "", *, hint: str | None = None) -> SignatureError:
    """Return the error of a statement that does not count, and why."""
    return SignatureError(f"{where or 'the signature'} {what}", [Problem(where or "signature", what)], hint=hint)


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()

"""Envelopes: one writing of each, and nothing in a file that is free."""

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import keyrings
import pytest

from gdn_aot.errors import SignatureError
from gdn_aot.trust import MAX_ENVELOPE
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import Envelope, decode, dump, key_id, load, pre_authentication

KIND = "application/vnd.gdn-aot.test+json"
PAYLOAD = dump({"repo": keyrings.REPO, "text": "a \u00e9", "number": 7})


def made(*numbers: int, payload: bytes = PAYLOAD, kind: str = KIND) -> Envelope:
    message = pre_authentication(kind, payload)
    signers = [keyrings.signer(number) for number in numbers]
    return Envelope(kind, payload, {key_id(signer.public): signer.sign(message) for signer in signers})


def publics(*numbers: int) -> dict[str, bytes]:
    return {key_id(keyrings.signer(number).public): keyrings.signer(number).public for number in numbers}


def test_round_trip() -> None:
    envelope = made(1, 2, 3)
    again = decode(envelope.encode(), KIND)
    assert again == envelope
    assert again.encode() == envelope.encode()
    assert verify_all(again.signed(publics(1, 2, 3, 4)))
    assert load(again.payload, ("repo", "text", "number")) == {"repo": keyrings.REPO, "text": "a \u00e9", "number": 7}


def test_it_is_dsse() -> None:
    """Whoever has a library of DSSE can verify it."""
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    document = json.loads(made(1).encode())
    assert base64.b64decode(document["payload"]) == PAYLOAD
    assert document["payloadType"] == KIND
    (signature,) = document["signatures"]
    keyrings.private(1).public_key().verify(base64.b64decode(signature["sig"]), pre_authentication(KIND, PAYLOAD))


def test_lengths_are_signed() -> None:
    """What is a part of the kind is no part of the payload."""
    assert pre_authentication("a", b"bc") != pre_authentication("ab", b"c")
    assert pre_authentication("a 1 b", b"c") != pre_authentication("a", b"b 1 c")


def test_signatures_are_in_the_order_of_their_keys() -> None:
    assert made(1, 2, 3).encode() == made(3, 1, 2).encode()
    document = json.loads(made(1, 2).encode())
    document["signatures"].reverse()
    with pytest.raises(SignatureError, match="is not written as"):
        decode(compact(document), KIND)


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _with(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(made(1, 2).encode())
    change(document)
    return compact(document)


SOUND = made(1, 2).encode()
OTHER_WRITINGS = {
    "no end": SOUND[:-1],
    "two ends": SOUND + b"\n",
    "spaces": json.dumps(json.loads(SOUND)).encode() + b"\n",
    "a field more": _with(lambda document: document.update(more=1)),
    "a field twice": SOUND.replace(b'{"payloadType"', b'{"payloadType":"x","payloadType"', 1),
    "another order": compact(dict(reversed(json.loads(SOUND).items()))),
    "a signature twice": _with(lambda document: document["signatures"].append(document["signatures"][1])),
    "a field of a signature more": _with(lambda document: document["signatures"][0].update(cert="")),
    "an escape": SOUND.replace(b"application", b"\\u0061pplication", 1),
    "base64 without its end": SOUND.replace(b"==", b"", 1),
    "base64 with a line": SOUND.replace(b'"payload":"', b'"payload":"\\n', 1),
    "a mark": b"\xef\xbb\xbf" + SOUND,
    "in UTF-16": SOUND.decode().encode("utf-16"),
}
NOTHING = {
    "empty": b"",
    "half": SOUND[: len(SOUND) // 2],
    "a list": b"[]\n",
    "a number": b"1\n",
    "deep": b"[" * 100_000,
    "digits": b'{"payload":' + b"9" * 5000 + b"}",
    "too large": SOUND + b" " * MAX_ENVELOPE,
    "no signatures": _with(lambda document: document.pop("signatures")),
    "signatures of a number": _with(lambda document: document.update(signatures=1)),
    "a payload of a number": _with(lambda document: document.update(payload=1)),
    "a kind of a list": _with(lambda document: document.update(payloadType=[])),
    "a key of a list": _with(lambda document: document["signatures"][0].update(keyid=[])),
    "keys of two types": _with(lambda document: document["signatures"][0].update(keyid=None)),
    "no base64": _with(lambda document: document.update(payload="a")),
    "too many": Envelope(KIND, PAYLOAD, {f"{number:032x}": b"x" for number in range(65)}).encode(),
}


@pytest.mark.parametrize("data", [*OTHER_WRITINGS.values(), *NOTHING.values()], ids=[*OTHER_WRITINGS, *NOTHING])
def test_whatever_else_is_refused(data: bytes) -> None:
    assert data != SOUND
    with pytest.raises(SignatureError) as caught:
        decode(data, KIND)
    assert len(caught.value.message) < 300


def test_another_kind() -> None:
    with pytest.raises(SignatureError, match="is of the type"):
        decode(SOUND, "application/vnd.gdn-aot.keyring+json")


def test_every_bit() -> None:
    """Each bit of a file is refused: by the form, by the key, by the payload's form, or by arithmetic."""
    by = {"form": 0, "key": 0, "arithmetic": 0}
    known = publics(1, 2)
    for bit in random.Random(7).sample(range(8 * len(SOUND)), 2500):
        changed = bytearray(SOUND)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            envelope = decode(bytes(changed), KIND)
        except SignatureError:
            by["form"] += 1
            continue
        try:
            signed = envelope.signed(known)
        except SignatureError:
            by["key"] += 1
            continue
        assert not verify_all(signed), bit
        by["arithmetic"] += 1
    assert min(by.values()) > 50, by


def test_who_has_signed() -> None:
    with pytest.raises(SignatureError, match="is not signed"):
        made().signed(publics(1))
    with pytest.raises(SignatureError, match="not known here"):
        made(1, 2).signed(publics(1))


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"[]", b"1", b'{"a":1} ', b'{"a": 1}', b'{"a":1,"a":1}', b'{"a":1.0e0}', b'{"a":1,"b":2}', b'{"b":1}',
        b"{}", b'{"a":"\xc3\xa9"}', b'{"a":"\\u0061"}', b"\xff", b"{" * 100_000, b'{"a":%s}' % (b"9" * 5000),
    ],
)  # fmt: skip
def test_a_payload_has_one_writing(payload: bytes) -> None:
    assert load(b'{"a":1}', ("a",)) == {"a": 1}
    with pytest.raises(SignatureError):
        load(payload, ("a",))

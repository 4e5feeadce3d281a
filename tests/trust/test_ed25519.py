"""Verification with the standard library, against RFC 8032, `cryptography` and forgeries."""

import hashlib
import random

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gdn_aot.trust.ed25519 import is_key, verify_all

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)
NEUTRAL = (0, 1)
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        b"",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
            "24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        b"\x72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
            "eeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        b"\xaf\x82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
            "8dc027beceea1ec40a"
        ),
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").digest(),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac1"
            "7ad9bef1177331a704"
        ),
    ),
]
"""RFC 8032, section 7.1: tests 1, 2, 3 and SHA(abc)."""

Signed = tuple[bytes, bytes, bytes]


def theirs(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def draw(chosen: random.Random, size: int | None = None) -> Signed:
    """A signature of a random key over a random message."""
    private = Ed25519PrivateKey.from_private_bytes(chosen.randbytes(32))
    message = chosen.randbytes(chosen.choice((0, 1, 63, 64, 65, 300, 5000)) if size is None else size)
    return private.public_key().public_bytes_raw(), private.sign(message), message


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    (a, b), (c, d) = one, other
    product = D * a * b * c * d
    return (a * d + b * c) * pow(1 + product, -1, P) % P, (b * d + a * c) * pow(1 - product, -1, P) % P


def times(number: int, point: tuple[int, int]) -> tuple[int, int]:
    found = NEUTRAL
    for bit in f"{number:b}":
        found = add(found, found)
        found = add(found, point) if bit == "1" else found
    return found


def encoded(point: tuple[int, int]) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def torsion(chosen: random.Random) -> tuple[int, int]:
    """A point of order 8."""
    while True:
        y = chosen.randrange(P)
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
        if x * x % P == square:
            point = times(L, (x, y))
            if times(4, point) != NEUTRAL:
                return point


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS, ids=["1", "2", "3", "SHA(abc)"])
def test_the_vectors_of_the_rfc(public: str, message: bytes, signature: str) -> None:
    one = (bytes.fromhex(public), bytes.fromhex(signature), message)
    assert theirs(*one)
    assert verify_all([one])
    assert not verify_all([(*one[:2], message + b"\0")])


def test_nothing_is_signed() -> None:
    assert verify_all([])


def test_the_same_verdict_as_cryptography() -> None:
    chosen = random.Random(8032)
    verdicts = []
    for number in range(300):
        public, signature, message = draw(chosen)
        match number % 5:
            case 1:
                signature = flipped(signature, chosen.randrange(512))
            case 2:
                public = flipped(public, chosen.randrange(256))
            case 3:
                message = flipped(message, chosen.randrange(8 * len(message))) if message else b"x"
            case 4:
                signature = draw(chosen)[1]
        verdicts.append(verify_all([(public, signature, message)]))
        assert verdicts[-1] == theirs(public, signature, message), number
    assert verdicts == [number % 5 == 0 for number in range(300)]


def test_every_bit_of_a_key_and_of_a_signature() -> None:
    public, signature, message = draw(random.Random(1), 40)
    assert verify_all([(public, signature, message)])
    assert not [bit for bit in range(512) if verify_all([(public, flipped(signature, bit), message)])]
    assert not [bit for bit in range(256) if verify_all([(flipped(public, bit), signature, message)])]
    assert not [bit for bit in range(320) if verify_all([(public, signature, flipped(message, bit))])]


@pytest.mark.parametrize("extra", range(1, 8))
def test_a_scalar_beyond_the_order(extra: int) -> None:
    for seed in range(5):
        public, signature, message = draw(random.Random(seed))
        beyond = int.from_bytes(signature[32:], "little") + extra * L
        if beyond >> 256 == 0:
            forged = signature[:32] + beyond.to_bytes(32, "little")
            assert not verify_all([(public, forged, message)])
            assert not theirs(public, forged, message)


@pytest.mark.parametrize(("public", "signature"), [(31, 64), (33, 64), (0, 64), (32, 63), (32, 65), (32, 0)])
def test_lengths(public: int, signature: int) -> None:
    whole = draw(random.Random(2))
    assert not verify_all(
        [(whole[0].ljust(public, b"\0")[:public], whole[1].ljust(signature, b"\0")[:signature], whole[2])]
    )


def test_points_that_are_not_written_as_the_rfc_says() -> None:
    neutral, zero = encoded(NEUTRAL), bytes(32)
    twice = (1 + P).to_bytes(32, "little")  # the same point: y is reduced by nobody
    signed = flipped(neutral, 255)  # -0
    assert verify_all([(neutral, neutral + zero, b"anything")])  # of that key everything is a signature
    for other in (twice, signed, flipped(twice, 255)):
        assert not verify_all([(other, neutral + zero, b"anything")])
        assert not verify_all([(neutral, other + zero, b"anything")])
    for y in range(19):  # all that can be written in two ways
        assert not verify_all([((y + P).to_bytes(32, "little"), neutral + zero, b"anything")])


def test_what_is_no_point() -> None:
    chosen, refused = random.Random(3), 0
    _, signature, message = draw(chosen)
    for _ in range(100):
        y = chosen.randrange(P)
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        if pow(square, (P - 1) // 2, P) == P - 1:
            refused += 1
            data = y.to_bytes(32, "little")
            assert not verify_all([(data, signature, message)])
            assert not verify_all([(encoded(NEUTRAL), data + bytes(32), message)])
    assert refused > 30


@pytest.mark.parametrize("size", [2, 3, 8, 33])
def test_one_bad_among_good_ones(size: int) -> None:
    chosen = random.Random(size)
    good = [draw(chosen) for _ in range(size)]
    assert verify_all(good)
    assert verify_all([*good, *good])
    for position, (public, signature, message) in enumerate(good):
        for bad in (
            (public, flipped(signature, 256), message),
            (public, flipped(signature, 7), message),
            (flipped(public, 3), signature, message),
            (public, signature, message + b"x"),
            (good[position - 1][0], signature, message),
        ):
            assert not verify_all([*good[:position], bad, *good[position + 1 :]])


def test_faults_that_cancel_each_other() -> None:
    (first, one, message), (second, other, text) = (draw(random.Random(seed)) for seed in (4, 5))

    def moved(signature: bytes, by: int) -> bytes:
        return signature[:32] + ((int.from_bytes(signature[32:], "little") + by) % L).to_bytes(32, "little")

    for by in (1, 2, 8, L // 2, 12345678901234567890):
        assert not verify_all([(first, moved(one, by), message), (second, moved(other, -by), text)])
    swapped = [(first, other[:32] + one[32:], message), (second, one[:32] + other[32:], text)]
    assert not verify_all(swapped)


def test_signatures_of_one_key_in_a_batch() -> None:
    private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    public = private.public_key().public_bytes_raw()
    signed = [(public, private.sign(b"%d" % number), b"%d" % number) for number in range(6)]
    assert verify_all(signed)
    swapped = [(public, signed[1][1], signed[0][2]), (public, signed[0][1], signed[1][2])]
    assert not verify_all(swapped)
    assert not verify_all([*signed, *swapped])


def test_small_orders_get_one_verdict_alone_and_in_a_batch() -> None:
    """Keys and commitments with a part of small order: whoever made them, a batch says what each alone gets."""
    chosen = random.Random(6)
    small, good = torsion(chosen), [draw(chosen) for _ in range(3)]
    for of_key in range(8):
        secret, nonce, message = chosen.randrange(L), chosen.randrange(L), chosen.randbytes(8)
        key = add(times(secret, BASE), times(of_key, small))
        commitment = encoded(add(times(nonce, BASE), times(chosen.randrange(8), small)))
        challenge = int.from_bytes(hashlib.sha512(commitment + encoded(key) + message).digest(), "little")
        scalar = (nonce + challenge * secret) % L
        one = (encoded(key), commitment + scalar.to_bytes(32, "little"), message)
        assert verify_all([one])  # it is 8 times the equation that counts
        assert all(verify_all([*good, one]) for _ in range(4))
        assert not verify_all([(one[0], one[1], message + b"x")])


SMALL = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
"""All points of small order."""
OTHERWISE = [
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0200000000000000000000000000000000000000000000000000000000000000",
]
"""Points in another writing, and what is none."""


def test_what_can_be_a_key() -> None:
    for text in [*SMALL, *OTHERWISE]:
        assert not is_key(bytes.fromhex(text)), text
    for _ in range(50):
        assert is_key(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    assert not is_key(b"")
    assert verify_all([(bytes.fromhex(SMALL[0]), bytes.fromhex(SMALL[0]) + bytes(32), b"anything")]), "which is why"

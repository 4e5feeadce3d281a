"""Ed25519 verification with the standard library alone, for serving processes: RFC 8032, section 5.1.

Several signatures are verified at once, in little more time than one: with weights ``z`` that nobody can foresee, ``8
(sum z s B - sum z k A - sum z R) = 0`` holds only if it holds for each. All multiples are added up along one chain of
doublings (Straus), over signed digits whose odd multiples are in small tables. Points are in extended coordinates,
with the formulas of Hisil, Wong, Carter and Dawson, "Twisted Edwards Curves Revisited" (2008), section 4. There is no
secret here, so time may depend on what is verified. Signing needs care that Python cannot give:
`gdn_aot.trust.signer`.
"""

from __future__ import annotations

import hashlib
import os

PUBLIC, SIGNATURE = 32, 64
"""Bytes of a public key and of a signature."""
_P = 2**255 - 19
_LOW = 2**255 - 1
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
"""-121665 / 121666."""
_ROOT = 19681161376707505956807079304988542015446066515923890162744021073123829784752
"""A square root of -1."""
_BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)
"""The base point, as in the RFC."""
_WINDOW = 5
"""Bits of a digit."""
_WEIGHT = 16
"""Bytes of a weight: a false batch passes with a probability of 2**-128."""

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Point = tuple[int, int]
    """A point in affine coordinates."""
    Addend = tuple[int, int, int, int]
    """(y + x, y - x, 2 d t, 2 z) of a point in extended coordinates."""
    Signed = tuple[bytes, bytes, bytes]
    """Public key, signature, message."""


def verify_all(signed: Sequence[Signed]) -> bool:
    """Say whether every one of some signatures is its key's over its message. True of none.

    Each is 32 bytes of a public key, 64 of a signature, and the message. What is not encoded as the RFC says is false.
    """
    scalars: dict[Point, int] = {}
    total = 0
    for public, signature, message in signed:
        if len(public) != PUBLIC or len(signature) != SIGNATURE:
            return False
        half = int.from_bytes(signature[32:], "little")
        key, commitment = _point(public), _point(signature[:32])
        if half >= _ORDER or key is None or commitment is None:
            return False
        challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little")
        weight = int.from_bytes(os.urandom(_WEIGHT), "little") | 1 if len(signed) > 1 else 1
        total += weight * half
        scalars[key] = scalars.get(key, 0) + weight * challenge
        scalars[commitment] = scalars.get(commitment, 0) + weight
    negated = [((_P - x, y), scalar) for (x, y), scalar in scalars.items()]
    return _is_torsion([(_BASE, total), *negated])


def is_key(public: bytes) -> bool:
    """Say whether 32 bytes can be a public key: a point, written as the RFC says, that is not of small order.

    Anybody can sign for a point of small order. `verify_all` takes them as the RFC does, which costs it nothing.
    """
    point = _point(public) if len(public) == PUBLIC else None
    return point is not None and not _is_torsion([(point, 1)])


def _point(data: bytes) -> Point | None:
    """Return the point that 32 bytes encode, or None."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * v**3 * pow(u * v**7 % _P, (_P - 5) // 8, _P) % _P
    if (v * x * x - u) % _P:
        x = x * _ROOT % _P
        if (v * x * x - u) % _P:
            return None
    if x == 0 and sign:
        return None
    return (_P - x if x & 1 != sign else x), y


def _is_torsion(terms: Sequence[tuple[Point, int]]) -> bool:
    """Say whether the sum of multiples of points, times 8, is the neutral point.

    Its loop is nearly all of the time, and makes no calls. Sums are folded at bit 255, where 2**255 is 19, which takes
    half as long as a remainder; products, which would grow so, are reduced in full.
    """
    addends: dict[int, list[Addend]] = {}
    for point, scalar in terms:
        table = _odd_multiples(*point)
        for position, digit in _digits(scalar % _ORDER):
            plus, minus, twisted, z = table[abs(digit) >> 1]
            addend = (plus, minus, twisted, z) if digit > 0 else (minus, plus, -twisted, z)
            addends.setdefault(position, []).append(addend)
    x, y, z, t, p, low = 0, 1, 1, 0, _P, _LOW
    for position in range(max(addends, default=0), -4, -1):
        for plus, minus, twisted, twice_z in addends.get(position, ()):  # `_add`, written out
            a, b, c, d = (y - x) * minus, (y + x) * plus, t * twisted, z * twice_z
            e, f, g, h = b - a, d - c, d + c, b + a
            e, f = (e & low) + 19 * (e >> 255), (f & low) + 19 * (f >> 255)
            g, h = (g & low) + 19 * (g >> 255), (h & low) + 19 * (h >> 255)
            x, y, z, t = e * f % p, g * h % p, f * g % p, e * h % p
        if position > -3:  # noqa: PLR2004 - three doublings more are the times 8
            a, b, s = x * x, y * y, x + y  # `_double`
            h, g = a + b, a - b
            e, f = h - s * s, 2 * z * z + g
            e, f = (e & low) + 19 * (e >> 255), (f & low) + 19 * (f >> 255)
            g, h = (g & low) + 19 * (g >> 255), (h & low) + 19 * (h >> 255)
            x, y, z, t = e * f % p, g * h % p, f * g % p, e * h % p
    return x == 0 and y == z


def _digits(scalar: int) -> Iterator[tuple[int, int]]:
    """Yield (position, digit) of a scalar in signed digits, all of them odd: it is the sum of digit << position."""
    position, size = 0, 1 << _WINDOW
    while scalar:
        zeros = (scalar & -scalar).bit_length() - 1
        scalar, position = scalar >> zeros, position + zeros
        digit = scalar & (size - 1)
        digit -= size if digit >= size // 2 else 0
        yield position, digit
        scalar -= digit


def _odd_multiples(x: int, y: int) -> list[Addend]:
    """Return the addends of 1, 3, 5, ... times a point: one for each digit that a window has."""
    point = (x, y, 1, x * y % _P)
    twice = _addend(*_double(x, y, 1))
    found = [_addend(*point)]
    for _ in range((1 << (_WINDOW - 2)) - 1):
        point = _add(*point, twice)
        found.append(_addend(*point))
    return found


def _addend(x: int, y: int, z: int, t: int) -> Addend:
    return y + x, y - x, 2 * _D * t % _P, 2 * z


def _add(x: int, y: int, z: int, t: int, addend: Addend) -> tuple[int, int, int, int]:
    plus, minus, twisted, twice_z = addend
    a, b, c, d = (y - x) * minus, (y + x) * plus, t * twisted, z * twice_z
    e, f, g, h = (b - a) % _P, (d - c) % _P, (d + c) % _P, (b + a) % _P
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(x: int, y: int, z: int) -> tuple[int, int, int, int]:
    a, b = x * x, y * y
    h, g = a + b, a - b
    e, f = (h - (x + y) * (x + y)) % _P, (2 * z * z + g) % _P
    g, h = g % _P, h % _P
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P

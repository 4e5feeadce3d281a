"""Keys that are the same at every run, and keyrings that they sign."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gdn_aot.trust import edit
from gdn_aot.trust.envelope import key_id
from gdn_aot.trust.keyring import Keyring, SignedKeyring
from gdn_aot.trust.signer import KeySigner

REPO = "hf://org/name"
FILE = "org--name.json"
"""Where it lies."""
DAY = "2026-01-02"
ROOTS, NEW_ROOTS = (1, 2, 3), (4, 5, 6)
SIGNING = 10


@lru_cache
def private(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "little"))


def signer(number: int) -> KeySigner:
    return KeySigner(private(number))


def public(number: int) -> str:
    return signer(number).public.hex()


def id_of(number: int) -> str:
    return key_id(signer(number).public)


def with_roots(pem: Callable[[int], Path], *numbers: int) -> list[object]:
    """The options of a command that signs with root keys."""
    return [word for number in numbers for word in ("--root-key", pem(number))]


def first(repo: str = REPO, roots: tuple[int, ...] = ROOTS) -> Keyring:
    """Version 1 of a keyring."""
    return edit.first(repo, DAY, [*map(public, roots)], public(SIGNING))


def signed(keyring: Keyring, *numbers: int) -> SignedKeyring:
    """A keyring as some keys have signed it."""
    return edit.sign(edit.unsigned(keyring), map(signer, numbers))


def changed(keyring: Keyring, **fields: object) -> Keyring:
    """A keyring of which nobody has checked what it says."""
    return Keyring(**{**keyring.to_dict(), **fields})  # type: ignore[arg-type]


def file_of(keyring: Keyring, *numbers: int) -> bytes:
    """The file of a keyring."""
    return signed(keyring, *numbers).envelope.encode()

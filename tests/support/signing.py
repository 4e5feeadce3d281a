"""Keys and keyrings of a publisher, made in memory; registries whose files come with a bit changed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from making import SM_120

from gdn_aot.errors import VerificationError
from gdn_aot.registry.base import Snapshot, read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import INDEX, INDEX_SIGNATURE, keyring_path, signature_path
from gdn_aot.registry.open import locate
from gdn_aot.registry.publisher import publisher_of
from gdn_aot.registry.signing import Signing
from gdn_aot.store.store import Store
from gdn_aot.trust.envelope import Envelope, key_id
from gdn_aot.trust.keyring import KEYRING, Key, Keyring, SignedKeyring
from gdn_aot.trust.known import file_name
from gdn_aot.trust.signer import KeySigner

ORG = "hf://org/kernels"


def public(private: Ed25519PrivateKey) -> str:
    return private.public_key().public_bytes_raw().hex()


def pem(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def sealed(keyring: Keyring, roots: Sequence[Ed25519PrivateKey]) -> SignedKeyring:
    """Sign a keyring with these roots."""
    message = Envelope(KEYRING, keyring.payload(), {}).to_sign()
    signatures = {key_id(root.public_key().public_bytes_raw()): root.sign(message) for root in roots}
    return SignedKeyring(keyring, Envelope(KEYRING, keyring.payload(), signatures))


@dataclass
class Publisher:
    """Somebody who publishes: three roots and one key that signs."""

    repo: str = ORG
    roots: list[Ed25519PrivateKey] = field(default_factory=lambda: [new_key() for _ in range(3)])
    key: Ed25519PrivateKey = field(default_factory=new_key)

    @property
    def key_id(self) -> str:
        return key_id(self.key.public_key().public_bytes_raw())

    def keyring(self, version: int = 1, *, keys: Sequence[Key] | None = None, revoked: Sequence[str] = ()) -> Keyring:
        """Return a version of the keyring; by default with one key, which may sign everything."""
        own = [Key(public=public(self.key), from_serial=0, to_serial=None, revoked=False)]
        return Keyring(
            repo=self.repo,
            version=version,
            created="2026-11-30",
            roots=[public(root) for root in self.roots],
            former_roots=[],
            keys=own if keys is None else keys,
            revoked=revoked,
        )

    def signed(self, keyring: Keyring | None = None, *, by: Sequence[int] = (0, 1)) -> SignedKeyring:
        """Return a keyring signed by some of the roots."""
        return sealed(keyring or self.keyring(), [self.roots[number] for number in by])

    def signing(self, keyring: SignedKeyring | None = None, key: Ed25519PrivateKey | None = None) -> Signing:
        """Return with what to publish."""
        return Signing(signer=KeySigner(key or self.key), keyring=keyring or self.signed())

    def known_in(self, folder: Path, keyring: SignedKeyring | None = None) -> dict[str, str]:
        """Let a machine know the keyring; returns the variable that its processes have then."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        path = folder / file_name(self.repo)
        path.write_bytes((keyring or self.signed()).envelope.encode())
        path.chmod(0o644)
        return {"GDN_AOT_KEYS": str(folder)}


class Flipped(DirectoryRegistry):
    """A directory whose files come with one bit changed."""

    def flip(self, path: str, bit: int) -> None:
        self._path, self._bit = path, bit

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        content = bytearray(super().read(snapshot, path))
        if path == self._path:
            content[self._bit // 8] ^= 1 << self._bit % 8
        return bytes(content)


def check_flips(root: Path, store: Store, tries: int) -> None:
    """Change one bit after another of what is signed in a registry, whose keyring has version 2: none is accepted."""
    registry, location = Flipped(str(root)), locate(str(root))
    snapshot = registry.resolve("v1")
    paths = (signature_path(SM_120), keyring_path(2), INDEX_SIGNATURE, INDEX)
    registry.flip("", 0)
    sizes = [len(registry.read(snapshot, path)) * 8 for path in paths]
    chosen = random.Random(20)

    def accepted() -> bool:
        try:
            snapshot, index = read_index(registry, "v1")
            publisher = publisher_of(location, registry, snapshot, index, store, unsigned=False)
            assert publisher is not None
            return bool(publisher.release(registry, snapshot, index.entries[0]).key)
        except VerificationError:
            return False

    assert accepted()
    for number in range(tries):
        which = number % len(paths)
        bit = chosen.randrange(sizes[which])
        registry.flip(paths[which], bit)
        assert not accepted(), (paths[which], bit)

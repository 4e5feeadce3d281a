"""Signing: with a key of a file or of an environment variable, or by a command, behind which a KMS or a token may be.

Private keys are handled by ``cryptography`` alone, in the extra ``[sign]``: no serving process signs.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from base64 import b64decode
from binascii import Error as Base64Error
from contextlib import suppress
from threading import Thread
from typing import IO, TYPE_CHECKING, Protocol

from gdn_aot._files import read_regular
from gdn_aot.errors import SigningError, UsageError
from gdn_aot.trust.ed25519 import SIGNATURE, verify_all
from gdn_aot.trust.envelope import Envelope, pre_authentication, refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from gdn_aot.trust.keyring import Keyring

KEY_VARIABLE = "GDN_AOT_SIGNING_KEY"
"""The variable that holds a private key, as a file of one does: for the secrets of a CI."""
_LARGEST = 16 << 10
"""Bytes of a file with a private key."""
_MOST_WRITTEN = 64 << 10
"""Bytes that a command may write, of which a signature is 88."""
_PATIENCE = 120
"""Seconds that a command may take: somebody may have to touch a token."""


class Signer(Protocol):
    """Something that signs."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature of a message.

        Raises:
            SigningError: It could not be signed.
        """


class KeySigner:
    """Signs with a private key in this process.

    Args:
        private: The key.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @property
    def public(self) -> bytes:
        """Its 32 public bytes."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        return self._private.sign(message)


class CommandSigner:
    """Signs by a command, which is given the message on its standard input and writes the signature in base64.

    Args:
        command: As in a shell; none is started.
    """

    def __init__(self, command: str) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"the command that signs cannot be read: {error}", hint="quote it as in a shell") from None
        if not self._command:
            raise UsageError("the command that signs is empty", hint="name one, with its arguments")

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message.

        Raises:
            SigningError: The command cannot be run, fails, or writes no signature.
        """
        name = self._command[0]
        try:
            code, written, complaint = _run(self._command, message)
        except (OSError, ValueError) as error:
            raise SigningError(f"{name} cannot be run: {error}") from error
        except subprocess.TimeoutExpired:
            raise SigningError(f"{name} has not signed within {_PATIENCE} seconds") from None
        if max(len(written), len(complaint)) > _MOST_WRITTEN:
            raise SigningError(f"{name} was stopped: it wrote more than {_MOST_WRITTEN} bytes")
        if code:
            said = " ".join(complaint.decode(errors="replace").split())[-300:]
            raise SigningError(f"{name} ended with {code}: {said or 'it says nothing'}")
        try:
            signature = b64decode(written.strip(), validate=True)
        except Base64Error:
            signature = b""
        if len(signature) != SIGNATURE:
            raise SigningError(f"{name} wrote no signature: {SIGNATURE} bytes in base64 were expected")
        return signature


def _run(command: Sequence[str], message: bytes) -> tuple[int, bytes, bytes]:
    """Return how a command ended and what it wrote to its output and its errors; it is stopped if that is too much.

    Raises:
        OSError: It cannot be run.
        subprocess.TimeoutExpired: It took too long.
    """
    said = bytearray(), bytearray()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as child:

        def give(to: IO[bytes]) -> None:
            with suppress(OSError, ValueError), to:
                rest = memoryview(message)
                while rest:
                    rest = rest[to.write(rest) :]

        def take(into: bytearray, out: IO[bytes]) -> None:
            with suppress(OSError, ValueError):
                while len(into) <= _MOST_WRITTEN and (found := out.read(4096)):
                    into += found
                if len(into) > _MOST_WRITTEN:
                    child.kill()

        takers = [(said[0], child.stdout), (said[1], child.stderr)]
        threads = [Thread(target=give, args=(child.stdin,), daemon=True)]
        threads += [Thread(target=take, args=taker, daemon=True) for taker in takers]
        for thread in threads:
            thread.start()
        try:
            code = child.wait(_PATIENCE)
        except BaseException:
            child.kill()
            raise
        for thread in threads:
            thread.join(1)  # what the command has started may live on and hold its pipes
    return code, bytes(said[0]), bytes(said[1])


def signer_of(key: Path | None, command: str | None) -> Signer | None:
    """Return what signs: a file's key, a command, or the key that `KEY_VARIABLE` holds; None if there is none.

    Raises:
        UsageError: Both are named, or what is named is no private key of Ed25519.
    """
    if key is not None and command is not None:
        raise UsageError("a key and a command that signs are both named", hint="name one of them")
    if command is not None:
        return CommandSigner(command)
    if key is not None:
        return read_private(key)
    held = os.environ.get(KEY_VARIABLE)
    return read_key(held.encode(errors="replace"), KEY_VARIABLE) if held else None


def read_private(path: Path) -> KeySigner:
    """Return the private key of a file.

    Raises:
        UsageError: It cannot be read, or holds none.
    """
    try:
        content = read_regular(path, _LARGEST)
    except (OSError, ValueError) as error:
        what = f"cannot read the key {path}: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, hint="gdn-aot keys new makes one") from error
    return read_key(content, str(path))


def new_private() -> bytes:
    """Return a new private key, as the PEM file of one: PKCS#8 without a password.

    Raises:
        UsageError: What makes one is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization as forms
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise _uninstalled() from None
    return Ed25519PrivateKey.generate().private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
    )


def _uninstalled() -> UsageError:
    return UsageError("signing needs the package cryptography", hint="pip install 'gdn-aot[sign]'")


def read_key(content: bytes, where: str) -> KeySigner:
    """Return the private key that the content of a file is.

    Raises:
        UsageError: It is none.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise _uninstalled() from None
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(
            f"{where} holds no private key of Ed25519 that can be read",
            hint="it is a PEM file without a password; gdn-aot keys new makes one",
        )
    return KeySigner(private)


def seal(kind: str, payload: bytes, serial: int, signer: Signer, keyring: Keyring) -> Envelope:
    """Return the envelope of a statement, signed with a key that may sign this publication.

    Raises:
        SigningError: It could not be signed.
        SignatureError: The key is not in the keyring, or may not sign it.
    """
    message = pre_authentication(kind, payload)
    signature = signer.sign(message)
    for key in keyring.keys:
        if verify_all([(bytes.fromhex(key.public), signature, message)]):
            if misfit := key.misfit(serial):
                raise refused(misfit, "what is to be published", hint="sign with another key; see gdn-aot keys rotate")
            return Envelope(kind, payload, {key.id: signature})
    raise refused(
        f"is signed with a key that is not in version {keyring.version} of the keyring of {keyring.repo}",
        "what is to be published",
        hint="sign with another key, or add this one: gdn-aot keys rotate",
    )

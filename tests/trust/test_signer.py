"""What signs: keys of files and of the environment, and commands."""

import base64
import shlex
import sys
from pathlib import Path

import keyrings
import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from keyrings import DAY, SIGNING, first, private, public

from gdn_aot.errors import GdnAotError, SignatureError, SigningError, UsageError
from gdn_aot.trust import edit, signer
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.signer import KEY_VARIABLE, CommandSigner, new_private, read_private, seal, signer_of

MESSAGE = b"DSSEv1 \0\xff\n" * 50
KIND = "application/vnd.gdn-aot.release+json"


def pem(key: object, password: bytes | None = None) -> bytes:
    protection = forms.BestAvailableEncryption(password) if password else forms.NoEncryption()
    return key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, protection)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(private(SIGNING)))
    return path


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def program(tmp_path: Path, code: str) -> str:
    """A command that runs Python code."""
    path = tmp_path / "sign it.py"
    path.write_text(f"import base64, sys\n{code}\n")
    return shlex.join([sys.executable, str(path)])


def test_a_new_key() -> None:
    one, other = (signer.read_key(new_private(), "a key") for _ in range(2))
    assert one.public != other.public
    assert verify_all([(one.public, one.sign(MESSAGE), MESSAGE)])


def test_where_a_key_may_be(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert signer_of(None, None) is None
    monkeypatch.setenv(KEY_VARIABLE, pem(private(7)).decode())
    for found, number in ((signer_of(None, None), 7), (signer_of(key, None), SIGNING)):
        assert found is not None
        assert found.sign(MESSAGE) == private(number).sign(MESSAGE)
    assert isinstance(signer_of(None, "sign"), CommandSigner)
    with pytest.raises(UsageError, match="both named"):
        signer_of(key, "sign")
    monkeypatch.setenv(KEY_VARIABLE, "")
    assert signer_of(None, None) is None


NO_KEYS = {
    "nothing": b"",
    "text": b"a key",
    "bytes": b"\0\xff" * 100,
    "a public key": private(1).public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo),
    "another curve": pem(ec.generate_private_key(ec.SECP256R1())),
    "a key of an exchange": pem(x25519.X25519PrivateKey.generate()),
    "with a password": pem(private(1), b"secret"),
    "cut": pem(private(1))[:-40],
    "raw": private(1).private_bytes_raw(),
}


@pytest.mark.parametrize("content", NO_KEYS.values(), ids=[*NO_KEYS])
def test_what_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="holds no private key") as caught:
        read_private(path)
    assert str(path) in caught.value.message
    text = content.decode(errors="replace").replace("\0", "")
    if text:
        monkeypatch.setenv(KEY_VARIABLE, text)
        with pytest.raises(UsageError) as caught:
            signer_of(None, None)
        assert KEY_VARIABLE in caught.value.message
        assert "BEGIN" not in f"{caught.value.message} {caught.value.hint}"  # nothing of a secret is repeated


def test_a_key_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, Path("/dev/zero"), tmp_path / "a\0b"):
        with pytest.raises(UsageError, match="cannot read the key"):
            read_private(path)


def test_a_command(tmp_path: Path, key: Path) -> None:
    code = f"""
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(open({str(key)!r}, "rb").read(), None)
print(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())
"""
    assert CommandSigner(program(tmp_path, code)).sign(MESSAGE) == private(SIGNING).sign(MESSAGE)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.exit('no token is there')", "ended with 1: no token is there"),
        ("sys.exit(3)", "ended with 3: it says nothing"),
        ("pass", "wrote no signature"),
        ("print(base64.b64encode(b'x' * 63).decode())", "wrote no signature"),
        ("print(base64.b64encode(b'x' * 65).decode())", "wrote no signature"),
        ("print('*' + base64.b64encode(b'x' * 64).decode())", "wrote no signature"),
        ("sys.stdout.buffer.write(b'x' * 64)", "wrote no signature"),
        ("print(base64.b64encode(b'x' * 64).decode(), 'and more')", "wrote no signature"),
        ("sys.stdin.close(); print(base64.b64encode(b'x' * 65).decode())", "wrote no signature"),
    ],
)
def test_a_command_that_does_not_sign(tmp_path: Path, code: str, why: str) -> None:
    with pytest.raises(SigningError, match=why):
        CommandSigner(program(tmp_path, code)).sign(MESSAGE * 2000)


@pytest.mark.parametrize("where", ["stdout", "stderr"])
def test_a_command_that_writes_without_end(tmp_path: Path, where: str) -> None:
    endless = program(tmp_path, f"while True: sys.{where}.write('x' * 4096)")
    with pytest.raises(SigningError, match="wrote more than 65536 bytes"):
        CommandSigner(endless).sign(MESSAGE)


def test_a_command_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signer, "_PATIENCE", 0.5)
    with pytest.raises(SigningError, match="has not signed within"):
        CommandSigner(program(tmp_path, "import time; time.sleep(60)")).sign(MESSAGE)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("", UsageError),
        ("  ", UsageError),
        ("'open", UsageError),
        ("/nowhere", SigningError),
        ("/", SigningError),
    ],
)
def test_what_is_no_command(command: str, kind: type[GdnAotError]) -> None:
    with pytest.raises(kind):
        CommandSigner(command).sign(MESSAGE)


def test_no_shell_is_started(tmp_path: Path) -> None:
    with pytest.raises(SigningError):
        CommandSigner(f"{program(tmp_path, 'pass')}; touch {tmp_path}/made").sign(MESSAGE)
    assert not (tmp_path / "made").exists()


def test_sealing() -> None:
    keyring = edit.rotate(first(), DAY, public=public(11), serial=4)
    for number, serial in ((SIGNING, 4), (11, 5)):
        envelope = seal(KIND, b"{}", serial, keyrings.signer(number), keyring)
        assert verify_all(envelope.signed({keyrings.id_of(number): keyrings.signer(number).public}))
    for number, serial, why in ((SIGNING, 5, "may sign from 0 to 4"), (11, 4, "from 5 on"), (1, 4, "not in version 2")):
        with pytest.raises(SignatureError, match=why):
            seal(KIND, b"{}", serial, keyrings.signer(number), keyring)
    revoked = edit.revoke(keyring, DAY, [keyrings.id_of(SIGNING)])
    with pytest.raises(SignatureError, match="was revoked"):
        seal(KIND, b"{}", 1, keyrings.signer(SIGNING), revoked)


def test_a_command_that_signs_something_else(tmp_path: Path) -> None:
    signature = base64.b64encode(private(SIGNING).sign(b"something else")).decode()
    command = CommandSigner(program(tmp_path, f"print({signature!r})"))
    with pytest.raises(SignatureError, match="not in version 1"):
        seal(KIND, b"{}", 1, command, first())

"""Keyrings: whose signatures make one, and which version follows which."""

import json
from pathlib import Path

import keyrings
import pytest
from keyrings import DAY, NEW_ROOTS, REPO, ROOTS, SIGNING, changed, file_of, first, id_of, public, signed

from gdn_aot.errors import KeyringError, SignatureError, UsageError
from gdn_aot.trust import edit
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import Envelope
from gdn_aot.trust.keyring import KEYRING, Key, Keyring, SignedKeyring, read_keyring, verify_statement
from gdn_aot.trust.known import file_name, learned_path, newest
from gdn_aot.trust.places import KEYS
from gdn_aot.trust.statement import INDEX_STATEMENT, IndexStatement, payload

NEW_KEY = 11
OTHER = "hf://other/name"


def second(roots: tuple[int, ...] = NEW_ROOTS) -> Keyring:
    """Version 2, with other roots."""
    return edit.rotate(first(), DAY, roots=[*map(public, roots)])


def third() -> Keyring:
    return edit.rotate(second(), DAY, public=public(NEW_KEY), serial=9)


def unchecked(keyring: Keyring, *numbers: int) -> SignedKeyring:
    """A keyring with signatures of whoever, as somebody may write who does not use this package."""
    message = edit.unsigned(keyring).envelope.to_sign()
    signatures = {id_of(number): keyrings.signer(number).sign(message) for number in numbers}
    return SignedKeyring(keyring, Envelope(KEYRING, keyring.payload(), signatures))


def test_round_trip() -> None:
    keyring = edit.revoke(third(), DAY, [id_of(SIGNING), "a" * 64])
    data = file_of(keyring, *NEW_ROOTS)
    found = read_keyring(data)
    assert found.keyring == keyring
    assert found.envelope.encode() == data
    assert found.verify() == keyring
    assert (keyring.version, keyring.former_roots) == (4, ())
    assert keyring.keys == (
        Key(public=public(SIGNING), from_serial=0, to_serial=9, revoked=True),
        Key(public=public(NEW_KEY), from_serial=10, to_serial=None, revoked=False),
    )


def test_every_bit() -> None:
    """Each single bit of a file: refused by its form, by its fields, by the ids of its signers or by arithmetic."""
    data = file_of(edit.revoke(third(), DAY, ["b" * 64]), *NEW_ROOTS[:2])
    assert read_keyring(data).verify()
    arithmetic = 0
    assert 8 * len(data) > 9_000
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = read_keyring(bytes(flipped))
        except SignatureError:
            continue
        with pytest.raises(SignatureError) as caught:
            found.verify()
        arithmetic += "not right" in caught.value.message
    assert arithmetic > 500


@pytest.mark.parametrize("numbers", [(), (1,), (2,), (3,)])
def test_two_roots_must_sign(numbers: tuple[int, ...]) -> None:
    found = read_keyring(file_of(first(), *numbers))
    with pytest.raises(SignatureError, match=f"is signed by {len(numbers)} of its roots"):
        found.verify()
    for one, other in ((1, 2), (1, 3), (2, 3)):
        assert read_keyring(file_of(first(), one, other)).verify() == first()


def test_one_root_that_signs_twice_is_one() -> None:
    found = signed(first(), 1)
    twice = found.envelope.encode().replace(b'"signatures":[', b'"signatures":[' + _signature(found) + b",")
    with pytest.raises(SignatureError):
        read_keyring(twice)


def _signature(found: SignedKeyring) -> bytes:
    return json.dumps(json.loads(found.envelope.encode())["signatures"][0], separators=(",", ":")).encode()


@pytest.mark.parametrize("strangers", [(SIGNING,), (7,), (4, 5, 6)])
def test_others_signatures(strangers: tuple[int, ...]) -> None:
    with pytest.raises(SignatureError, match="1 of its roots"):
        unchecked(first(), 1, *strangers).verify()
    with pytest.raises(SignatureError, match="is signed with key"):
        unchecked(first(), 1, 2, *strangers).verify()
    with pytest.raises(SignatureError, match="none of them"):
        signed(first(), *strangers)


def test_a_signature_of_another_root_under_ones_id() -> None:
    found = signed(first(), 1, 2)
    own, other = (found.envelope.signatures[id_of(number)] for number in (1, 2))
    for signatures in ({id_of(1): other, id_of(2): own}, {id_of(1): own, id_of(3): other}):
        with pytest.raises(SignatureError, match="not right"):
            SignedKeyring(found.keyring, Envelope(KEYRING, found.envelope.payload, signatures)).verify()


def test_what_follows() -> None:
    v1, v2 = first(), edit.rotate(first(), DAY, public=public(NEW_KEY), serial=4)
    assert signed(v2, 1, 3).verify(v1) == v2
    for older in (v1, v2):
        with pytest.raises(SignatureError, match="is known already"):
            signed(older, *ROOTS).verify(v2)
    with pytest.raises(SignatureError, match=f"is for {OTHER}, expected {REPO}"):
        signed(changed(v2, repo=OTHER), *ROOTS).verify(v1)
    stranger = edit.rotate(first(roots=NEW_ROOTS), DAY, public=public(NEW_KEY), serial=4)
    with pytest.raises(SignatureError, match="0 of version 1's roots"):
        signed(stranger, *NEW_ROOTS).verify(v1)
    skipped = edit.revoke(v2, DAY, ["c" * 64])
    assert signed(skipped, 1, 2).verify(v1) == skipped  # the same roots vouch for it


def test_roots_that_change() -> None:
    v2 = second()
    assert v2.former_roots == first().roots
    assert signed(v2, 1, 2, 4, 5).verify(first()) == v2
    for numbers in ((4, 5), (1, 4, 5), (3, 4, 5, 6)):
        with pytest.raises(SignatureError, match=r"its former roots|version 1's roots"):
            signed(v2, *numbers).verify(first())
        with pytest.raises(SignatureError, match="its former roots"):  # also to whom no older one is known
            signed(v2, *numbers).verify()
    for numbers in ((1, 2), (1, 2, 3, 4)):
        with pytest.raises(SignatureError, match="of its roots"):
            signed(v2, *numbers).verify(first())
    hidden = changed(v2, former_roots=())
    with pytest.raises(SignatureError, match="0 of version 1's roots"):
        signed(hidden, *NEW_ROOTS).verify(first())
    with pytest.raises(SignatureError, match="is signed with key"):  # of nobody that it names
        unchecked(hidden, 1, 2, 4, 5).verify(first())
    lying = changed(v2, former_roots=[*map(public, (7, 8, 9))])
    with pytest.raises(SignatureError, match="0 of version 1's roots"):
        signed(lying, 4, 5, 7, 8).verify(first())


def test_one_root_that_changes() -> None:
    v2 = second((1, 2, 7))
    assert signed(v2, 1, 2).verify(first()) == v2
    assert signed(v2, 1, 2, 7).verify(first()) == v2
    with pytest.raises(SignatureError, match="1 of its former roots"):
        signed(v2, 1, 7).verify()
    with pytest.raises(SignatureError, match="1 of version 1's roots"):
        signed(v2, 1, 7).verify(first())


def test_a_version_after_the_roots_have_changed_does_not_follow_the_first() -> None:
    v3 = third()
    assert signed(v3, 4, 5).verify(second()) == v3
    with pytest.raises(SignatureError, match="0 of version 1's roots"):
        signed(v3, *NEW_ROOTS).verify(first())


def _key(number: int, **fields: object) -> Key:
    return Key(**{"public": public(number), "from_serial": 0, "to_serial": None, "revoked": False, **fields})  # type: ignore[arg-type]


UNSOUND: dict[str, dict[str, object]] = {
    "a root that signs": {"keys": [_key(1)]},
    "a former root that signs": {"keys": [_key(4)], "former_roots": [*map(public, NEW_ROOTS)]},
    "a key twice": {"keys": [_key(SIGNING), _key(SIGNING, from_serial=5)]},
    "a root twice": {"roots": [*map(public, (1, 2, 2))]},
    "two roots": {"roots": [*map(public, (1, 2))]},
    "four roots": {"roots": [*map(public, (1, 2, 3, 4))]},
    "two former roots": {"former_roots": [*map(public, (4, 5))]},
    "a former root twice": {"former_roots": [*map(public, (4, 5, 5))]},
    "version 0": {"version": 0},
    "version of a float": {"version": 1.0},
    "version of true": {"version": True},
    "no repository": {"repo": "org/name"},
    "a repository of two dashes": {"repo": "hf://org/na--me"},
    "no day": {"created": "today"},
    "a root in capitals": {"roots": [public(1).upper(), public(2), public(3)]},
    "a root of a number": {"roots": [1, public(2), public(3)]},
    "a root of a list": {"roots": [[], public(2), public(3)]},
    "a short key": {"keys": [_key(SIGNING, public="ab")]},
    "a serial of a float": {"keys": [_key(SIGNING, from_serial=0.0)]},
    "a negative serial": {"keys": [_key(SIGNING, to_serial=-1)]},
    "a serial that not every reader keeps": {"keys": [_key(SIGNING, to_serial=1 << 53)]},
    "revoked of a number": {"keys": [_key(SIGNING, revoked=1)]},
    "an artifact that is none": {"revoked": ["x"]},
}


@pytest.mark.parametrize("fields", UNSOUND.values(), ids=[*UNSOUND])
def test_an_unsound_one_is_refused_whoever_has_signed_it(fields: dict[str, object]) -> None:
    data = unchecked(changed(first(), **fields), *ROOTS).envelope.encode()
    with pytest.raises(SignatureError, match="the keyring "):
        read_keyring(data)


def test_editing_refuses_a_key_in_two_roles() -> None:
    for roots, number in (((1, 2, 3), 1), ((1, 1, 2), 9)):
        with pytest.raises(UsageError, match="two roles"):
            edit.first(REPO, DAY, [*map(public, roots)], public(number))
    for number in (1, SIGNING):
        with pytest.raises(UsageError, match="two roles"):
            edit.rotate(first(), DAY, public=public(number), serial=1)
    with pytest.raises(UsageError, match="two roles"):  # a root of before does not sign publications now
        edit.rotate(first(), DAY, public=public(1), serial=1, roots=[*map(public, NEW_ROOTS)])


def test_serials_of_keys() -> None:
    v2 = edit.rotate(first(), DAY, public=public(11), serial=4)
    v3 = edit.rotate(v2, DAY, public=public(12), serial=7)
    assert [(key.from_serial, key.to_serial) for key in v3.keys] == [(0, 4), (5, 7), (8, None)]
    with pytest.raises(UsageError, match="cannot end at 3"):
        edit.rotate(v2, DAY, public=public(12), serial=3)
    v4 = edit.revoke(edit.rotate(v3, DAY, public=public(13), serial=20), DAY, [id_of(12)])
    v5 = edit.rotate(v4, DAY, public=public(14), serial=30)
    assert [(key.from_serial, key.to_serial, key.revoked) for key in v5.keys] == [
        (0, 4, False), (5, 7, False), (8, 20, True), (21, 30, False), (31, None, False),
    ]  # fmt: skip


def test_a_key_that_signs_is_left() -> None:
    """Else nobody could publish the version, nor one that follows it."""
    v2 = edit.rotate(first(), DAY, public=public(11), serial=4)
    for keyring, names in ((first(), [SIGNING]), (v2, [11]), (v2, [SIGNING, 11])):
        with pytest.raises(UsageError, match="no key would be left"):
            edit.revoke(keyring, DAY, map(id_of, names))
    assert [key.revoked for key in edit.revoke(v2, DAY, [id_of(SIGNING)]).keys] == [True, False]


@pytest.mark.parametrize(
    ("number", "serial", "fault"),
    [
        (10, 0, ""), (10, 4, ""), (10, 5, "may sign from 0 to 4"), (11, 4, "may sign from 5 on"), (11, 5, ""),
        (11, 10**9, ""),
        (1, 3, "not in the keyring"), (12, 3, "revoked"), (7, 3, "not in the keyring"),
    ],
)  # fmt: skip
def test_which_key_may_sign_what(number: int, serial: int, fault: str) -> None:
    keyring = edit.rotate(first(), DAY, public=public(11), serial=4)
    keyring = changed(keyring, keys=[*keyring.keys, _key(12, revoked=True)])
    statement = IndexStatement(repo=REPO, sha256="a" * 64, size=1, serial=serial, keyring=1)
    envelope = Envelope(INDEX_STATEMENT, payload(statement), {})
    signature = keyrings.signer(number).sign(envelope.to_sign())
    envelope = Envelope(INDEX_STATEMENT, envelope.payload, {id_of(number): signature})
    if fault:
        with pytest.raises(SignatureError, match=fault):
            verify_statement(statement, envelope, keyring)
        return
    assert verify_all(verify_statement(statement, envelope, keyring))
    with pytest.raises(SignatureError, match="expected hf://other/name"):
        verify_statement(statement, envelope, changed(keyring, repo=OTHER))
    with pytest.raises(SignatureError, match="has revoked"):
        verify_statement(statement, envelope, changed(keyring, revoked=["b" * 64]), sha256="b" * 64)
    two = Envelope(INDEX_STATEMENT, envelope.payload, {**envelope.signatures, id_of(7): b"x" * 64})
    with pytest.raises(SignatureError, match="2 signatures"):
        verify_statement(statement, two, keyring)


def test_signing_refuses_what_was_changed() -> None:
    found = signed(first(), 1)
    forged = edit.revoke(first(), DAY, ["a" * 64])
    carried = SignedKeyring(forged, Envelope(KEYRING, forged.payload(), found.envelope.signatures))
    with pytest.raises(SignatureError, match="not right"):
        edit.sign(carried, [keyrings.signer(2)])


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that keyrings are known from; the home is ``tmp_path``."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (tmp_path / "trust").mkdir()
    monkeypatch.setenv(KEYS, str(folder))
    return folder


def versions(home: Path) -> list[int]:
    return [known.signed.keyring.version for known in newest(REPO, str(home))]


def test_what_was_learned_from_a_registry(places: Path, tmp_path: Path) -> None:
    learned = Path(learned_path(REPO, str(tmp_path)))
    files = [file_of(first(), 1, 2), file_of(second(), 1, 2, 4, 5), file_of(third(), 4, 5)]
    learned.write_bytes(b"".join(files))
    assert versions(tmp_path) == []  # what nobody here has put in a place counts for nothing
    place = places / file_name(REPO)
    for number in (1, 2, 3):
        place.write_bytes(files[number - 1])
        assert versions(tmp_path) == list(range(number, 4))
    place.write_bytes(files[0])
    assert newest(OTHER, str(tmp_path)) == []


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([file_of(third(), 4, 5)], "version 1's roots"),
        ([unchecked(second(), 4, 5).envelope.encode()], "version 1's roots"),
        ([file_of(changed(first(), version=2, repo=OTHER), 1, 2)], f"is for {OTHER}"),
        ([file_of(second(), 1, 2, 4, 5)[:-20]], "no envelope"),
        ([b"\n"], "no envelope"),
    ],
)
def test_what_does_not_follow_is_not_learned(places: Path, tmp_path: Path, lines: list[bytes], fault: str) -> None:
    (places / file_name(REPO)).write_bytes(file_of(first(), 1, 2))
    Path(learned_path(REPO, str(tmp_path))).write_bytes(b"".join(lines))
    with pytest.raises(KeyringError, match=fault) as caught:
        newest(REPO, str(tmp_path))
    assert caught.value.problems[0].where == learned_path(REPO, str(tmp_path))


def test_a_file_of_another_repository_or_of_somebody_else(places: Path, tmp_path: Path) -> None:
    place = places / file_name(REPO)
    place.write_bytes(file_of(first(OTHER), 1, 2))
    with pytest.raises(KeyringError, match=f"is for {OTHER}, expected {REPO}"):
        newest(REPO, str(tmp_path))
    place.write_bytes(file_of(first(), 1, 2))
    place.chmod(0o666)
    with pytest.raises(KeyringError, match="may be written by others"):
        newest(REPO, str(tmp_path))

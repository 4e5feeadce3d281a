"""Signed artifacts in a store: who wrote them does not matter, what was signed does."""

import hashlib
import os
import random
from pathlib import Path

import pytest
import storing
from planting_store import give_away, header_of, rewrite
from signing import Publisher, new_key, public

from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import SignatureError, UntrustedError, VerificationError
from gdn_aot.machine.owners import TRUST
from gdn_aot.registry.layout import entry_of
from gdn_aot.registry.signing import Publication, content_of
from gdn_aot.store.install import install
from gdn_aot.store.seen import remember
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.upkeep import audit
from gdn_aot.trust.keyring import Key
from gdn_aot.trust.known import file_name
from gdn_aot.trust.signer import KeySigner


@pytest.fixture
def org(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A publisher whom this machine knows."""
    publisher = Publisher()
    monkeypatch.setenv("GDN_AOT_KEYS", publisher.known_in(tmp_path / "keys")["GDN_AOT_KEYS"])
    return publisher


def release(org: Publisher, artifact: Artifact) -> bytes:
    """What a publisher signs of an artifact."""
    made = Publication(
        signer=KeySigner(org.key), keyring=org.keyring(), new_keyring=None, serial=1, resigned=False
    ).statement(entry_of(artifact), content_of(artifact))
    assert isinstance(made.content, bytes)
    return made.content


@pytest.fixture
def place(home: Path, one: Artifact, org: Publisher) -> Path:
    """A signed artifact that is installed."""
    return Path(install(Store(str(home)), one, release=release(org, one)).place)


def refusal(place: Path, kind: type[VerificationError] = SignatureError) -> str:
    with pytest.raises(kind) as caught:
        StoredArtifact(str(place))
    assert caught.value.exit_code == 5
    return caught.value.message


def test_whoever_wrote_it(place: Path, org: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (StoredArtifact(str(place)).key, StoredArtifact(str(place)).publisher) == (org.key_id, org.repo)
    for path in (place, *place.iterdir()):
        path.chmod(path.stat().st_mode | 0o022)
        give_away(path, monkeypatch)
    stored = StoredArtifact(str(place))
    assert stored.key == org.key_id
    assert stored.read_blob(next(iter(storing.contents(place))))
    assert stored.manifest.identifier == stored.header["identifier"]
    (place / "release.json").unlink()
    assert "belongs to user" in refusal(place, UntrustedError)


@pytest.mark.parametrize("trust", ["owner", "signed"])
def test_rewritten_with_right_digests(place: Path, monkeypatch: pytest.MonkeyPatch, trust: str) -> None:
    """By whoever may write the store: the index says what that one wants, and all of its digests are right."""
    monkeypatch.setenv(TRUST, trust)
    rewrite(place, {**header_of(place), "target": "sm_121"})
    assert "the artifact was changed" in refusal(place)
    monkeypatch.setenv(TRUST, "any")
    assert StoredArtifact(str(place)).header["target"] == "sm_121"


def test_signed_alone(home: Path, place: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(TRUST, "signed")
    assert StoredArtifact(str(place)).key
    (place / "release.json").unlink()
    assert "it is not signed, and GDN_AOT_TRUST is signed" in refusal(place, UntrustedError)
    other = storing.put(home, storing.variant(tmp_path, 2))
    assert "it is not signed" in refusal(other, UntrustedError)
    monkeypatch.setenv(TRUST, "owner")
    assert StoredArtifact(str(other)).key == ""


def test_the_statement_of_another_artifact(home: Path, place: Path, org: Publisher, tmp_path: Path) -> None:
    artifact = storing.variant(tmp_path, 2)
    other = Path(install(Store(str(home)), artifact, release=(place / "release.json").read_bytes()).place)
    assert "is for " in refusal(other)


def test_a_publisher_who_is_not_known(place: Path, org: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then who wrote it counts, as for what is not signed."""
    Path(os.environ["GDN_AOT_KEYS"], file_name(org.repo)).unlink()
    assert StoredArtifact(str(place)).key == ""
    monkeypatch.setenv(TRUST, "signed")
    assert f"no key of {org.repo} is known here" in refusal(place, UntrustedError)


def test_an_index_of_a_later_format(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by a gdn-aot that came after the signature: who wrote it counts."""
    monkeypatch.setattr("gdn_aot.store.stored.FORMAT", 99)
    assert StoredArtifact(str(place)).key == ""
    monkeypatch.setenv(TRUST, "signed")
    assert "signed for indexes of format 3, not 99" in refusal(place, UntrustedError)


def test_what_is_revoked_is_refused_at_once(home: Path, place: Path, org: Publisher, one: Artifact) -> None:
    """By a keyring that came from the registry after the artifact was installed."""
    remember(Store(str(home)), org.repo, [org.signed(org.keyring(2, revoked=[one.sha256]))])
    assert f"{org.repo} has revoked" in refusal(place)
    assert "has revoked" in str(audit(Store(str(home))).problems[0])
    revoked = [
        Key(public=public(org.key), from_serial=0, to_serial=None, revoked=True),
        Key(public=public(new_key()), from_serial=0, to_serial=None, revoked=False),
    ]
    remember(Store(str(home)), org.repo, [org.signed(org.keyring(3, keys=revoked))])
    assert "which was revoked" in refusal(place)


def test_keyrings_that_others_put_beside_the_store(home: Path, place: Path, org: Publisher) -> None:
    """None vouches for a key: neither one that does not follow, nor one whose signatures are wrong."""
    learned = home / "trust" / f"{file_name(org.repo)}l"
    learned.parent.mkdir()
    learned.write_bytes(Publisher(org.repo).signed(org.keyring(2)).envelope.encode())
    assert "signed by 0 of version 1's roots" in refusal(place)
    good = org.signed(org.keyring(2))
    root, signature = next(iter(good.envelope.signatures.items()))
    good.envelope.signatures[root] = bytes([signature[0] ^ 1]) + signature[1:]
    learned.write_bytes(good.envelope.encode())
    assert "signature that is not right" in refusal(place)
    learned.write_bytes(b"{}\n")
    assert "is no envelope" in refusal(place)
    learned.unlink()
    assert StoredArtifact(str(place)).key


def test_a_keyring_that_others_may_have_written(place: Path, org: Publisher) -> None:
    Path(os.environ["GDN_AOT_KEYS"], file_name(org.repo)).chmod(0o666)
    assert "may be written by others" in refusal(place, VerificationError)


def test_installing_again_brings_the_statement(home: Path, one: Artifact, org: Publisher) -> None:
    place = Path(storing.put(home, one))
    assert not (place / "release.json").exists()
    done = install(Store(str(home)), one, release=release(org, one))
    assert (done.new, done.repaired) == (False, False)
    assert StoredArtifact(str(place)).key == org.key_id


def test_every_bit_of_a_keyring_in_its_place(home: Path, place: Path, org: Publisher) -> None:
    """Also after it was noted that it had been verified: the note is of the file as it was."""
    path = Path(os.environ["GDN_AOT_KEYS"], file_name(org.repo))
    good = path.read_bytes()
    remember(Store(str(home)), org.repo, checked=hashlib.sha256(good).hexdigest())
    assert StoredArtifact(str(place)).key == org.key_id
    chosen = random.Random(7)
    for _ in range(300):
        flipped = bytearray(good)
        flipped[chosen.randrange(len(good))] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(VerificationError):
            StoredArtifact(str(place))
    path.write_bytes(good)
    note = home / "trust" / f"{file_name(org.repo)}.checked"
    note.chmod(0o666)
    assert StoredArtifact(str(place)).key == org.key_id, "then it is verified again"


def test_every_bit_of_a_statement(place: Path) -> None:
    path, chosen = place / "release.json", random.Random(8)
    good = path.read_bytes()
    for _ in range(300):
        flipped = bytearray(good)
        flipped[chosen.randrange(len(good))] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(VerificationError):
            StoredArtifact(str(place))

"""Signed artifacts in a store: who wrote them does not matter, what was signed does."""

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import storing
from planting_store import give_away, header_of, rewrite
from signing import Publisher, new_key, public

from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import KeyringError, SignatureError, UntrustedError, VerificationError
from gdn_aot.machine.owners import TRUST
from gdn_aot.registry.layout import entry_of
from gdn_aot.registry.signing import Publication, content_of
from gdn_aot.store.install import install
from gdn_aot.store.seen import remember
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.upkeep import audit
from gdn_aot.trust.keyring import Key
from gdn_aot.trust.known import file_name, newest
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


def garbage(learned: Path, org: Publisher) -> None:
    learned.write_bytes(b"{}\n")


def of_a_stranger(learned: Path, org: Publisher) -> None:
    learned.write_bytes(Publisher(org.repo).signed(org.keyring(2)).envelope.encode())


def forged(learned: Path, org: Publisher) -> None:
    good = org.signed(org.keyring(2))
    root, signature = next(iter(good.envelope.signatures.items()))
    good.envelope.signatures[root] = bytes([signature[0] ^ 1]) + signature[1:]
    learned.write_bytes(good.envelope.encode())


def no_file(learned: Path, org: Publisher) -> None:
    learned.mkdir()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (garbage, "is no envelope"),
        (of_a_stranger, "signed by 0 of version 1's roots"),
        (forged, "signature that is not right"),
        (no_file, "is not a regular file"),
    ],
)
def test_keyrings_that_others_put_beside_the_store(
    home: Path, place: Path, org: Publisher, damage: Callable[[Path, Publisher], None], why: str
) -> None:
    """None vouches for a key: none that does not follow, none that is damaged. The artifact is not to blame."""
    learned = home / "trust" / f"{file_name(org.repo)}l"
    learned.parent.mkdir()
    damage(learned, org)
    message = refusal(place, KeyringError)
    assert why in message
    assert str(learned) in message
    found = audit(Store(str(home)), repair=True)
    assert [problem.where for problem in found.problems] == [str(learned), str(place)]
    assert found.removed == ()
    error = found.error(repaired=True)
    assert isinstance(error, KeyringError)
    assert [problem.where for problem in error.problems] == [str(learned)]
    learned.rmdir() if learned.is_dir() else learned.unlink()
    assert StoredArtifact(str(place)).key
    assert audit(Store(str(home)), repair=True).error(repaired=True) is None


def test_a_keyring_that_others_may_have_written(
    home: Path, place: Path, org: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(os.environ["GDN_AOT_KEYS"], file_name(org.repo))
    path.chmod(0o666)
    assert "may be written by others" in refusal(place, KeyringError)
    found = audit(Store(str(home)), repair=True)
    assert found.removed == ()
    assert [problem.where for problem in found.keyrings] == [str(path)]
    monkeypatch.setenv(TRUST, "any")  # which is for artifacts
    with pytest.raises(KeyringError, match="may be written by others") as caught:
        newest(org.repo, str(home))
    assert "GDN_AOT_TRUST" not in caught.value.hint


def test_a_key_of_a_keyring_that_is_not_here_yet(home: Path, place: Path, org: Publisher) -> None:
    """As where a store was carried here without what was learned: a repair leaves what a newer one may vouch for."""
    older = Key(public=public(new_key()), from_serial=0, to_serial=None, revoked=False)
    org.known_in(Path(os.environ["GDN_AOT_KEYS"]), org.signed(org.keyring(keys=[older])))
    assert f"has no key {org.key_id}" in refusal(place, KeyringError)
    assert audit(Store(str(home)), repair=True).removed == ()


def test_what_was_changed_is_removed_by_a_repair(home: Path, place: Path) -> None:
    rewrite(place, {**header_of(place), "target": "sm_121"})
    assert [removed.place for removed in audit(Store(str(home)), repair=True).removed] == [str(place)]


@pytest.mark.parametrize("named", ["missing", "a file", "relative"])
def test_a_directory_of_keyrings_that_cannot_be_read(
    home: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """Then nobody knows what counts: what is signed is refused, and not taken for unsigned."""
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("GDN_AOT_KEYS", "keys" if named == "relative" else str(tmp_path / named))
    monkeypatch.chdir(tmp_path)
    assert "GDN_AOT_KEYS names it" in refusal(place, KeyringError)
    found = audit(Store(str(home)), repair=True)
    assert found.removed == ()
    assert [problem.where for problem in found.keyrings] == [os.environ["GDN_AOT_KEYS"]]
    other = storing.put(home, storing.variant(tmp_path, 2))
    assert StoredArtifact(str(other)).key == "", "who wrote what is not signed is known"


def test_a_relative_directory_of_keyrings_where_there_is_none(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDN_AOT_KEYS", "keys")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "is not absolute" in refusal(place, KeyringError)


@pytest.mark.parametrize("trust", ["Signed", "SIGNED", " signed"])
def test_the_policy_without_regard_to_case(place: Path, monkeypatch: pytest.MonkeyPatch, trust: str) -> None:
    monkeypatch.setenv(TRUST, trust)
    (place / "release.json").unlink()
    assert "it is not signed" in refusal(place, UntrustedError)


def test_what_is_revoked_without_its_statement(
    home: Path, place: Path, org: Publisher, one: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes the statement away has gained nothing."""
    (place / "release.json").unlink()
    assert StoredArtifact(str(place)).key == ""
    remember(Store(str(home)), org.repo, [org.signed(org.keyring(2, revoked=[one.sha256]))])
    assert f"{org.repo} has revoked" in refusal(place)
    stranger = Publisher("hf://other/kernels")
    (place / "release.json").write_bytes(release(stranger, one))
    assert f"{org.repo} has revoked" in refusal(place), "nor has who puts that of a stranger there"
    (place / "release.json").unlink()
    monkeypatch.setenv(TRUST, "any")
    assert StoredArtifact(str(place)).key == ""
    monkeypatch.delenv(TRUST)
    assert [removed.place for removed in audit(Store(str(home)), repair=True).removed] == [str(place)]


def test_what_is_revoked_stays_so_where_a_newer_keyring_is_damaged(
    home: Path, place: Path, org: Publisher, one: Artifact
) -> None:
    (place / "release.json").unlink()
    org.known_in(Path(os.environ["GDN_AOT_KEYS"]), org.signed(org.keyring(revoked=[one.sha256])))
    (home / "trust").mkdir()
    learned = home / "trust" / f"{file_name(org.repo)}l"
    garbage(learned, org)
    assert f"{org.repo} has revoked" in refusal(place)
    learned.write_bytes(org.signed(org.keyring(2)).envelope.encode())
    assert StoredArtifact(str(place)).key == "", "a newer keyring may take it back"


def test_nobody_revokes_with_a_keyring_that_is_forged(home: Path, place: Path, org: Publisher, one: Artifact) -> None:
    (place / "release.json").unlink()
    (home / "trust").mkdir()
    good = org.signed(org.keyring(2, revoked=[one.sha256]))
    root, signature = next(iter(good.envelope.signatures.items()))
    good.envelope.signatures[root] = bytes([signature[0] ^ 1]) + signature[1:]
    (home / "trust" / f"{file_name(org.repo)}l").write_bytes(good.envelope.encode())
    assert StoredArtifact(str(place)).key == ""


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

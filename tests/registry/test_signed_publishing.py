"""Publishing that signs: what it takes, what it refuses, and what is there when it was killed."""

import shutil
from dataclasses import replace as replaced
from pathlib import Path

import pytest
from loopback import ORG as HUB_ORG
from loopback import LoopbackHub
from machines import Machine
from making import WANTED, make
from processes import RENAMES, killed_at
from signed_registries import get, known, org, places, put, refused, root, store
from signing import Publisher, new_key, pem, public

from gdn_aot.errors import SignatureError, SigningError
from gdn_aot.registry.layout import INDEX_SIGNATURE
from gdn_aot.registry.signing import Signing
from gdn_aot.store.seen import read_seen
from gdn_aot.store.store import Store
from gdn_aot.trust.keyring import Key

__all__ = ["known", "org", "root", "store"]
pytestmark = pytest.mark.usefixtures("known")


def test_publishing_needs_the_key_from_then_on(root: Path, org: Publisher, tmp_path: Path) -> None:
    with pytest.raises(SigningError, match="has no keyring yet"):
        put(root, Signing(signer=org.signing().signer), make(tmp_path))
    put(root, org.signing(), make(tmp_path))
    with pytest.raises(SigningError, match="is signed, and what is not would be refused"):
        put(root, None, make(tmp_path, "sm_90"))
    with pytest.raises(SignatureError, match="is not in version 1 of the keyring"):
        put(root, org.signing(key=new_key()), make(tmp_path, "sm_90"))
    ended = org.keyring(2, keys=[Key(public=public(org.key), from_serial=0, to_serial=1, revoked=False)])
    with pytest.raises(SignatureError, match="may sign from 0 to 1"):
        put(root, org.signing(org.signed(ended)), make(tmp_path, "sm_90"))
    put(root, Signing(signer=org.signing().signer), make(tmp_path, "sm_90"))  # the keyring is there


def test_publishing_that_is_killed_leaves_a_state_that_counts(root: Path, org: Publisher, tmp_path: Path) -> None:
    """Killed before each of its steps, which publishing again completes: what is there is signed, old or new."""
    old, new = make(tmp_path), make(tmp_path, build=1)
    put(root, org.signing(), old, tag="v1.0.0")
    found, killed = [], True
    while killed:
        place = root.with_name(f"root-{len(found)}")
        shutil.copytree(root, place)
        killed = killed_at(
            len(found), lambda place=place: put(place, org.signing(), new, tag="v1.1.0", replace=True), RENAMES
        )
        for again in (False, True):
            if again:
                put(place, org.signing(), new, tag="v1.1.0", replace=True)
            _, (row,), _ = get(place, Store(str(place.with_name(f"home-{len(found)}-{again}"))))
            assert row.signed == org.key_id
            assert row.sha256 in ({new.sha256} if again else {old.sha256, new.sha256})
        found.append(row.sha256)
    assert len(found) > 5


def test_on_the_hub(store: Store, org: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the unmodified client: signed, fetched, pinned by commit, replaced, and of another repository refused."""
    with LoopbackHub() as hub:
        machine = Machine(home=tmp_path / "machine", endpoint=hub.url)
        for name, value in machine.environment().items():
            if name.startswith(("HF_", "NO_PROXY")):
                monkeypatch.setenv(name, value)
        repo = f"hf://{HUB_ORG}/kernels"
        owner = Publisher(repo)
        key, keyring = tmp_path / "signing.pem", tmp_path / "keyring.json"
        key.write_bytes(pem(owner.key))
        keyring.write_bytes(owner.signed().envelope.encode())
        known = owner.known_in(tmp_path / "known")
        one = make(tmp_path)
        words = ("--repo", repo, "--key", key, "--keyring", keyring)
        done = machine.run("publish", one.path, *words, "--create", "--tag", "v1.0.0", "--json").json
        assert (done["serial"], done["keyring"]) == (1, 1)
        wanted = ("fetch", "--repo", repo, "--arch", "sm_120", *WANTED)
        assert "is of" in machine.run(*wanted, code=5).err
        assert f"signed by {owner.key_id}" in machine.run(*wanted, **known).out
        new = make(tmp_path, build=1)
        machine.run("publish", new.path, *words[:4], "--replace", "--tag", "v1.1.0")
        assert new.sha256 in machine.run(*wanted, "--json", **known).out
        assert one.sha256 in machine.run(*wanted, "--revision", "v1.0.0", "--json", **known).out
        assert "already installed" in machine.run(*wanted, **known, HF_HUB_OFFLINE="1").out
        other = Publisher(f"hf://{HUB_ORG}/other")
        keyring.write_bytes(other.signed().envelope.encode())
        key.write_bytes(pem(other.key))
        said = machine.run("publish", one.path, "--repo", f"hf://{HUB_ORG}/third", *words[2:], "--create", code=5)
        assert f"is for {other.repo}, expected hf://{HUB_ORG}/third" in said.err


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_an_index_without_its_statement(root: Path, store: Store, org: Publisher, tmp_path: Path, how: str) -> None:
    """Whoever has the key puts it right by publishing, with a serial above all that were seen; nobody else can."""
    put(root, org.signing(), make(tmp_path, "sm_90"))
    put(root, org.signing(), make(tmp_path))
    get(root, store)
    for place in places(root, INDEX_SIGNATURE):
        place.unlink() if how == "lost" else place.write_bytes(b"{}\n")
    refused(root, store)
    with pytest.raises(SigningError):
        put(root, None, make(tmp_path, "sm_80"))
    with pytest.raises(SignatureError, match="is missing or damaged"):
        put(root, org.signing(), make(tmp_path, "sm_80"))
    put(root, replaced(org.signing(), adopt=True), make(tmp_path, "sm_80"))
    _, (row,), _ = get(root, store)
    assert row.signed == org.key_id
    assert read_seen(org.repo, store.home).index == 3

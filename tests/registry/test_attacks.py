"""What somebody can do who may write a registry, or plants files on a machine, and has no key."""

import json
import shutil
from dataclasses import replace as replaced
from pathlib import Path

import pytest
from making import SM_120, make
from planting_store import give_away, header_of, rewrite
from signed_registries import change, get, known, org, put, read, refused, resealed, root, store
from signing import Publisher

from gdn_aot.errors import SignatureError, UsageError, VerificationError
from gdn_aot.registry.bundle import About, write_bundle
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import INDEX, INDEX_SIGNATURE, signature_path
from gdn_aot.registry.publish import publish
from gdn_aot.store.seen import read_seen
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.trust.statement import IndexStatement

__all__ = ["known", "org", "root", "store"]
pytestmark = pytest.mark.usefixtures("known")


def test_an_index_that_leads_to_an_older_state(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    put(root, org.signing(), make(tmp_path), tag="v1.0.0")
    old = DirectoryRegistry(str(root)).refs().tags["v1.0.0"]
    put(root, org.signing(), make(tmp_path, build=1), tag="v1.1.0", replace=True)
    get(root, store)
    (root / "tags/v2").write_text(f"{old}\n")
    (root / INDEX).write_bytes(b'{\n "format": 1,\n "tree": "v2",\n "entries": []\n}\n')
    assert "points elsewhere" in refused(root, store)


def test_what_is_revoked_is_heard_though_that_fetch_fails(
    root: Path, store: Store, org: Publisher, tmp_path: Path
) -> None:
    one = make(tmp_path)
    put(root, org.signing(), one)
    _, (row,), _ = get(root, store)
    put(root, org.signing(org.signed(org.keyring(2, revoked=[one.sha256]))))
    assert "has revoked" in refused(root, store)
    with pytest.raises(VerificationError, match="has revoked"):
        StoredArtifact(str(row.path))
    assert read_seen(org.repo, store.home).index == 2


@pytest.mark.parametrize("how", ["an older state", "an entry changed", "an older keyring", "a high serial"])
def test_nobody_signs_what_an_attacker_left(root: Path, org: Publisher, tmp_path: Path, how: str) -> None:
    home = str(tmp_path / "publisher")
    signing = replaced(org.signing(), home=home)
    put(root, signing, make(tmp_path), tag="v1.0.0")
    older = shutil.copytree(root, tmp_path / "older")
    newer = replaced(org.signing(org.signed(org.keyring(2))), home=home)
    put(root, newer, make(tmp_path, build=1), tag="v1.1.0", replace=True)
    if how == "an older state":
        shutil.rmtree(root)
        older.rename(root)
    elif how == "an entry changed":
        change(root, **{INDEX: read(root, INDEX).replace(b'"dirty": false', b'"dirty": true', 1)})
    elif how == "an older keyring":
        resealed(root, Publisher(), INDEX_SIGNATURE, IndexStatement, keyring=1)
    else:
        resealed(root, Publisher(), INDEX_SIGNATURE, IndexStatement, serial=(1 << 53) - 2)
    with pytest.raises(SignatureError, match=r"the signature of the present index|older state"):
        put(root, newer, make(tmp_path, "sm_90"))
    if how == "an entry changed":  # for whoever has no memory of what there was, too
        with pytest.raises(SignatureError, match="is for another index"):
            put(root, replaced(newer, home=""), make(tmp_path, "sm_90"))


def test_two_who_publish_at_once(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    """The second is told, looks again, and signs on: neither a serial nor a keyring is lost."""
    put(root, org.signing(), make(tmp_path))
    registry, other = DirectoryRegistry(str(root)), DirectoryRegistry(str(root))
    commit, struck = registry.commit, []

    def late(*args: object, **more: object) -> str:
        if not struck:
            struck.append(publish(other, [], signing=org.signing(org.signed(org.keyring(2)))))
        return commit(*args, **more)  # type: ignore[arg-type]

    registry.commit = late  # type: ignore[method-assign]
    publish(registry, [make(tmp_path, "sm_90").path], signing=org.signing())
    said, _ = IndexStatement.read(read(root, INDEX_SIGNATURE))
    assert (said.serial, said.keyring) == (3, 2)
    get(root, store, arch="sm_90")


def _strip(root: Path) -> None:
    for path in [*root.rglob("*.sig.json"), *root.glob("keyrings/*")]:
        path.unlink()


def test_a_directory_that_was_signed_stays_so(
    root: Path, store: Store, org: Publisher, known: Path, tmp_path: Path
) -> None:
    keyring = known / "org--kernels.json"
    content = keyring.read_bytes()
    keyring.unlink()
    put(root, None, make(tmp_path))
    get(root, store, allow_unsigned=True)
    keyring.write_bytes(content)
    put(root, org.signing(), make(tmp_path))
    _, (row,), _ = get(root, store)
    assert row.signed == org.key_id
    _strip(root)
    for allow in (False, True):
        assert "is missing" in refused(root, store, allow_unsigned=allow)
    stranger = Publisher("hf://stranger/kernels")
    stranger.known_in(known)
    put(root, stranger.signing(), make(tmp_path))
    assert "is for hf://stranger/kernels, expected hf://org/kernels" in refused(root, store)


@pytest.mark.parametrize("repo", ["hf://org/kernels", "hf://gdn-aot/kernels"])
def test_a_bundle_that_was_stripped(root: Path, store: Store, tmp_path: Path, repo: str) -> None:
    made = make(tmp_path)
    put(root, None, made)
    files = {path: read(root, path) for path in (INDEX, f"targets/{SM_120}.tar.zst")}
    path = tmp_path / "bundle.tar"
    write_bundle(path, About(repository=repo, revision="v1", commit="a" * 40), files)
    said = refused(path, store, allow_unsigned=True)
    assert ("is missing" if repo == "hf://org/kernels" else f"must be that of {repo}") in said


def test_a_permission_that_somebody_planted(
    root: Path, store: Store, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, None, make(tmp_path))
    get(root, store, allow_unsigned=True)
    put(root, None, make(tmp_path, "sm_90"))
    get(root, store, arch="sm_90")
    (place, *others) = (Path(place) for place in store.artifacts())
    for path in (place, *others):
        give_away(path / "origin.json", monkeypatch)
    put(root, None, make(tmp_path, "sm_80"))
    assert "is missing" in refused(root, store, arch="sm_80")


def test_a_store_that_was_changed_is_not_called_installed(
    root: Path, store: Store, org: Publisher, tmp_path: Path
) -> None:
    """Its statement gone, with the right owner, so that nothing contradicts it: fetching notices and installs anew."""
    put(root, org.signing(), make(tmp_path))
    _, (row,), _ = get(root, store)
    place = Path(str(row.path))
    rewrite(place, {**header_of(place), "workloads": ["another"]})
    (place / "release.json").unlink()
    _, (row,), _ = get(root, store)
    assert row.state == "repaired"
    assert StoredArtifact(str(place)).key == org.key_id


def test_what_is_revoked_is_not_published(root: Path, org: Publisher, tmp_path: Path) -> None:
    one = make(tmp_path)
    put(root, org.signing(), make(tmp_path, "sm_90"))
    put(root, org.signing(org.signed(org.keyring(2, revoked=[one.sha256]))))
    with pytest.raises(SignatureError, match="two versions 1"):
        put(root, org.signing(org.signed(org.keyring(1, revoked=["a" * 64]))))
    with pytest.raises(SignatureError, match="is revoked by the keyring"):
        put(root, org.signing(), one)


def test_what_a_bundle_says_of_commits(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    """Its word is not signed: it answers for the branch, never for a commit or a tag that somebody names."""
    put(root, org.signing(), make(tmp_path))
    keyring = "keyrings/1.json"
    files = {path: read(root, path) for path in (INDEX, INDEX_SIGNATURE, keyring, signature_path(SM_120))}
    files[f"targets/{SM_120}.tar.zst"] = read(root, f"targets/{SM_120}.tar.zst")
    path, commit = tmp_path / "bundle.tar", "f" * 40
    write_bundle(path, About(repository=org.repo, revision="v1.9.9", commit=commit), files)
    get(path, store)
    (origins,) = (json.loads(place.read_text()) for place in Path(store.home).glob("store/artifacts/*/origin.json"))
    assert origins["fetched"][0]["carried"] is True
    write_bundle(path, About(repository=org.repo, revision="../../x", commit=commit), files)
    with pytest.raises(UsageError, match="cannot be a revision"):
        get(path, store)

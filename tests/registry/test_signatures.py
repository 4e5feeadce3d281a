"""What publishers sign, and what fetching makes of it: from a directory, whose bytes anybody may have changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from making import SM_90, SM_120, make
from msgspec.structs import replace
from registries import kept
from signed_registries import change, described, get, known, org, places, put, read, refused, resealed, root, store
from signing import Publisher, check_flips, new_key, public, sealed

from gdn_aot.errors import SignatureError, SigningError
from gdn_aot.registry.base import read_index
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.layout import INDEX, INDEX_SIGNATURE, keyring_path, signature_path
from gdn_aot.registry.lockfile import pin, write_lock
from gdn_aot.registry.open import locate
from gdn_aot.registry.publisher import publisher_of
from gdn_aot.registry.request import make_request
from gdn_aot.store.seen import read_seen
from gdn_aot.store.store import Store
from gdn_aot.trust.envelope import Envelope
from gdn_aot.trust.keyring import Key
from gdn_aot.trust.statement import IndexStatement, Statement

__all__ = ["known", "org", "root", "store"]
pytestmark = pytest.mark.usefixtures("known")


def test_what_is_signed(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    one = make(tmp_path)
    put(root, org.signing(), one)
    said, envelope = Statement.read(read(root, signature_path(SM_120)))
    assert (said.repo, said.identifier, said.sha256, said.serial) == (org.repo, SM_120, one.sha256, 1)
    assert list(envelope.signatures) == [org.key_id]
    index, _ = IndexStatement.read(read(root, INDEX_SIGNATURE))
    assert (index.serial, index.keyring, index.size) == (1, 1, len(read(root, INDEX)))
    _, (row,), notes = get(root, store)
    assert (row.state, row.signed) == ("installed", org.key_id)
    assert (Path(str(row.path)) / "release.json").read_bytes() == read(root, signature_path(SM_120))
    assert not any("Warning" in note for note in notes)
    _, (row,), _ = get(root, store)
    assert (row.state, row.signed) == ("already-installed", org.key_id)
    put(root, org.signing(), make(tmp_path, "sm_90"))
    assert IndexStatement.read(read(root, INDEX_SIGNATURE))[0].serial == 2
    assert Statement.read(read(root, signature_path(SM_120)))[0].serial == 1
    assert Statement.read(read(root, signature_path(SM_90)))[0].serial == 2
    get(root, store)
    assert read_seen(org.repo, store.home).index == 2


def test_unsigned_is_allowed_once_and_remembered(root: Path, store: Store, tmp_path: Path) -> None:
    put(root, None, make(tmp_path))
    with pytest.raises(SignatureError) as caught:
        get(root, store)
    assert "--allow-unsigned" in caught.value.hint
    assert not Path(store.home).exists()
    _, (row,), said = get(root, store, allow_unsigned=True)
    assert (row.state, row.signed) == ("installed", None)
    assert sum("no signature of them counts" in line for line in said) == 1
    put(root, None, make(tmp_path, "sm_90"))
    _, (row,), said = get(root, store, arch="sm_90")
    assert row.state == "installed"
    assert not any("no signature of them counts" in line for line in said)
    other = root.with_name("other")
    shutil.copytree(root, other)
    assert "is missing" in refused(other, store)


def test_a_known_publisher_is_never_taken_unsigned(
    root: Path, store: Store, org: Publisher, known: Path, tmp_path: Path
) -> None:
    put(root, org.signing(), make(tmp_path))
    change(root, **{signature_path(SM_120): b"{}\n"})
    assert "is no envelope" in refused(root, store, allow_unsigned=True)
    stranger = Publisher("hf://stranger/kernels")
    put(root.with_name("strange"), stranger.signing(), make(tmp_path))
    said = refused(root.with_name("strange"), store)
    assert "hf://stranger/kernels, of whom no key is known here" in said
    _, (row,), _ = get(root.with_name("strange"), store, allow_unsigned=True)
    assert row.signed is None
    stranger.known_in(known)
    _, (row,), _ = get(root.with_name("strange"), Store(f"{store.home}2"))
    assert row.signed == stranger.key_id


def test_the_default_registry_must_be_signed(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also by whoever does not know its keyring, and says that unsigned is right."""
    root = tmp_path / "registry"
    put(root, None, make(tmp_path))
    registry = DirectoryRegistry(str(root))
    location = locate("hf://gdn-aot/kernels")
    with pytest.raises(SignatureError, match="must be that of hf://gdn-aot/kernels"):
        publisher_of(location, registry, *read_index(registry, "v1"), store, unsigned=True)


def _swapped(root: Path, org: Publisher, folder: Path) -> None:
    put(root, org.signing(), make(folder, "sm_90"))
    change(root, **{signature_path(SM_120): read(root, signature_path(SM_90))})


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("missing", "is missing"),
        ("index missing", "is missing"),
        ("another artifact's", "is for identifier"),
        ("another repository", "is for hf://org/other, expected hf://org/kernels"),
        ("index of another repository", "hf://org/other, of whom no key is known here"),
        ("another key", "is not in the keyring"),
        ("another key by this name", "is not right"),
        ("another file", "is for sha256"),
        ("another commit", "is for commit"),
        ("another index", "is for another index than the present one"),
        ("another root", "is for another index than the file gives here"),
        ("another manifest", "is for another manifest"),
    ],
)
def test_what_does_not_count(root: Path, store: Store, org: Publisher, tmp_path: Path, how: str, why: str) -> None:
    put(root, org.signing(), make(tmp_path))
    path, stranger = signature_path(SM_120), Publisher()
    changes: dict[str, Callable[[], None]] = {
        "another artifact's": lambda: _swapped(root, org, tmp_path),
        "another repository": lambda: resealed(root, org, path, Statement, repo="hf://org/other"),
        "index of another repository": lambda: resealed(
            root, org, INDEX_SIGNATURE, IndexStatement, repo="hf://org/other"
        ),
        "another key": lambda: resealed(root, stranger, path, Statement),
        "another file": lambda: resealed(root, org, path, Statement, sha256="a" * 64),
        "another commit": lambda: resealed(root, org, path, Statement, commit="d" * 40),
        "another root": lambda: resealed(root, org, path, Statement, index_sha256={"3": "a" * 64}),
        "another manifest": lambda: resealed(root, org, path, Statement, manifest_sha256="a" * 64),
        "another index": lambda: resealed(root, org, INDEX_SIGNATURE, IndexStatement, sha256="a" * 64),
    }
    if how.endswith("missing"):
        for gone in places(root, INDEX_SIGNATURE if "index" in how else path):
            gone.unlink()
    elif how == "another key by this name":
        _, envelope = Statement.read(read(root, path))
        forged = Envelope(envelope.kind, envelope.payload, {org.key_id: stranger.key.sign(envelope.to_sign())})
        change(root, **{path: forged.encode()})
    else:
        changes[how]()
    if "index" not in how and how != "missing":  # the index is signed, and is as it was
        resealed(root, org, INDEX_SIGNATURE, IndexStatement, **described(root))
    assert why in refused(root, store)


def test_an_older_state_is_refused_unless_it_is_named(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    put(root, org.signing(), make(tmp_path), tag="v1.0.0")
    older = root.with_name("older")
    shutil.copytree(root, older)
    put(root, org.signing(), make(tmp_path, build=1), tag="v1.1.0", replace=True)
    get(root, store)
    shutil.rmtree(root)
    older.rename(root)
    assert "has serial 1, and 2 was seen already" in refused(root, store)
    commit = DirectoryRegistry(str(root)).refs().tags["v1.0.0"]
    for revision in ("v1.0.0", commit):
        _, (row,), _ = get(root, store, revision=revision)
        assert row.signed == org.key_id


def test_every_state_keeps_what_was_signed_of_it(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    builds = [make(tmp_path, build=number) for number in range(3)]
    for number, one in enumerate(builds):
        put(root, org.signing(), one, tag=f"v1.{number}.0", replace=True)
    for number in (1, 0, 2):
        _, (row,), _ = get(root, store, revision=f"v1.{number}.0")
        assert (row.sha256, row.signed) == (builds[number].sha256, org.key_id)


def test_an_older_artifact_under_a_new_index(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    """Whoever holds a key that signs indexes, and an old statement, still cannot bring back the old build."""
    put(root, org.signing(), make(tmp_path))
    old = {path: read(root, path) for path in (INDEX, signature_path(SM_120))}
    blob = kept(root, make(tmp_path)).read_bytes()
    put(root, org.signing(), make(tmp_path, build=1), tag="v1.1.0", replace=True)
    get(root, store)
    change(root, **old, **{f"targets/{SM_120}.tar.zst": blob})
    resealed(root, org, INDEX_SIGNATURE, IndexStatement, serial=9, **described(root))
    assert "has serial 1, and 2 was seen already" in refused(root, store)


def test_revoked(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    """A key, then an artifact: what is installed counts no more either. The keyring comes from the registry."""
    first, second = make(tmp_path), make(tmp_path, "sm_90")
    put(root, org.signing(), first, second)
    get(root, store)
    fresh = new_key()
    keys = [
        Key(public=public(org.key), from_serial=0, to_serial=None, revoked=True),
        Key(public=public(fresh), from_serial=0, to_serial=None, revoked=False),
    ]
    following = org.signed(org.keyring(2, keys=keys))
    result = put(root, org.signing(following, fresh), second)
    assert result.plan.uncounted == (SM_120,)
    said = refused(root, store)
    assert "was revoked" in said
    _, (row,), _ = get(root, store, arch="sm_90")
    assert row.signed != org.key_id
    result = put(root, org.signing(following, fresh), first)
    assert [item.action for item in result.plan.items] == ["signed"]
    _, (row,), _ = get(root, store)
    assert (row.state, row.signed) == ("repaired", row.signed)
    third = org.signed(org.keyring(3, keys=keys, revoked=[first.sha256]))
    put(root, org.signing(third, fresh))
    assert "has revoked" in refused(root, store)
    commit = DirectoryRegistry(str(root)).refs().branches["v1"]
    assert "has revoked" in refused(root, Store(f"{store.home}2"), revision=commit)


def test_a_pinned_state_hears_of_what_was_revoked_since(
    root: Path, store: Store, org: Publisher, tmp_path: Path
) -> None:
    one = make(tmp_path)
    commit = put(root, org.signing(), one).commit
    put(root, org.signing(org.signed(org.keyring(2, revoked=[one.sha256]))))
    assert "has revoked" in refused(root, store, revision=commit)


@pytest.mark.parametrize("how", ["one root", "another's roots", "skipped", "missing"])
def test_keyrings_that_do_not_follow(root: Path, store: Store, org: Publisher, tmp_path: Path, how: str) -> None:
    put(root, org.signing(), make(tmp_path))
    following = {
        "one root": org.signed(org.keyring(2), by=[0]),
        "another's roots": Publisher(org.repo).signed(org.keyring(2)),
        "skipped": org.signed(org.keyring(3)),
        "missing": org.signed(org.keyring(2)),
    }[how]
    with pytest.raises((SignatureError, SigningError)):
        put(root, org.signing(following if how != "missing" else org.signed(org.keyring(3))))
    if how != "missing":
        change(root, **{keyring_path(2): following.envelope.encode()})
    resealed(root, org, INDEX_SIGNATURE, IndexStatement, keyring=2)
    why = {"one root": "signed by 1 of", "another's roots": "signed by 0 of", "skipped": "is version 3, expected 2"}
    assert why.get(how, "is not there") in refused(root, store)


def test_roots_that_changed(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    """A machine that knows version 1 alone goes on through version 2, which old and new roots have signed."""
    put(root, org.signing(), make(tmp_path))
    later = Publisher(org.repo, key=org.key)
    second = later.keyring(2)
    second.former_roots = org.keyring().roots
    put(root, org.signing(sealed(second, [*org.roots[:2], *later.roots[:2]])))
    put(root, org.signing(later.signed(later.keyring(3))))
    get(root, store)
    learned = (Path(store.home) / "trust/org--kernels.jsonl").read_bytes().splitlines()
    assert len(learned) == 2
    put(root, org.signing(), make(tmp_path, "sm_90"))
    _, (row,), _ = get(root, store, arch="sm_90")
    assert row.signed == org.key_id


def test_a_lock_file_pins_key_and_serial(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    put(root, org.signing(), make(tmp_path))
    request = make_request(("sm_120",), "fla", "0.6.0", "3.6.0")
    lock = pin(str(root), None, request, None, tmp_path, store=store)
    write_lock(tmp_path / "gdn-aot.lock", lock)
    (pinned,) = lock.artifacts
    assert (pinned.key, pinned.serial) == (org.key_id, 1)
    get(root, store, lock=lock)
    resealed(root, org, signature_path(SM_120), Statement, serial=2)
    commit = DirectoryRegistry(str(root)).refs().branches["v1"]
    said = refused(root, Store(f"{store.home}2"), lock=replace(lock, commit=commit))
    assert "serial 2, expected" in said


def test_no_bit_is_free(root: Path, store: Store, org: Publisher, tmp_path: Path) -> None:
    put(root, org.signing(), make(tmp_path))
    put(root, org.signing(org.signed(org.keyring(2))))
    check_flips(root, store, 800)

"""Bundles: one file that carries what is wanted, and all that it takes to verify it."""

import json
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from helpers import expect_error, gdn_aot
from making import SM_90, SM_120, WANTED, make
from signing import Publisher

from gdn_aot.artifact import tar
from gdn_aot.artifact.archive import Written
from gdn_aot.errors import VerificationError
from gdn_aot.registry.bundle import BundleRegistry
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.fetch import Fetched, FetchOrder, fetch
from gdn_aot.registry.publish import publish
from gdn_aot.registry.request import make_request
from gdn_aot.store.origins import read_origins
from gdn_aot.store.store import Store

_ALL = ("--arch", "all", *WANTED)


class Place:
    """A registry with two artifacts, a machine that makes a bundle of it, and one without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.org = folder, Publisher()
        self.registry = DirectoryRegistry(str(folder / "registry"))
        self.made = [make(folder, target) for target in ("sm_120", "sm_90")]
        self.known = self.org.known_in(folder / "keys")
        self.bundle = folder / "kernels.tar"

    def publish(self, *made: Written, signed: bool = True, **more: Any) -> None:
        signing = self.org.signing() if signed else None
        publish(self.registry, [one.path for one in made], signing=signing, create=True, **more)

    def make(self, *args: object, code: int = 0, **more: Any) -> Any:
        words = ("bundle", "--repo", self.registry.name, *(args or _ALL), "-o", self.bundle)
        return gdn_aot(*words, home=self.folder / "online", extra=self.known, code=code, **more)

    def fetch(self, *args: object, code: int = 0, home: str = "isolated") -> Any:
        words = ("fetch", "--from", self.bundle, *(args or ("--arch", "sm_120", *WANTED)))
        extra = {**self.known, "HF_ENDPOINT": "http://127.0.0.1:9"}
        return gdn_aot(*words, home=self.folder / home, extra=extra, code=code)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.publish(*place.made, tag="v1.0.0")
    return place


def test_it_carries_all_that_is_needed(place: Place) -> None:
    done = place.make("--json", *_ALL).json
    assert [entry["identifier"] for entry in done["artifacts"]] == [SM_120, SM_90]
    assert (done["publisher"], done["size"]) == (place.org.repo, place.bundle.stat().st_size)
    first = place.bundle.read_bytes()
    place.make()
    assert place.bundle.read_bytes() == first
    (row,) = place.fetch("--json", "--arch", "sm_120", *WANTED).json["artifacts"]
    assert (row["state"], row["signed"]) == ("installed", place.org.key_id)
    (origin,) = read_origins(row["path"])
    assert (origin.repo, origin.revision, origin.unsigned) == (place.org.repo, "v1", False)
    assert "already installed" in place.fetch().out
    assert "signed by" in place.fetch("--arch", "sm_90", *WANTED).out


def test_no_network_is_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a socket is made."""
    place.make()

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("a socket is made")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("GDN_AOT_KEYS", place.known["GDN_AOT_KEYS"])
    done: list[Fetched] = []
    request = make_request(("sm_120",), "fla", "0.6.0", "3.6.0")
    order = FetchOrder(repo=str(place.bundle), revision=None, request=request)
    fetch(order, Store(str(place.folder / "here")), done.append, lambda _: None)
    assert done[0].signed == place.org.key_id


def test_offline_it_is_as_if_from_the_registry(place: Place) -> None:
    """A container that asks for the registry by its name finds what the bundle brought."""
    place.make()
    place.fetch()
    words = ("fetch", "--repo", place.org.repo, "--arch", "sm_120", *WANTED)
    extra = {**place.known, "HF_HUB_OFFLINE": "1"}
    assert "already installed" in gdn_aot(*words, home=place.folder / "isolated", extra=extra).out
    commit = place.registry.refs().branches["v1"]
    for revision in (commit, "v1.0.0"):  # which only the bundle says: its word is not signed
        gdn_aot(*words, "--revision", revision, home=place.folder / "isolated", extra=extra, code=8)


def test_what_is_not_signed(place: Place) -> None:
    place.registry = DirectoryRegistry(str(place.folder / "unsigned"))
    place.publish(place.made[0], signed=False)
    wanted = ("--arch", "sm_120", *WANTED)
    expect_error(place.make("--json", *wanted, code=5), 5, "signature")
    assert not place.bundle.exists()
    place.make("--allow-unsigned", *wanted)
    expect_error(place.fetch("--json", *wanted, code=5), 5, "signature")
    place.fetch("--allow-unsigned", *wanted)


def test_who_does_not_know_the_publisher(place: Place) -> None:
    place.make()
    place.known = {"GDN_AOT_KEYS": str(place.folder / "nothing")}
    expect_error(place.fetch("--json", "--arch", "sm_120", *WANTED, code=5), 5, "keyring")
    (place.folder / "nothing").mkdir()
    error = expect_error(place.fetch("--json", "--arch", "sm_120", *WANTED, code=5), 5, "signature")
    assert "no key is known here" in str(error["message"])


def test_keyrings_come_along(place: Place) -> None:
    """A machine that knows the first version hears by a bundle what a later one revokes."""
    place.make()
    place.fetch()
    following = place.org.signed(place.org.keyring(2, revoked=[place.made[0].sha256]))
    publish(place.registry, [], signing=place.org.signing(following))
    place.make("--arch", "sm_90", *WANTED)
    place.fetch("--arch", "sm_90", *WANTED)
    said = gdn_aot("cache", "verify", home=place.folder / "isolated", extra=place.known, code=5).err
    assert "has revoked" in said


def test_an_older_bundle(place: Place) -> None:
    place.make()
    older = place.bundle.read_bytes()
    place.publish(make(place.folder, build=1), tag="v1.1.0", replace=True)
    place.make()
    place.fetch()
    place.bundle.write_bytes(older)
    error = expect_error(place.fetch("--json", "--arch", "sm_120", *WANTED, code=5), 5, "signature")
    assert "has serial 1, and 2 was seen already" in str(error["message"])
    place.make("--revision", "v1.0.0", *_ALL)
    assert "installed" in place.fetch("--revision", "v1.0.0", "--arch", "sm_120", *WANTED).out


@pytest.mark.parametrize("where", ["names", "a registry too", "missing", "not a bundle", "a folder"])
def test_wrong_use(place: Place, where: str) -> None:
    place.make()
    args: tuple[object, ...] = ("--json", "--arch", "sm_120", *WANTED)
    if where == "names":
        args, code, kind = (*args, "--revision", "v9"), 7, "revision-missing"
    elif where == "a registry too":
        args, code, kind = (*args, "--repo", "./x"), 2, "usage"
    elif where == "missing":
        place.bundle.unlink()
        code, kind = 2, "usage"
    elif where == "a folder":
        place.bundle.unlink()
        place.bundle.mkdir()
        code, kind = 2, "usage"
    else:
        place.bundle.write_bytes(b"x" * 5000)
        code, kind = 5, "verification"
    expect_error(place.fetch(*args, code=code), code, kind)


def test_damage(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut anywhere, a bit changed anywhere, or with a member added: refused, or what was signed is all the same."""
    place.make("--arch", "sm_120", *WANTED)
    monkeypatch.setenv("GDN_AOT_KEYS", place.known["GDN_AOT_KEYS"])
    good, chosen = place.bundle.read_bytes(), random.Random(1)
    request = make_request(("sm_120",), "fla", "0.6.0", "3.6.0")
    extra = tar.encode("README", 0, 0)
    bad = [good[: chosen.randrange(len(good))] for _ in range(40)]
    bad += [good[: -len(tar.END)] + extra + tar.END, good + tar.END, good[: -len(tar.END)] + good]
    for _ in range(150):
        flipped = bytearray(good)
        flipped[chosen.randrange(len(good))] ^= 1 << chosen.randrange(8)
        bad.append(bytes(flipped))
    refused = 0
    for number, content in enumerate(bad):
        place.bundle.write_bytes(content)
        done: list[Fetched] = []
        home = str(place.folder / f"home-{number}")
        try:
            fetch(FetchOrder(repo=str(place.bundle), revision=None, request=request), Store(home), done.append, print)
        except VerificationError:
            refused += 1
            assert Store(home).artifacts() == []
        else:
            assert done[0].sha256 == place.made[0].sha256
    assert refused > len(bad) * 9 // 10


def test_the_commit_of_a_lock_file(place: Place) -> None:
    """A lock file that was made with a network holds for a bundle of the same commit, and for no other."""
    online = {**place.known}
    lock = place.folder / "gdn-aot.lock"
    words = ("lock", "--repo", place.registry.name, "--arch", "sm_120", *WANTED, "-o", lock)
    gdn_aot(*words, home=place.folder / "online", extra=online)
    place.make("--arch", "sm_120", *WANTED)
    assert "installed" in place.fetch("--lock-file", lock).out
    document = json.loads(lock.read_text())
    document["commit"] = "a" * 40
    lock.write_text(json.dumps(document, indent=2) + "\n")
    place.fetch("--lock-file", lock, code=7, home="another")


def test_reading_raises_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        BundleRegistry(str(tmp_path / "x")) if (tmp_path / "x").write_bytes(tar.END) else None

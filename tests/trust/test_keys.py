"""``gdn-aot keys``: making, adding and listing."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import contents
from helpers import Done, expect_error, gdn_aot
from keyrings import DAY, FILE, NEW_ROOTS, REPO, ROOTS, SIGNING, changed, file_of, first, id_of, private, public
from signing import sealed

from gdn_aot.trust import edit, known, places
from gdn_aot.trust.envelope import key_id
from gdn_aot.trust.keyring import Key, read_keyring
from gdn_aot.trust.signer import read_private

Keys = Callable[..., Done]


def test_new(tmp_path: Path, keys: Keys) -> None:
    before = os.umask(0)
    try:
        done = keys("new", "--repo", REPO, "-o", tmp_path / "made")
    finally:
        os.umask(before)
    names = ["root-1.pem", "root-2.pem", "root-3.pem", "signing.pem"]
    assert sorted(contents(tmp_path / "made")) == ["keyring.json", *names]
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    for name in names:
        assert stat.S_IMODE((tmp_path / "made" / name).stat().st_mode) == 0o600
        assert str(tmp_path / "made" / name) in done.out
    publics = [read_private(tmp_path / "made" / name).public.hex() for name in names]
    assert len(set(publics)) == 4
    keyring = read_keyring((tmp_path / "made" / "keyring.json").read_bytes()).verify()
    assert (keyring.repo, keyring.version, list(keyring.roots)) == (REPO, 1, publics[:3])
    assert [(key.public, key.from_serial, key.to_serial) for key in keyring.keys] == [(publics[3], 0, None)]
    for root in keyring.roots:
        assert f"root {key_id(bytes.fromhex(root))}, has signed" in done.out
    assert "in different places" in done.err


@pytest.mark.parametrize("name", ["root-1.pem", "root-3.pem", "signing.pem", "keyring.json"])
def test_new_overwrites_nothing(tmp_path: Path, keys: Keys, name: str) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / name).symlink_to(tmp_path / "victim")
    error = expect_error(keys("new", "--repo", REPO, "-o", tmp_path / "made", "--json", code=2), 2, "usage")
    assert f"{name} exists already" in error["message"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == [name]
    assert not (tmp_path / "victim").exists()
    (tmp_path / "other.pem").write_text("precious")
    expect_error(keys("new", "--key", "-o", tmp_path / "other.pem", "--json", code=2), 2, "usage")
    assert (tmp_path / "other.pem").read_text() == "precious"


def test_new_where_nothing_can_be_written(tmp_path: Path, keys: Keys) -> None:
    (tmp_path / "file").write_text("")
    for words in (("--repo", REPO), ("--key",)):
        expect_error(keys("new", *words, "-o", tmp_path / "file" / "made", "--json", code=9), 9, "not-writable")


@pytest.mark.parametrize(
    "words",
    [
        (), ("--repo", "org/name"), ("--repo", "hf://org"), ("--repo", "hf://a--b/c"), ("--key", "--repo", REPO),
        ("--key", "--public", "a" * 64), ("--root-public", "a" * 64),
        ("--repo", REPO, "--root-public", public(1)),
        ("--repo", REPO, "--public", "x"),
        ("--repo", REPO, *("--root-public", public(1)) * 3, "--public", public(10)),
        ("--repo", REPO, "--root-public", public(1), "--root-public", public(2), "--public", public(10)),
    ],
)  # fmt: skip
def test_new_used_wrongly(tmp_path: Path, keys: Keys, words: tuple[str, ...]) -> None:
    expect_error(keys("new", *words, "-o", tmp_path / "made", "--json", code=2), 2, "usage")
    assert not (tmp_path / "made").exists()


def test_roots_that_never_meet(tmp_path: Path, keys: Keys) -> None:
    """Three people make root keys apart, and two of them sign."""
    publics = []
    for name in ("a", "b", "c", "signing"):
        done = keys("new", "--key", "-o", tmp_path / name)
        made = read_private(tmp_path / name).public
        assert done.out == f"public {made.hex()}\nid     {key_id(made)}\n"
        publics.append(made.hex())
    roots = [word for root in publics[:3] for word in ("--root-public", root.upper())]
    place = tmp_path / "keyring.json"
    done = keys("new", "--repo", REPO, *roots, "--public", publics[3], "-o", place)
    assert "unfinished: 2 signatures more of" in done.err
    unfinished = place.read_bytes()
    for words in (("add", place), ("rotate", place, "--new-public", public(9), "--serial", 1, "-o", tmp_path / "x")):
        error = expect_error(keys(*words, "--json", code=5), 5, "signature")
        assert "is signed by 0 of its roots" in error["message"]
        assert "keys sign" in error["hint"]
    expect_error(keys("sign", place, "--root-key", tmp_path / "signing", "-o", place, "--json", code=5), 5, "signature")
    assert place.read_bytes() == unfinished
    document = keys("sign", place, "--root-key", tmp_path / "c", "-o", tmp_path / "half.json", "--json").json
    silent = [key_id(bytes.fromhex(root)) for root in publics[:2]]
    assert document["missing"] == [{"signatures": 1, "of": silent}]
    expect_error(keys("add", tmp_path / "half.json", "--json", code=5), 5, "signature")
    done = keys("sign", tmp_path / "half.json", "--root-key", tmp_path / "a", "-o", tmp_path / "half.json")
    assert "unfinished" not in done.err
    assert keys("add", tmp_path / "half.json", "-q").out == f"{tmp_path}/known/{FILE}\n"


def test_a_key_of_a_kms_signs(tmp_path: Path, keys: Keys) -> None:
    keys("new", "--repo", REPO, "--public", public(SIGNING), "-o", tmp_path / "made", "-q")
    assert sorted(contents(tmp_path / "made")) == ["keyring.json", "root-1.pem", "root-2.pem", "root-3.pem"]
    keyring = read_keyring((tmp_path / "made" / "keyring.json").read_bytes()).verify()
    assert [key.public for key in keyring.keys] == [public(SIGNING)]


def test_add(tmp_path: Path, keys: Keys, v1: Path) -> None:
    before = os.umask(0o077)
    try:
        done = keys("add", v1)
    finally:
        os.umask(before)
    place = tmp_path / "known" / FILE
    assert place.read_bytes() == v1.read_bytes()
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o755
    for number in ROOTS:
        assert id_of(number) in done.out
    assert "compare the ids of the roots" in done.err
    written = place.stat().st_mtime_ns
    again = keys("add", v1, "--json").json
    assert (again["changed"], again["path"], again["version"]) == (False, str(place), 1)
    assert place.stat().st_mtime_ns == written
    assert [path.name for path in place.parent.iterdir()] == [FILE]


def test_add_from_a_registry(tmp_path: Path, keys: Keys) -> None:
    (tmp_path / "registry" / "keyrings").mkdir(parents=True)
    path = tmp_path / "registry" / "keyrings" / "1.json"
    path.write_bytes(file_of(first(), *ROOTS))
    keys("add", path)
    assert (tmp_path / "known" / FILE).read_bytes() == path.read_bytes()


def test_a_keyring_that_follows_is_added(tmp_path: Path, keys: Keys, v1: Path) -> None:
    v2 = edit.rotate(first(), DAY, roots=[*map(public, NEW_ROOTS)])
    stranger = edit.first(REPO, DAY, [*map(public, NEW_ROOTS)], public(SIGNING))
    place, path = tmp_path / "known" / FILE, tmp_path / "next.json"
    keys("add", v1)
    for data, why in (
        (file_of(v2, 4, 5), "former roots"),
        (file_of(v2, 1, 4, 5), "former roots"),
        (file_of(stranger, 4, 5), "roots differ from those of version 1"),
        (file_of(edit.revoke(stranger, DAY, ["a" * 64]), 4, 5), "roots differ from those of version 1"),
        (file_of(v2, 1, 2, 4, 5).replace(b'"sig":"', b'"sig":"A'), "is not written as"),
    ):
        path.write_bytes(data)
        assert why in expect_error(keys("add", path, "--json", code=5), 5, "signature")["message"]
        assert place.read_bytes() == v1.read_bytes()
    path.write_bytes(file_of(v2, 1, 2, 4, 5))
    done = keys("add", path)
    assert "compare" not in done.err
    assert place.read_bytes() == path.read_bytes()
    assert "2 is known already" in expect_error(keys("add", v1, "--json", code=5), 5, "signature")["message"]
    assert place.read_bytes() == path.read_bytes()


def test_add_follows_what_was_learned_from_a_registry(tmp_path: Path, keys: Keys, v1: Path) -> None:
    keys("add", v1)
    v2 = edit.rotate(first(), DAY, roots=[*map(public, NEW_ROOTS)])
    v3 = edit.revoke(v2, DAY, ["b" * 64])
    learned = Path(known.learned_path(REPO, str(tmp_path / "home")))
    learned.parent.mkdir()
    learned.write_bytes(file_of(v2, 1, 2, 4, 5))
    (tmp_path / "v3.json").write_bytes(file_of(v3, 4, 6))
    keys("add", tmp_path / "v3.json")
    listed = keys("list", "--json").json["keyrings"]
    assert [(one["version"], one["source"], one["counts"]) for one in listed] == [(3, places.KEYS, True)]


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff\0", None])
def test_add_what_is_none(tmp_path: Path, keys: Keys, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    code, kind = (2, "usage") if content is None else (5, "signature")
    expect_error(keys("add", path, "--json", code=code), code, kind)
    expect_error(keys("add", tmp_path / "missing", "--json", code=2), 2, "usage")
    expect_error(keys("add", tmp_path, "--json", code=2), 2, "usage")
    assert not (tmp_path / "known").exists()


def test_add_where_nothing_can_be_written(tmp_path: Path, keys: Keys, v1: Path) -> None:
    (tmp_path / "known").write_text("")
    expect_error(keys("add", v1, "--json", code=5), 5, "keyring")
    assert (tmp_path / "known").read_text() == ""
    below = {places.KEYS: str(tmp_path / "known" / "below")}
    expect_error(gdn_aot("keys", "add", v1, "--json", home=tmp_path / "home", extra=below, code=9), 9, "not-writable")


def test_add_beside_a_damaged_one(tmp_path: Path, keys: Keys, v1: Path) -> None:
    place = tmp_path / "known" / FILE
    place.parent.mkdir()
    place.write_bytes(v1.read_bytes()[:-9])
    assert str(place) in expect_error(keys("add", v1, "--json", code=5), 5, "keyring")["message"]
    place.write_bytes(v1.read_bytes())
    place.chmod(0o666)
    expect_error(keys("add", v1, "--json", code=5), 5, "keyring")


@pytest.fixture
def command_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Keys) -> Keys:
    """Run the command line with the usual places for keyrings, all of them below ``tmp_path``."""
    monkeypatch.delenv(places.KEYS, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GDN_AOT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "SYSTEM", str(tmp_path / "etc" / "keys.d"))
    return command


def test_the_usual_places(tmp_path: Path, command_here: Keys, v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, system = tmp_path / "config" / "gdn-aot" / "keys.d" / FILE, tmp_path / "etc" / "keys.d" / FILE
    assert command_here("keys", "add", v1, "-q").out == f"{user}\n"
    assert command_here("keys", "add", v1, "--system", "-q").out == f"{system}\n"
    assert user.read_bytes() == system.read_bytes() == v1.read_bytes()
    v2 = edit.rotate(first(), DAY, public=public(11), serial=4)
    (tmp_path / "v2.json").write_bytes(file_of(v2, 1, 3))
    command_here("keys", "add", "--system", tmp_path / "v2.json")
    listed = command_here("keys", "list", "--json").json["keyrings"]
    assert [(one["source"], one["version"], one["counts"]) for one in listed] == [
        ("system", 2, True), ("user", 1, False),
    ]  # fmt: skip
    assert command_here("keys", "list", "-q").out == f"{system}\n"
    monkeypatch.setenv(places.KEYS, str(tmp_path / "other"))  # it would not see the newer one that is there
    command_here("keys", "add", "--system", v1, code=2)
    assert system.read_bytes() == (tmp_path / "v2.json").read_bytes()


def test_no_place_for_a_user_without_a_home(command_here: Keys, v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "nowhere")
    assert "no home" in expect_error(command_here("keys", "add", v1, "--json", code=2), 2, "usage")["message"]


def test_list(tmp_path: Path, keys: Keys, v1: Path) -> None:
    (tmp_path / "known").mkdir()
    done = keys("list")
    assert (done.out, done.err) == ("", "no keyring is known here: gdn-aot keys add FILE\n")
    assert keys("list", "--json").json == {"keyrings": []}
    keys("add", v1)
    v2 = edit.revoke(edit.rotate(first(), DAY, public=public(11), serial=4), DAY, ["a" * 64, id_of(SIGNING)])
    learned = Path(known.learned_path(REPO, str(tmp_path / "home")))
    learned.parent.mkdir()
    learned.write_bytes(file_of(v2, 1, 2))
    other = learned.with_name("other--name.jsonl")
    other.write_bytes(file_of(first("hf://other/name"), 1, 2))
    documents = keys("list", "--json").json["keyrings"]
    assert [(one["repo"], one["source"], one["counts"], one["problem"]) for one in documents] == [
        (REPO, places.KEYS, False, ""), (REPO, "registry", True, ""), ("hf://other/name", "registry", False, ""),
    ]  # fmt: skip
    assert documents[1]["keys"] == [
        {"id": id_of(SIGNING), "public": public(SIGNING), "from_serial": 0, "to_serial": 4, "revoked": True},
        {"id": id_of(11), "public": public(11), "from_serial": 5, "to_serial": None, "revoked": False},
    ]
    assert documents[1]["revoked"] == ["a" * 64]
    assert (documents[1]["version"], documents[1]["created"], documents[1]["path"]) == (3, v2.created, str(learned))
    done = keys("list")
    assert f"{learned} (registry): counts\n" in done.out
    assert f"key {id_of(SIGNING)}, serials 0 to 4, revoked\n" in done.out
    assert f"key {id_of(11)}, serials 5 on\n" in done.out
    assert "1 artifact revoked" in done.out
    assert f"{other} (registry): does not count: no keyring of hf://other/name was added here" in done.out
    assert keys("list", "-q").out == f"{learned}\n"


def _unsigned(place: Path) -> None:
    place.write_bytes(file_of(first(), 1))


def _forged(place: Path) -> None:
    found = json.loads(file_of(first(), 1, 2))
    one, other = found["signatures"]
    one["sig"], other["sig"] = other["sig"], one["sig"]
    place.write_bytes(json.dumps(found, separators=(",", ":")).encode() + b"\n")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda place: place.write_bytes(place.read_bytes()[:-7]), "is no envelope"),
    "empty": (lambda place: place.write_bytes(b""), "is no envelope"),
    "unfinished": (_unsigned, "is signed by 1 of its roots"),
    "forged": (_forged, "has a signature that is not right"),
    "of another": (lambda place: place.write_bytes(file_of(first("hf://other/name"), 1, 2)), "other--name.json"),
    "for all to write": (lambda place: place.chmod(0o666), "may be written by others"),
    "no file": (lambda place: (place.unlink(), os.mkfifo(place)), "is not a regular file"),
}


@pytest.mark.parametrize(("damage", "why"), FAULTS.values(), ids=[*FAULTS])
def test_list_of_what_cannot_be_used(
    tmp_path: Path, keys: Keys, v1: Path, damage: Callable[[Path], object], why: str
) -> None:
    keys("add", v1)
    place = tmp_path / "known" / FILE
    (tmp_path / "known" / "third--name.json").write_bytes(file_of(first("hf://third/name"), 1, 2))
    damage(place)
    done = keys("list", "--json", code=5)
    error = done.json["error"]
    assert error["code"] == "keyring"
    assert error["problems"] == [{"where": str(place), "what": done.json["keyrings"][0]["problem"]}]
    assert why in done.json["keyrings"][0]["problem"]
    assert [one["counts"] for one in done.json["keyrings"]] == [False, True]
    assert f"{place}: " in keys("list", code=5).err


NEUTRAL = "01" + "00" * 31
"""For which anybody can sign."""


@pytest.mark.parametrize("field", ["roots", "keys"])
def test_keys_that_anybody_can_sign_for(tmp_path: Path, keys: Keys, field: str) -> None:
    good = first()
    bad = [*good.roots[:2], NEUTRAL] if field == "roots" else [Key(**{**good.keys[0].to_dict(), "public": NEUTRAL})]
    made = changed(good, **{field: bad})
    path = tmp_path / "made.json"
    path.write_bytes(sealed(made, [private(1), private(2)]).envelope.encode())
    assert "anybody or nobody can sign" in expect_error(keys("add", path, "--json", code=5), 5, "signature")["message"]
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / FILE).write_bytes(path.read_bytes())
    assert "anybody or nobody can sign" in keys("list", "--json", code=5).json["keyrings"][0]["problem"]
    words = [word for number in (1, 2) for word in ("--root-public", public(number))]
    new = ("new", "--repo", REPO, *words, "--root-public", public(3), "--public", NEUTRAL, "-o", tmp_path / "new.json")
    assert "anybody or nobody can sign" in expect_error(keys(*new, "--json", code=2), 2, "usage")["message"]
    assert not (tmp_path / "new.json").exists()


def test_a_directory_that_others_may_write(tmp_path: Path, keys: Keys, v1: Path) -> None:
    keys("add", v1)
    folder = tmp_path / "known"
    folder.chmod(0o777)
    done = keys("list", "--json", code=5)
    (problem,) = done.json["error"]["problems"]
    assert problem["where"] == str(folder)
    assert "may be written by others" in problem["what"]
    assert [(one["path"], one["counts"]) for one in done.json["keyrings"]] == [
        (str(folder), False), (str(folder / FILE), True),
    ]  # fmt: skip
    folder.chmod(0o755)
    keys("list")


def test_a_directory_that_is_not_there(tmp_path: Path, keys: Keys, v1: Path) -> None:
    """Which `keys add` makes."""
    error = keys("list", "--json", code=5).json["error"]
    assert (error["code"], error["problems"][0]["where"]) == ("keyring", str(tmp_path / "known"))
    said = keys("list", code=5).err
    assert said.count("cannot be read") == 1
    relative = {places.KEYS: "known"}
    for words in (("list",), ("add", v1)):
        done = gdn_aot("keys", *words, "--json", home=tmp_path / "home", extra=relative, code=5)
        assert done.json["error"]["code"] == "keyring"
        assert "is not absolute" in done.out
    keys("add", v1)
    keys("list")


def test_the_roots_of_somebody_else(tmp_path: Path, keys: Keys, v1: Path) -> None:
    keys("add", v1)
    path = tmp_path / "other.json"
    path.write_bytes(file_of(edit.revoke(first(roots=NEW_ROOTS), DAY, ["a" * 64]), 4, 5))
    error = expect_error(keys("add", path, "--json", code=5), 5, "signature")
    assert "its roots differ from those of version 1" in error["message"]
    assert "ask the publisher" in error["hint"]


def test_list_of_what_does_not_follow(tmp_path: Path, keys: Keys, v1: Path) -> None:
    keys("add", v1)
    learned = Path(known.learned_path(REPO, str(tmp_path / "home")))
    learned.parent.mkdir()
    stranger = edit.revoke(first(roots=NEW_ROOTS), DAY, ["a" * 64])
    forged = bytearray(file_of(edit.revoke(first(), DAY, ["a" * 64]), 1, 2))
    at = forged.rindex(b'"sig":"') + 20
    forged[at] = ord("A") if forged[at] != ord("A") else ord("B")
    for data, why in ((file_of(stranger, 4, 5), "0 of version 1's roots"), (forged, "a signature that is not right")):
        learned.write_bytes(data)
        done = keys("list", "--json", code=5)
        assert why in done.json["error"]["problems"][0]["what"]
        assert not any(one["counts"] for one in done.json["keyrings"])
        expect_error(keys("add", v1, "--json", code=5), 5, "keyring")

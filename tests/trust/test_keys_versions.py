"""``gdn-aot keys rotate``, ``revoke`` and ``sign``."""

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import contents
from helpers import Done, expect_error
from keyrings import FILE, NEW_ROOTS, SIGNING, first, id_of, public, with_roots

from gdn_aot.trust.keyring import read_keyring

Keys = Callable[..., Done]


def test_rotate(tmp_path: Path, keys: Keys, v1: Path, pem: Callable[[int], Path]) -> None:
    path = tmp_path / "v2.json"
    two = with_roots(pem, 1, 3)
    done = keys("rotate", v1, *two, "--new-key", pem(11), "--serial", 41, "-o", path)
    assert "unfinished" not in done.err
    v2 = read_keyring(path.read_bytes()).verify(first())
    assert [(key.public, key.from_serial, key.to_serial) for key in v2.keys] == [
        (public(SIGNING), 0, 41), (public(11), 42, None),
    ]  # fmt: skip
    assert (v2.roots, v2.former_roots, v2.version) == (first().roots, (), 2)
    again = keys("rotate", v1, *two, "--new-public", public(11), "--serial", 41, "-o", path, "--json").json
    assert (again["version"], again["missing"]) == (2, [])
    assert read_keyring(path.read_bytes()).keyring == v2


def test_rotate_roots(tmp_path: Path, keys: Keys, v1: Path, pem: Callable[[int], Path]) -> None:
    path = tmp_path / "v2.json"
    new = ["--new-root", pem(4), "--new-root", pem(5), "--new-root", public(6)]
    keys("rotate", v1, *with_roots(pem, 1, 2), *new, "-o", path)
    v2 = read_keyring(path.read_bytes()).verify(first())
    assert (list(v2.roots), v2.former_roots) == ([*map(public, NEW_ROOTS)], first().roots)
    keys("add", v1)
    keys("add", path)
    path = tmp_path / "apart.json"
    new = [word for number in NEW_ROOTS for word in ("--new-root", public(number))]
    document = keys("rotate", v1, *new, "-o", path, "--json").json
    assert [gap["signatures"] for gap in document["missing"]] == [2, 2]
    for number, lacking in ((1, [2, 1]), (4, [1, 1]), (6, [1]), (3, [])):
        document = keys("sign", path, *with_roots(pem, number), "-o", path, "--json").json
        assert [gap["signatures"] for gap in document["missing"]] == lacking
    assert read_keyring(path.read_bytes()).verify(first()) == v2


def test_fewer_root_keys_than_needed(tmp_path: Path, keys: Keys, v1: Path, pem: Callable[[int], Path]) -> None:
    path = tmp_path / "v2.json"
    done = keys("revoke", v1, id_of(SIGNING), *with_roots(pem, 2), "-o", path)
    assert f"unfinished: 1 signature more of {id_of(1)}, {id_of(3)} needed" in done.err
    assert f"gdn-aot keys sign {path}" in done.err
    keys("add", v1)
    expect_error(keys("add", path, "--json", code=5), 5, "signature")
    expect_error(keys("revoke", path, "a" * 64, "-o", tmp_path / "x", "--json", code=5), 5, "signature")
    keys("sign", path, *with_roots(pem, 3), "-o", path)
    keys("add", path)
    assert read_keyring((tmp_path / "known" / FILE).read_bytes()).verify(first()).keys[0].revoked


def test_revoke(tmp_path: Path, keys: Keys, v1: Path, pem: Callable[[int], Path]) -> None:
    path, two = tmp_path / "v2.json", with_roots(pem, 1, 2)
    keys("revoke", v1, "b" * 64, "a" * 64, id_of(SIGNING), "a" * 64, *two, "-o", path, "-q")
    v2 = read_keyring(path.read_bytes()).verify(first())
    assert v2.revoked == ("a" * 64, "b" * 64)
    assert [key.revoked for key in v2.keys] == [True]
    for name, why in (
        ("a" * 64, "revoked already"), (id_of(SIGNING), "revoked already"), (id_of(1), "is a root"),
        ("c" * 32, "no key of this keyring"), ("C" * 64, "neither"), ("x", "neither"), ("", "neither"),
    ):  # fmt: skip
        words = ("revoke", path, "d" * 64, name, *two, "-o", tmp_path / "v3.json", "--json")
        assert why in expect_error(keys(*words, code=2), 2, "usage")["message"]
    assert not (tmp_path / "v3.json").exists()
    keys("revoke", path, "c" * 64, *two, "-o", tmp_path / "v3.json")
    assert read_keyring((tmp_path / "v3.json").read_bytes()).verify(v2).revoked == ("a" * 64, "b" * 64, "c" * 64)


@pytest.mark.parametrize(
    "words",
    [
        (), ("--serial", 1), ("--new-public", public(11)), ("--new-public", "x", "--serial", 1),
        ("--new-public", public(SIGNING), "--serial", 1), ("--new-public", public(1), "--serial", 1),
        ("--new-public", public(11), "--serial", -1), ("--new-public", public(11), "--serial", "x"),
        ("--new-root", public(4)),
        ("--new-root", public(3), "--new-root", public(2), "--new-root", public(1)),
        ("--new-root", public(4), "--new-root", public(4), "--new-root", public(5)),
        ("--new-root", "missing.pem", "--new-root", public(4), "--new-root", public(5)),
        ("--new-public", public(11), "--new-key", "x.pem", "--serial", 1), ("--root-key", "missing.pem"),
    ],
)  # fmt: skip
def test_rotate_used_wrongly(tmp_path: Path, keys: Keys, v1: Path, words: tuple[object, ...]) -> None:
    expect_error(keys("rotate", v1, *words, "-o", tmp_path / "v2.json", "--json", code=2), 2, "usage")
    assert not (tmp_path / "v2.json").exists()


def test_signing_with_what_is_no_root(tmp_path: Path, keys: Keys, v1: Path, pem: Callable[[int], Path]) -> None:
    sha = "a" * 64
    for number in (SIGNING, 7):
        words = ("revoke", v1, sha, *with_roots(pem, 1, number), "-o", tmp_path / "v2.json", "--json")
        assert "none of them" in expect_error(keys(*words, code=5), 5, "signature")["message"]
    (tmp_path / "public.pem").write_text("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n")
    for path in (tmp_path / "public.pem", v1, tmp_path):
        words = ("revoke", v1, sha, "--root-key", path, "-o", tmp_path / "v2.json", "--json")
        expect_error(keys(*words, code=2), 2, "usage")
    assert not (tmp_path / "v2.json").exists()


def test_nothing_else_is_overwritten(tmp_path: Path, keys: Keys, v1: Path, pem: Callable[[int], Path]) -> None:
    two = with_roots(pem, 1, 2)
    before = contents(tmp_path)
    for place in (pem(1), v1, tmp_path):
        words = ("revoke", v1, "a" * 64, *two, "-o", place, "--json")
        assert "holds something else" in expect_error(keys(*words, code=2), 2, "usage")["message"]
    assert contents(tmp_path) == before
    words = ("revoke", v1, "a" * 64, *two, "-o", tmp_path / "no" / "where", "--json")
    expect_error(keys(*words, code=9), 9, "not-writable")
    keys("sign", v1, *with_roots(pem, 3), "-o", v1)
    assert len(read_keyring(v1.read_bytes()).envelope.signatures) == 3


def test_help() -> None:
    from click.testing import CliRunner

    from gdn_aot.cli.keys import command

    for name in (None, *command.commands):
        shown = CliRunner().invoke(command, [*filter(None, [name]), "--help"])
        assert shown.exit_code == 0
        assert name == "list" or "Example" in shown.output

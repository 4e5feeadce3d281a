"""``gdn-aot verify --provenance``: who built a file, with a real bundle."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import factory
import pytest
from helpers import Done
from provenances import BUILT, BUNDLE, EXPECTED, SHA256, beside
from signing import Publisher

from gdn_aot.artifact import verify

Command = Callable[..., Done]
ASKED = ("--provenance", EXPECTED.repository, "--workflow", EXPECTED.workflow, "--ref", "refs/tags/v*")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact with the bundle of another file beside it."""
    path = tmp_path / "gdn-aot-x.tar.zst"
    path.write_bytes(factory.pack(factory.members()))
    beside(path).write_bytes(BUNDLE)
    return path


def test_the_command_names_what_is_wrong(artifact: Path, command: Command) -> None:
    sha256 = factory.sha256(artifact.read_bytes())
    done = command("verify", artifact, "--json", "--provenance", "acme/gdn-aot", code=5)
    assert done.json["error"]["code"] == "provenance"
    assert done.json["ok"] is False
    assert done.json["provenance"] is None
    assert done.json["sha256"] == sha256
    assert [one["where"] for one in done.json["problems"]] == ["subject", "repository", "workflow", "ref"]
    done = command("verify", artifact, *ASKED, code=5)
    assert done.out == ""
    assert f"subject: is for other files: none has the SHA-256 {sha256}" in done.err
    assert command("verify", artifact).code == 0


def test_the_command_says_who_built_it(artifact: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No artifact has a real bundle yet: this one is said to be the file that `BUNDLE` is for."""
    found = verify.examine(artifact)
    found.sha256 = SHA256
    monkeypatch.setattr(verify, "examine", lambda _path: found)
    fields = asdict(BUILT)
    assert command("verify", artifact, "--json", *ASKED).json["provenance"] == fields
    first, *lines = command("verify", artifact, *ASKED).out.splitlines()
    assert first.endswith(f"sha256 {SHA256}")
    assert lines == [f"  {name}: {text}" for name, text in fields.items()]
    moved = beside(artifact).rename(artifact.with_name("elsewhere"))
    command("verify", artifact, *ASKED, code=5)
    assert command("verify", artifact, *ASKED, "--bundle", moved).out.splitlines() == [first, *lines]


def test_a_bundle_that_is_missing(artifact: Path, command: Command) -> None:
    beside(artifact).unlink()
    error = command("verify", artifact, "--json", *ASKED, code=5).json["error"]
    assert error["code"] == "provenance"
    assert f"{beside(artifact)} cannot be read: No such file" in error["message"]


def test_an_artifact_that_is_not_sound_needs_no_bundle(artifact: Path, command: Command) -> None:
    artifact.write_bytes(artifact.read_bytes() + b"x")
    assert command("verify", artifact, "--json", *ASKED, code=5).json["error"]["code"] == "verification"


@pytest.mark.parametrize("module", ["sigstore", "sigstore.verify", "sigstore._store"])
def test_without_the_library(module: str, artifact: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sigstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    error = command("verify", artifact, "--json", *ASKED, code=2).json["error"]
    assert error["code"] == "usage"
    assert error["hint"] == "pip install 'gdn-aot[provenance]'"
    assert command("verify", artifact).code == 0


@pytest.mark.parametrize("option", [("--workflow", "a.yml"), ("--ref", "main"), ("--bundle", "x")])
def test_options_that_need_another(option: tuple[str, str], artifact: Path, command: Command) -> None:
    assert "add --provenance" in command("verify", artifact, "--json", *option, code=2).json["error"]["hint"]
    assert command("verify", artifact, "--json", "--provenance", "x", code=2).json["error"]["code"] == "usage"


def test_what_was_revoked(artifact: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    org, sha256 = Publisher(), factory.sha256(artifact.read_bytes())
    monkeypatch.setenv("GDN_AOT_KEYS", org.known_in(tmp_path / "keys")["GDN_AOT_KEYS"])
    assert command("verify", artifact).code == 0
    org.known_in(tmp_path / "keys", org.signed(org.keyring(2, revoked=[sha256])))
    done = command("verify", artifact, "--json", code=5)
    assert (done.json["ok"], done.json["error"]["code"]) == (False, "signature")
    said = command("verify", artifact, code=5).err
    assert said.count(f"{org.repo} has revoked the artifact of SHA-256 {sha256}") == 1
    artifact.with_name("gdn-aot-x.sig.json").write_bytes(b"{}")
    org.known_in(tmp_path / "keys")
    assert "is no envelope" in command("verify", artifact, code=5).err

"""Signed artifacts in a serving process: what was signed is served, what somebody changed is a miss with its reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import gdn_aot, python
from planting_store import header_of, rewrite
from signing import Publisher

from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.publish import publish

_SAY = """
import json, sys, gdn_aot
gdn_aot.install(*sys.argv[1:])
report = gdn_aot.report()
foreign = [name for name in ("cryptography", "msgspec", "torch", "triton") if name in sys.modules]
judged = "gdn_aot.trust.judge" in sys.modules
print(json.dumps({**report.to_dict(), "foreign": foreign, "judged": judged}))
"""


class Server:
    """A machine that has fetched one signed artifact."""

    def __init__(self, folder: Path, built: Built) -> None:
        self.folder, self.org, self.built = folder, Publisher(), built
        self.registry = DirectoryRegistry(str(folder / "registry"))
        self.known = self.org.known_in(folder / "keys")
        publish(self.registry, [built.path], create=True, signing=self.org.signing())
        self.fetch()
        (self.place,) = (folder / "store/artifacts").iterdir()

    def fetch(self) -> None:
        words = ("fetch", "--repo", self.registry.name, "--arch", "sm_120", "--provider", "fla")
        gdn_aot(*words, home=self.folder, extra=self.known)

    def start(self, *args: object, **more: str) -> Any:
        """Start a serving process; returns what its loader says."""
        return python(_SAY, *args, home=self.folder, extra={**self.known, **more})


@pytest.fixture
def server(tmp_path: Path, decode: Built) -> Server:
    return Server(tmp_path, decode)


def test_it_is_served_and_says_who_signed_it(server: Server) -> None:
    said = server.start(GDN_AOT_TRUST="signed")
    assert said["active"]
    assert said["foreign"] == []
    (row,) = said["artifacts"]
    assert row["reason"] == f"fits; signed by {server.org.repo}, key {server.org.key_id}"


@pytest.mark.parametrize("trust", ["owner", "signed"])
def test_a_store_rewritten_with_right_digests(server: Server, trust: str) -> None:
    rewrite(server.place, {**header_of(server.place), "workloads": ["another"]})
    said = server.start(GDN_AOT_TRUST=trust)
    assert not said["active"]
    assert "the artifact was changed" in said["problem"]
    assert [row["accepted"] for row in said["artifacts"]] == [False]
    server.fetch()
    assert server.start(GDN_AOT_TRUST=trust)["active"]


def test_what_was_revoked_since(server: Server) -> None:
    following = server.org.signed(server.org.keyring(2, revoked=[server.built.artifact.sha256]))
    server.known = server.org.known_in(server.folder / "keys", following)
    said = server.start()
    assert not said["active"]
    assert "has revoked" in said["problem"]


def test_what_was_revoked_without_its_statement(server: Server) -> None:
    """In the store, and as a file: taking the statement away is no way round."""
    following = server.org.signed(server.org.keyring(2, revoked=[server.built.artifact.sha256]))
    server.known = server.org.known_in(server.folder / "keys", following)
    (server.place / "release.json").unlink()
    for words in ((), (server.built.path,)):
        said = server.start(*words)
        assert not said["active"]
        assert f"{server.org.repo} has revoked" in said["problem"]
    other = {"GDN_AOT_HOME": str(server.folder / "other")}
    assert "has revoked" in server.start(server.built.path, **other)["problem"]
    assert server.start(server.built.path, **other, GDN_AOT_TRUST="any")["active"]


def test_a_keyring_at_fault(server: Server) -> None:
    (server.folder / "trust").mkdir(exist_ok=True)
    learned = server.folder / "trust" / "org--kernels.jsonl"
    learned.write_bytes(b"{}\n")
    said = server.start()
    assert not said["active"]
    assert str(learned) in said["problem"]
    done = gdn_aot("cache", "verify", "--repair", "--json", home=server.folder, extra=server.known, code=5)
    assert (done.json["error"]["code"], done.json["removed"]) == ("keyring", [])
    assert [one["where"] for one in done.json["problems"]] == [str(learned), str(server.place)]
    done = gdn_aot("cache", "verify", home=server.folder, extra=server.known, code=5)
    assert "gdn-aot keys list says what is wrong" in done.err
    learned.unlink()
    assert server.start()["active"]


def test_a_file_with_its_statement_beside_it(server: Server) -> None:
    """As GDN_AOT_ARTIFACT has it, where nothing but what is signed may be used."""
    place = server.folder / "there" / "kernels.tar.zst"
    place.parent.mkdir()
    place.write_bytes(server.built.path.read_bytes())
    place.chmod(0o666)
    home = {"GDN_AOT_HOME": str(server.folder / "other"), "GDN_AOT_TRUST": "signed"}
    assert "it is not signed" in server.start(place, **home)["problem"]
    beside = place.with_name("kernels.sig.json")
    beside.write_bytes((server.place / "release.json").read_bytes())
    said = server.start(place, **home)
    assert said["active"], said["problem"]
    assert "signed by" in said["artifacts"][0]["reason"]
    place.unlink()
    assert server.start(**home)["active"], "it was put into the store together with its statement"
    document = json.loads(beside.read_bytes())
    document["signatures"][0]["sig"] = "A" * 86 + "=="
    beside.write_bytes(json.dumps(document, separators=(",", ":")).encode() + b"\n")
    place.write_bytes(server.built.path.read_bytes())
    assert "is not right" in server.start(place, GDN_AOT_HOME=str(server.folder / "third"))["problem"]


def test_what_was_built_or_captured_here_needs_no_signature(server: Server, tmp_path: Path) -> None:
    home = {"GDN_AOT_HOME": str(tmp_path / "own")}
    assert server.start(server.built.path, **home)["active"]
    said = server.start(**home)
    assert said["active"]
    assert not said["judged"], "nor does it wait for what verifies one"
    assert not server.start(**home, GDN_AOT_TRUST="signed")["active"]

"""The page on publishing with keys of one's own: its commands are run as they are there, on a directory."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import ROOT, expect_error, gdn_aot
from making import make
from signing import ORG

from examples import shell, tools
from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.trust.keyring import read_keyring

__all__ = ["tools"]

PAGE = (ROOT / "docs/how-to/publish-privately.md").read_text()
REPO = "hf://org/kernels"
WANTED = ("--arch", "sm_120", "--provider", "fla", "--provider-version", "0.6.0", "--triton", "3.6.0")


def blocks(heading: str) -> list[str]:
    """The commands under a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(?:sh)?\n(.*?)```", section, re.DOTALL)


class Desk:
    """Where somebody publishes, and the machine that serves from there."""

    def __init__(self, root: Path, tools: Path) -> None:
        self.work, self.registry, self.home = root / "work", root / "registry", root / "home"
        self._tools = tools
        self.known = {"GDN_AOT_KEYS": str(root / "known")}
        (root / "known").mkdir()
        (self.work / "dist").mkdir(parents=True)
        self.build(1)

    def build(self, number: int) -> None:
        shutil.copy(make(self.work / "built", build=number).path, self.work / "dist")

    def do(self, script: str, **more: str) -> str:
        env = {"GDN_AOT_HOME": str(self.home), "GDN_AOT_REPO": str(self.registry), **self.known, **more}
        return shell(
            script.replace(f"GDN_AOT_REPO={REPO}", f"GDN_AOT_REPO={self.registry}"), self._tools, self.work, env
        )

    def fetch(self, code: int = 0, *words: str) -> str:
        done = gdn_aot(
            "fetch", "--repo", self.registry, *WANTED, *words, "--json", home=self.home, extra=self.known, code=code
        )
        return expect_error(done, code, "signature")["message"] if code else done.out

    def signers(self) -> tuple[str, int]:
        """Who has signed the artifact on the branch, and the version of the newest keyring there."""
        registry = DirectoryRegistry(str(self.registry))
        snapshot = registry.resolve("v1")
        index = json.loads(registry.read(snapshot, "index.json"))
        (entry,) = index["entries"]
        envelope = json.loads(registry.read(snapshot, f"targets/{entry['identifier']}.sig.json"))
        versions = [int(path.stem) for path in (self.registry / "keyrings").iterdir()]
        return envelope["signatures"][0]["keyid"], max(versions)


@pytest.fixture
def desk(tmp_path: Path, tools: Path) -> Desk:
    """A publisher who has come to the end of the ten lines."""
    desk = Desk(tmp_path, tools)
    publishing, serving, later = blocks("In ten lines")
    desk.do(publishing)
    shutil.copy(desk.work / "keys/keyring.json", desk.work)
    assert "of hf://org/kernels, of whom no key is known here" in desk.fetch(5)
    assert "(GDN_AOT_KEYS): counts" in desk.do(serving)
    desk.build(2)
    desk.do(later)
    return desk


def test_ten_lines(desk: Desk) -> None:
    assert ORG == REPO
    lines = [line for block in blocks("In ten lines")[:2] for line in block.splitlines()]
    assert len(lines) <= 10
    assert '"v1"' in desk.fetch()
    assert not [path for path in desk.registry.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]


def test_rotation_and_revocation(desk: Desk) -> None:
    first, _ = desk.signers()
    desk.fetch()
    (rotation,) = blocks("Another key that signs")
    desk.do(rotation)
    assert desk.signers() == (first, 2)
    keys = read_keyring((desk.work / "keyring-2.json").read_bytes()).verify().keys
    assert [(key.from_serial, key.to_serial) for key in keys] == [(0, 2), (3, None)]
    desk.fetch()
    (revocation,) = blocks("When a key was stolen")
    desk.do(revocation.replace("0123456789abcdef0123456789abcdef", first))
    assert desk.signers() == (keys[1].id, 3)
    desk.fetch()
    listed = gdn_aot("keys", "list", "--json", home=desk.home, extra=desk.known).json["keyrings"]
    assert [one["version"] for one in listed if one["counts"]] == [3]
    assert "was revoked" in desk.fetch(5, "--revision", "v1.0.0", "--allow-unsigned")


def test_roots_that_never_meet(tmp_path: Path, tools: Path) -> None:
    desk = Desk(tmp_path, tools)
    one, lost = blocks("Root keys that never meet")
    make_root, whole = one.split("\n", 1)
    making = [make_root, *(make_root.replace("root-1", name) for name in ("root-2", "root-3", "root-4", "signing"))]
    publics = [desk.do(f"{words} --json | jq -r .public").strip() for words in making]
    for public in (*publics[:3], publics[4]):
        whole = whole.replace("HEX", public, 1)
    desk.do(whole)
    v1 = read_keyring((desk.work / "keyring.json").read_bytes()).verify()
    shutil.copy(desk.work / "keyring.json", desk.work / "keyring-3.json")
    desk.do(lost.replace("HEX", publics[0], 1).replace("HEX", publics[1], 1))
    v2 = read_keyring((desk.work / "keyring-4.json").read_bytes()).verify(v1)
    assert list(v2.roots) == [publics[0], publics[1], publics[3]]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_command_that_signs(tmp_path: Path, tools: Path) -> None:
    desk = Desk(tmp_path, tools)
    publish, script, _, public = blocks("A key in a KMS or on a token")
    desk.do("gdn-aot keys new --key -o signing.pem")
    (desk.work / "sign.sh").write_text(script)
    (desk.work / "sign.sh").chmod(0o755)
    half = desk.do(public)
    desk.do(f"gdn-aot keys new --repo {REPO} --public {half} -o keys; {publish}")
    desk.do("gdn-aot keys add keys/keyring.json")
    desk.fetch()


def test_a_secret_of_ci(desk: Desk) -> None:
    desk.build(3)
    (command,) = re.findall(r"- run: (gdn-aot publish .*)", PAGE)
    secret = (desk.work / "keys/signing.pem").read_text()
    desk.do(command, GITHUB_REF_NAME="v1.2.0", GDN_AOT_SIGNING_KEY=secret)
    desk.fetch()

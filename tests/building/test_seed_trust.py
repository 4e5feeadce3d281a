"""``gdn-aot seed`` takes what a process here would load, and nothing else."""

import shutil
from pathlib import Path

from builds import Built
from commands import refused
from helpers import gdn_aot
from signing import Publisher

from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.publish import publish
from gdn_aot.store.install import install
from gdn_aot.store.store import Store


def test_whose_artifact(decode: Built, tmp_path: Path) -> None:
    """A file, or the directory of an installed one: as when it is loaded."""

    def refuse(path: Path, known: dict[str, str], kind: str) -> str:
        words = ("seed", path, "--into", tmp_path / "cache")
        message = refused(*words, home=tmp_path / "home", extra=known, code=5, kind=kind)["message"]
        assert not (tmp_path / "cache").exists()
        return message

    org = Publisher()
    only = {"GDN_AOT_TRUST": "signed", **org.known_in(tmp_path / "keys")}
    file = tmp_path / "kernels.tar.zst"
    shutil.copy(decode.path, file)
    place_of = Path(install(Store(str(tmp_path / "home")), decode.artifact).place)
    for path in (file, place_of):
        assert "not signed" in refuse(path, only, "untrusted")
    registry = DirectoryRegistry(str(tmp_path / "registry"))
    publish(registry, [decode.path], create=True, signing=org.signing())
    (statement,) = (tmp_path / "registry/targets").glob("*.sig.json")
    for beside in (tmp_path / "kernels.sig.json", place_of / "release.json"):
        shutil.copy(statement, beside)
    revoking = {
        **only,
        **org.known_in(tmp_path / "newer", org.signed(org.keyring(2, revoked=[decode.artifact.sha256]))),
    }
    for path in (file, place_of):
        assert "has revoked" in refuse(path, revoking, "signature")
    gdn_aot("seed", file, "--into", tmp_path / "signed", home=tmp_path / "home", extra=only)
    gdn_aot("seed", place_of, "--into", tmp_path / "signed", home=tmp_path / "home", extra=only)
    for beside in (tmp_path / "kernels.sig.json", place_of / "release.json"):
        beside.unlink()
    for path in (file, place_of):
        message = refuse(path, {**revoking, "GDN_AOT_TRUST": "owner"}, "signature")
        assert "has revoked" in message, "whether or not its statement is there"

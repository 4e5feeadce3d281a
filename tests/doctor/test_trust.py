"""What doctor says of signatures and keyrings."""

from pathlib import Path

from builds import Built
from helpers import gdn_aot
from signing import Publisher

from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.publish import publish


def test_who_signed_and_whose_signatures_count(tmp_path: Path, decode: Built) -> None:
    org, registry = Publisher(), DirectoryRegistry(str(tmp_path / "registry"))
    known = org.known_in(tmp_path / "keys")
    publish(registry, [decode.path], create=True, signing=org.signing())
    gdn_aot(*("fetch", "--repo", registry.name, "--arch", "sm_120", "--provider", "fla"), home=tmp_path, extra=known)
    document = gdn_aot("doctor", "--json", home=tmp_path, extra=known).json
    assert document["artifacts"][0]["signed"] == f"{org.repo}, key {org.key_id}"
    (keyring,) = document["trust"]["keyrings"]
    assert (keyring["repository"], keyring["version"], keyring["counts"]) == (org.repo, 1, True)
    page = gdn_aot("doctor", home=tmp_path, extra=known).out
    assert f"{org.repo}: version 1 of 2026-11-30, " in page
    publish(registry, [], signing=org.signing(org.signed(org.keyring(2, revoked=["a" * 64]))))
    gdn_aot(*("fetch", "--repo", registry.name, "--arch", "sm_120", "--provider", "fla"), home=tmp_path, extra=known)
    rows = gdn_aot("doctor", "--json", home=tmp_path, extra=known).json["trust"]["keyrings"]
    assert [(row["version"], row["source"], row["counts"]) for row in rows] == [
        (1, "GDN_AOT_KEYS", False), (2, "registry", True),
    ]  # fmt: skip
    (tmp_path / "keys/org--kernels.json").write_text("{}")
    document = gdn_aot("doctor", "--json", home=tmp_path, extra=known, code=None).json
    assert "is no envelope" in str(document["obstacles"])
    without = gdn_aot("doctor", "--json", home=tmp_path, extra={"GDN_AOT_TRUST": "signed"}, code=None).json
    assert without["trust"]["policy"] == "signed"
    assert not any(row["counts"] for row in without["trust"]["keyrings"]), "what was learned follows nothing"
    assert "no key of hf://org/kernels is known here" in without["artifacts"][0]["reason"]

"""Every bit of statement, keyring and index counts, in more tries than a commit waits for."""

from pathlib import Path

import pytest
from making import make
from signing import Publisher, check_flips

from gdn_aot.registry.directory import DirectoryRegistry
from gdn_aot.registry.publish import publish
from gdn_aot.store.store import Store


def test_five_thousand_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    org, registry = Publisher(), DirectoryRegistry(str(tmp_path / "registry"))
    monkeypatch.setenv("GDN_AOT_KEYS", org.known_in(tmp_path / "keys")["GDN_AOT_KEYS"])
    publish(registry, [make(tmp_path).path], signing=org.signing(), create=True)
    publish(registry, [], signing=org.signing(org.signed(org.keyring(2))))
    check_flips(tmp_path / "registry", Store(str(tmp_path / "home")), 5000)

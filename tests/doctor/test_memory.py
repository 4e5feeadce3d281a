"""``gdn-aot doctor``: what artifacts cost on the devices here, by their real number of SMs."""

from pathlib import Path
from typing import Any

import factory
import pytest
from doctoring import artifact_of, doctor
from helpers import gdn_aot

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.store.install import install
from gdn_aot.store.store import Store

LOCAL = 2048


@pytest.fixture
def spilling(tmp_path: Path) -> Path:
    """A home whose store has an artifact for sm_120 that spills."""
    install(Store(str(tmp_path / "home")), open_artifact(factory.write_spilling(tmp_path, LOCAL)))
    return tmp_path / "home"


def _artifact(home: Path, **extra: str) -> dict[str, Any]:
    (found,) = doctor(home, code=4, **extra)["artifacts"]  # its kernels are not those of the installed provider
    return dict(found)


def test_each_device_that_the_artifact_is_for(spilling: Path, driver: Path) -> None:
    extra = {"TRITON_LIBCUDA_PATH": str(driver), "FAKE_ARCHS": "120,90,120", "FAKE_SMS": "36"}
    found = _artifact(spilling, **extra)
    assert [spill["local"] for spill in found["cost"]["spills"]] == [LOCAL]
    assert found["reserves"] == [
        {
            "card": f"device {number} (Card {number})",
            "sm_count": 36,
            "threads_per_sm": 1536,
            "bytes": 36 * 1536 * LOCAL,
        }
        for number in (0, 2)
    ]
    page = gdn_aot("doctor", home=spilling, code=4, extra=extra).out
    assert "reserve       108 MiB on device 0 (Card 0) (36 SMs x 1536 threads)\n" in page
    assert page.count("warning       the first launch of that kernel takes 108 MiB of the card") == 2
    page = gdn_aot("doctor", home=spilling, code=4, extra={**extra, "FAKE_SMS": "20"}).out
    assert "reserve       60 MiB on device 0" in page
    assert "warning" not in page


def test_nothing_is_said_of_what_no_device_here_runs(spilling: Path, driver: Path) -> None:
    found = _artifact(spilling, TRITON_LIBCUDA_PATH=str(driver), FAKE_ARCHS="90")
    assert (found["cost"], found["reserves"]) == (None, [])


def test_without_a_device_it_is_of_the_card_that_is_named(spilling: Path) -> None:
    (reserve,) = _artifact(spilling)["reserves"]
    assert (reserve["card"], reserve["sm_count"]) == ("NVIDIA GeForce RTX 5090", 170)


def test_a_driver_that_does_not_tell_the_number_of_sms(spilling: Path, driver: Path) -> None:
    found = _artifact(spilling, TRITON_LIBCUDA_PATH=str(driver), FAKE_ARCHS="120", FAKE_SMS="-1")
    assert found["cost"]["code"] > 0
    assert found["reserves"] == []


def test_a_file_that_no_store_has(spilling: Path, tmp_path: Path) -> None:
    found = _artifact(tmp_path / "empty", GDN_AOT_ARTIFACT=str(tmp_path / "spills.tar.zst"))
    assert [spill["local"] for spill in found["cost"]["spills"]] == [LOCAL]


def test_what_does_not_spill(served: Path) -> None:
    (found,) = doctor(served)["artifacts"]
    assert found["cost"]["spills"] == []
    assert found["cost"]["code"] > 0
    assert "local memory  none\n" in gdn_aot("doctor", home=served).out


def test_a_manifest_that_is_gone(copied: Path) -> None:
    (artifact_of(copied) / "manifest.json.zst").unlink()
    (found,) = doctor(copied, code=4)["artifacts"]
    assert found["accepted"]
    assert found["cost"] is None

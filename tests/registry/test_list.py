"""``gdn-aot list``: a registry and the store side by side, and what fits."""

import json
from pathlib import Path
from typing import Any

import pytest
from doctoring import distribution, driver_library, flip
from helpers import expect_error, gdn_aot
from making import SM_90, SM_120, make
from registries import Here, put

NO_GPU = "fits what is installed; there is no GPU here to compare {} with"
NOWHERE = {"GDN_AOT_REPO": "/nowhere"}


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """FLA 0.6.0, Triton 3.6.0, and no CUDA driver."""
    distribution(tmp_path / "site", "fla_core", "0.6.0")
    return {**distribution(tmp_path / "site", "triton", "3.6.0"), "TRITON_LIBCUDA_PATH": "/nowhere", **NOWHERE}


@pytest.fixture
def with_gpu(machine: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**machine, "TRITON_LIBCUDA_PATH": str(driver_library(tmp_path / "driver")), "FAKE_ARCHS": "120"}


def rows(here: Here, *args: object, extra: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gdn_aot("list", *args, "--json", home=here.home, extra=extra).json["artifacts"]
    return found


def test_a_registry(here: Here, machine: dict[str, str]) -> None:
    here.fetch()
    document = gdn_aot("list", "--repo", here.registry, "--json", home=here.home, extra=machine).json
    first, second = document["artifacts"]
    assert [first["identifier"], second["identifier"]] == [SM_120, SM_90]
    assert first["path"].startswith(f"{here.home}/store/artifacts/{SM_120}-")
    assert second["path"] is None
    assert first["in_registry"] is second["in_registry"] is True
    assert (first["fits"], first["reason"]) == (None, NO_GPU.format("sm_120"))
    assert first["choices"] == {"measured": 2, "transferred": 0, "default": 2}
    assert (first["models"], first["numerics"]) == (1, "not run")
    assert document["registry"]["repo"] == str(here.registry)
    assert first["origins"] == [f"{here.registry}@{document['registry']['commit']}"]
    assert (document["machine"]["targets"], document["machine"]["triton"]) == ([], "3.6.0")


def test_what_fits(here: Here, with_gpu: dict[str, str]) -> None:
    first, second = rows(here, "--repo", here.registry, extra=with_gpu)
    assert (first["fits"], first["reason"]) == (True, "fits")
    assert (second["fits"], second["reason"]) == (False, "is for sm_90; this machine has sm_120")


def test_for_people(here: Here, with_gpu: dict[str, str]) -> None:
    here.fetch()
    done = gdn_aot("list", "--repo", here.registry, home=here.home, extra=with_gpu)
    heads, first, second = done.out.splitlines()
    names = "artifact where bytes measured proxy transferred default numerics fits why"
    assert heads.split() == names.split()
    assert first.split()[:2] == [SM_120, "both"]
    assert second.split()[:2] == [SM_90, "registry"]
    assert second.endswith("no    is for sm_90; this machine has sm_120")
    assert "2 artifacts" in done.err
    quiet = gdn_aot("list", "--repo", here.registry, "-q", home=here.home, extra=with_gpu)
    assert quiet.out == f"{SM_120}\n{SM_90}\n"


def test_the_store(here: Here, machine: dict[str, str]) -> None:
    """Also where a registry is out of reach that nobody named; who names one wants to know about that one."""
    assert rows(here, "--installed", extra=machine) == []
    here.fetch("--arch", "sm_90")
    (row,) = rows(here, "--installed", extra=machine)
    assert (row["identifier"], row["in_registry"], row["size"]) == (SM_90, False, None)
    assert row["choices"] == {"measured": 2, "transferred": 0, "default": 2}
    assert "store" in gdn_aot("list", "--installed", home=here.home, extra=machine).out
    done = gdn_aot("list", "--json", home=here.home, extra=machine)
    assert done.json["registry"]["error"]["code"] == "repository-missing"
    assert "Warning: " in done.err
    assert [row["identifier"] for row in done.json["artifacts"]] == [SM_90]
    named = gdn_aot("list", "--repo", "/nowhere", "--json", home=here.home, extra=machine, code=7)
    expect_error(named, 7, "repository-missing")


def test_both(here: Here, machine: dict[str, str], artifacts: Path) -> None:
    """The store has an older build than the registry, and one that the registry has no more."""
    here.fetch("--arch", "all")
    put(here.registry, make(artifacts, build=2), tag="v1.1.0")
    for args, extra in (
        ((), {**machine, "GDN_AOT_REPO": str(here.registry)}),
        (("--repo", here.registry, "--installed"), machine),
    ):
        new, old, both = rows(here, *args, extra=extra)
        assert (new["identifier"], new["in_registry"], new["path"]) == (SM_120, True, None)
        assert (old["identifier"], old["in_registry"]) == (SM_120, False)
        assert old["reason"] == f"{NO_GPU.format('sm_120')}; the registry has another build"
        assert (both["identifier"], both["in_registry"]) == (SM_90, True)
        assert both["path"] is not None
    named = rows(here, "--repo", here.registry, "--revision", "v1.0.0", extra=machine)
    assert [row["path"] is not None for row in named] == [True, True]


def test_a_damaged_artifact(here: Here, machine: dict[str, str]) -> None:
    here.fetch()
    (index,) = here.home.glob("store/artifacts/*/index")
    flip(index, 100)
    (row,) = rows(here, "--installed", extra=machine)
    assert (row["path"], row["fits"]) == (str(index.parent), False)
    assert "is damaged" in row["reason"]


@pytest.mark.parametrize("lost", ["pack", "manifest.json.zst"])
def test_an_artifact_that_lacks_something(here: Here, with_gpu: dict[str, str], lost: str) -> None:
    """Its index is sound, and it could not serve; fetch would install it again."""
    here.fetch()
    (gone,) = here.home.glob(f"store/artifacts/*/{lost}")
    gone.unlink()
    (row,) = rows(here, "--installed", extra=with_gpu)
    assert row["path"].startswith(f"{here.home}/store/artifacts/{SM_120}-")
    assert (row["fits"], row["reason"]) == (False, f"is damaged: {gone}: No such file or directory")
    first, second, broken = rows(here, "--repo", here.registry, "--installed", extra=with_gpu)
    assert [first["identifier"], second["identifier"]] == [SM_120, SM_90]
    assert first["path"] is None
    assert broken == row


def test_an_index_cannot_steer_the_terminal(here: Here, machine: dict[str, str]) -> None:
    index = json.loads((here.registry / "index.json").read_text())
    index["entries"][0]["numerics"]["status"] = "checked\x1b]0;owned\x07\nfake line"
    (here.registry / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    for form in ([], ["--json"]):
        done = gdn_aot("list", "--repo", here.registry, *form, home=here.home, extra=machine, code=5)
        assert "entries[0].numerics.status" in done.out + done.err
        assert all(line.isprintable() for line in (done.out + done.err).splitlines())
        assert "fake line" not in (done.out + done.err).splitlines()
    expect_error(done, 5, "verification")

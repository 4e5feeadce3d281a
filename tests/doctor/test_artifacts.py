"""``gdn-aot doctor``: artifacts, and what is in their way."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import storing
import zstandard
from builds import Built
from doctoring import KERNEL, artifact_of, distribution, doctor, first_on_path, flip, in_the_way, provider_copy
from helpers import gdn_aot, python, run
from msgspec.structs import replace

from gdn_aot.artifact import manifest as manifests
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.doctor import artifacts, next_start
from gdn_aot.machine import devices
from gdn_aot.store.install import size_of

# ---- Nothing, and what fits ----


def test_no_artifact(tmp_path: Path) -> None:
    document = doctor(tmp_path, code=4)
    assert in_the_way(document) == f"artifacts: the store {tmp_path}/store has no artifact"
    build = "gdn-aot build --arch TARGET --provider fla --model NAME"
    assert document["error"]["hint"].startswith(f"gdn-aot fetch --arch TARGET, or {build}, then set GDN_AOT_ARTIFACT")
    assert (document["store"]["exists"], document["store"]["writable"]) == (False, True)
    assert document["artifacts"] == []
    (start,) = document["next_start"]
    assert (start["target"], start["everything"]) == (None, "no artifact fits")
    assert start["commands"] == [build]
    shown = gdn_aot("doctor", home=tmp_path, code=4).out
    assert f"everything, as no artifact fits: gdn-aot fetch --arch TARGET, or {build}\n" in shown
    assert not list(tmp_path.iterdir())


def test_an_artifact_that_fits_without_a_device(served: Path) -> None:
    document = doctor(served)
    assert document["verdict"] == "ok: artifacts serve 1 kernel for sm_120 (no device here to compare with)"
    assert document["devices"]["driver"] == "absent"
    assert document["devices"]["problem"] == "no CUDA driver here: versions are checked, the device is not"
    (artifact,) = document["artifacts"]
    assert (artifact["accepted"], artifact["reason"], artifact["devices"]) == (True, "fits", [])
    assert artifact["identifier"] == artifact_of(served).name.rpartition("-")[0]
    assert artifact["directory"] == artifact["path"] == str(artifact_of(served))
    assert artifact["models"] == [{"name": "qwen3.5-9b", "tp": 1, "dtype": "bf16"}]
    assert artifact["workloads"] == ["transformers-decode"]
    assert artifact["kernels"] == [KERNEL]
    assert artifact["refused"] == artifact["damage"] == artifact["not_covered"] == []
    (start,) = document["next_start"]
    assert (start["target"], start["devices"], start["everything"], start["commands"]) == ("sm_120", [], "", [])
    assert (start["served"], start["artifacts"]) == ([KERNEL], [artifact["path"]])
    store = document["store"]
    assert (store["exists"], store["writable"], store["format"], store["problem"]) == (True, True, "1", "")
    assert (store["artifacts"], store["bytes"]) == (1, size_of(f"{served}/store"))


def test_a_file_is_examined_and_not_unpacked(decode: Built, tmp_path: Path) -> None:
    for document in (
        doctor(tmp_path, "--artifact", decode.path),
        doctor(tmp_path, GDN_AOT_ARTIFACT=str(decode.path)),
        doctor(tmp_path, GDN_AOT_ARTIFACT=str(decode.path.parent)),
        doctor(tmp_path, "--artifact", decode.path, GDN_AOT_ARTIFACT="/nowhere"),
    ):
        (artifact,) = document["artifacts"]
        assert (artifact["path"], artifact["directory"]) == (str(decode.path), None)
        assert (artifact["accepted"], artifact["kernels"]) == (True, [KERNEL])
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_store_has(served: Path, decode: Built) -> None:
    (artifact,) = doctor(served, "--artifact", decode.path)["artifacts"]
    assert (artifact["path"], artifact["directory"]) == (str(decode.path), str(artifact_of(served)))


def test_nothing_heavy_is_imported(served: Path, decode: Built) -> None:
    code = (
        "import sys; from gdn_aot.cli.main import run; run(['doctor', '--deep', *sys.argv[1:]]); import json;"
        "names = 'torch', 'triton', 'fla', 'numpy', 'huggingface_hub';"
        "print(json.dumps([name for name in names if name in sys.modules]))"
    )
    assert python(code, home=served) == []
    assert python(code, "--artifact", decode.path, home=served) == []


# ---- Versions and sources ----


def test_another_version_of_the_provider(served: Path, tmp_path: Path) -> None:
    document = doctor(served, code=4, **distribution(tmp_path / "site", "fla_core", "0.5.2"))
    reason = "made for fla-core 0.6.0, installed is 0.5.2, and no kernel has the same source"
    assert in_the_way(document) == f"artifacts: no artifact fits: {document['artifacts'][0]['identifier']}: {reason}"
    assert document["versions"]["providers"] == {"fla-core": "0.5.2", "vllm": None, "sglang": None}
    assert document["error"]["hint"].startswith("install fla-core 0.6.0 and triton 3.6.0, or gdn-aot fetch --arch ")
    assert (document["artifacts"][0]["accepted"], document["artifacts"][0]["reason"]) == (False, reason)
    assert document["artifacts"][0]["refused"] == []


def test_an_unsupported_triton(served: Path, tmp_path: Path) -> None:
    document = doctor(served, code=4, **distribution(tmp_path / "site", "triton", "3.99.0"))
    assert document["versions"]["triton_problem"] == "Triton 3.99.0 is installed; gdn-aot supports 3.6 to 3.9"
    assert [obstacle["where"] for obstacle in document["obstacles"]] == ["versions", "artifacts"]
    assert document["next_start"][0]["everything"] == document["versions"]["triton_problem"]


def test_an_edited_source_file(served: Path, tmp_path: Path) -> None:
    file = provider_copy(tmp_path / "site")
    assert doctor(served, **first_on_path(tmp_path / "site"))["next_start"][0]["served"] == [KERNEL]
    file.write_text(f"{file.read_text()}# one line more\n")
    document = doctor(served, code=4, **first_on_path(tmp_path / "site"))
    reason = f"{file} is not the file that the artifact was built from"
    assert in_the_way(document) == f"next_start: refused: {KERNEL}: {reason}"
    (artifact,), (start,) = document["artifacts"], document["next_start"]
    assert artifact["accepted"]
    assert artifact["refused"] == start["refused"] == [{"kernel": KERNEL, "reason": reason, "keys": 0}]
    assert start["served"] == []
    file.unlink()
    (start,) = doctor(served, code=4, **first_on_path(tmp_path / "site"))["next_start"]
    assert start["refused"][0]["reason"] == f"there is no module {KERNEL.partition(':')[0]} here"


# ---- Damage ----


def test_a_damaged_index(copied: Path) -> None:
    flip(artifact_of(copied) / "index", 100)
    document = doctor(copied, code=4)
    (artifact,) = document["artifacts"]
    assert (artifact["accepted"], artifact["identifier"]) == (False, None)
    assert artifact["reason"] == f"{artifact['path']}/index: its header is damaged"
    assert document["error"]["hint"].startswith(f"delete {artifact['path']} and set GDN_AOT_ARTIFACT to its file")


def test_a_pack_that_is_cut_or_gone(copied: Path) -> None:
    pack = artifact_of(copied) / "pack"
    size = pack.stat().st_size
    pack.write_bytes(pack.read_bytes()[:-1])
    document = doctor(copied, code=4)
    wrong = f"{pack}: has {size - 1} bytes, expected {size}"
    assert document["artifacts"][0]["damage"] == [wrong]
    assert in_the_way(document).endswith(f"is damaged: {wrong}")
    pack.unlink()
    assert "No such file" in in_the_way(doctor(copied, code=4))


def test_what_deep_finds(copied: Path) -> None:
    place = artifact_of(copied)
    first, second = storing.cubins(place)[0], "manifest.json.zst"
    doctor(copied, "--deep")
    storing.flip_blob(place, first, 200)
    flip(place / second, -1)
    doctor(copied)
    wrong = f"{place}/pack: the content of blob {first} is not what its name says"
    assert in_the_way(doctor(copied, "--deep", code=4)).endswith(f"is damaged: {wrong} (and 1 more)")
    flip(place / "index", -1)
    assert "a record is damaged" in in_the_way(doctor(copied, "--deep", code=4))


@pytest.mark.parametrize("content", [b"", b"{}", bytes(100), zstandard.compress(b"{}")])
def test_a_damaged_manifest(copied: Path, content: bytes) -> None:
    """Nothing of it is needed to serve."""
    (artifact_of(copied) / "manifest.json.zst").write_bytes(content)
    doctor(copied, code=0 if content else 4)
    assert "manifest.json.zst: is " in in_the_way(doctor(copied, "--deep", code=4))


def test_what_the_build_did_not_cover(decode: Built, tmp_path: Path) -> None:
    lacking = manifests.NotCovered(kernel="a:b", reason="too large", keys=((1,), (2,)))
    manifest = replace(decode.manifest, not_covered=(lacking,), blobs=())
    path = tmp_path / "other.tar.zst"
    write_artifact(manifest, dict(decode.artifact.iter_blobs()), path)
    (start,) = doctor(tmp_path, "--artifact", path)["next_start"]
    assert start["not_covered"] == [{"kernel": "a:b", "reason": "too large", "keys": 2}]
    shown = gdn_aot("doctor", "--artifact", path, home=tmp_path).out
    assert "not covered by the build: 1\n      a:b: too large\n" in shown


# ---- Paths that cannot be used ----


def test_a_bad_path(served: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.tar.zst"
    garbage.write_bytes(b"garbage")
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "empty", "no *.tar.zst file is in"),
        (garbage, "garbage.tar.zst"),
        (tmp_path / garbage.name / "below", "Not a directory"),
    ):
        document = doctor(served, code=4, GDN_AOT_ARTIFACT=str(path))
        (artifact,) = document["artifacts"]
        assert (artifact["path"], artifact["accepted"]) == (str(path), False)
        assert reason in artifact["reason"]
        assert document["store"]["artifacts_from"] == document["settings"]["artifact"] == str(path)
        done = gdn_aot("doctor", "--artifact", path, home=served, code=4)
        assert reason in done.out


def test_a_path_that_is_not_text(served: Path) -> None:
    command = [sys.executable, "-m", "gdn_aot", "doctor", "--artifact", os.fsdecode(b"/nowhere/\xff")]
    for extra in ([], ["--json"]):
        done = run([*command, *extra], served)
        assert done.code == 4, done.err
        assert "/nowhere/" in done.out


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    document = doctor(tmp_path, code=4)
    assert in_the_way(document) == f"store: {tmp_path}/store is not a directory"
    assert not document["store"]["writable"]
    document = doctor(tmp_path, code=4, GDN_AOT_HOME=str(tmp_path / "store"))
    assert in_the_way(document) == f"store: {tmp_path}/store is not a directory"


def test_a_store_of_another_format(copied: Path, decode: Built) -> None:
    (copied / "store" / "format").write_text("99\n")
    document = doctor(copied, code=4)
    assert in_the_way(document) == f"store: the store {copied}/store is of another format"
    assert document["store"]["format"] == "99"
    (artifact,) = doctor(copied, "--artifact", decode.path, code=0)["artifacts"]
    assert (artifact["accepted"], artifact["directory"]) == (True, None), "it is unpacked in memory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_that_may_not_be_read(copied: Path) -> None:
    (copied / "store" / "artifacts").chmod(0)
    assert "cannot be read: Permission denied" in in_the_way(doctor(copied, code=4))


# ---- Several artifacts ----


def state(path: str, **more: Any) -> artifacts.ArtifactState:
    given = {"accepted": True, "reason": "fits", "target": "sm_90", "capability": (9, 0), "kernels": ("m:f", "m:g")}
    return artifacts.ArtifactState(path=path, **{**given, **more})


def test_a_kernel_that_another_artifact_serves_is_not_refused() -> None:
    refused = (artifacts.Unserved(kernel="m:f", reason="edited"), artifacts.Unserved(kernel="m:g", reason="edited"))
    both = [state("a", refused=refused), state("b", refused=refused[:1])]
    (start,) = next_start.next_starts(both, (), "")
    assert (start.artifacts, start.served, start.refused) == (("a", "b"), ("m:g",), refused[:1])


def test_artifacts_for_other_devices_do_not_count(served: Path, decode: Built) -> None:
    refused = (artifacts.Unserved(kernel="m:f", reason="edited"),)
    device = devices.Device(
        index=0, name="x", target="sm_120", capability=(12, 0), memory=1, sm_count=1, buildable=True
    )
    found = [state("a", target="sm_120"), state("b", refused=refused, damage=("gone",)), state("c", accepted=False)]
    starts = next_start.next_starts(found, [device], "")
    assert [start.artifacts for start in starts] == [("a",)]
    assert not list(next_start.shortcomings("s", found, starts))
    assert len(list(next_start.shortcomings("s", found, next_start.next_starts(found[1:], (), "")))) == 2


# ---- Form ----


def test_a_kernel_of_the_hub_that_may_not_be_read(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub/models--org--name/snapshots/abc"
    snapshot.mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot.chmod(0)
    try:
        with storing.no_privilege():
            assert doctor(served)["hub_kernels"] == []
    finally:
        snapshot.chmod(0o755)


def test_the_shape_of_the_json(served: Path, driver: Path) -> None:
    """Programs read it: each part has the same keys whatever is found."""
    device = {"TRITON_LIBCUDA_PATH": str(driver), "FAKE_ARCHS": "120"}
    first, *others = (doctor(served, **device), doctor(served), doctor(served, "--artifact", "/nowhere", code=4))
    assert list(first) == [
        "ok", "verdict", "obstacles", "versions", "settings", "devices", "compiler", "store", "trust", "artifacts",
        "hub_kernels", "hooks", "next_start",
    ]  # fmt: skip
    for document in others:
        document.pop("error", None)
        assert list(document) == list(first)
        for name, part in document.items():
            if isinstance(part, dict):
                assert list(part) == list(first[name])
        for name in ("artifacts", "next_start"):
            assert [list(row) for row in document[name]] == [list(row) for row in first[name]]


def test_the_page(served: Path, tmp_path: Path) -> None:
    done = gdn_aot("doctor", home=served)
    assert done.err == ""
    lines = done.out.splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[:-1] == [
        "versions", "settings", "devices", "compiler", "store", "trust", "artifacts", "hub kernels", "hooks",
        "next start",
    ]  # fmt: skip
    assert lines[-1] == doctor(served)["verdict"]
    assert all(line == line.rstrip() and line.isprintable() for line in lines)
    done = gdn_aot("doctor", home=tmp_path, code=4)
    assert "in the way" in done.out.splitlines()
    assert done.out.splitlines()[-1] == f"not ok: the store {tmp_path}/store has no artifact"
    assert done.err.startswith(f"Error: the store {tmp_path}/store has no artifact\nHint: gdn-aot fetch --arch")


def test_a_card_of_another_name_than_the_deployments_is_told_of() -> None:
    parts: dict[str, Any] = {
        "target": "sm_90",
        "capability": (9, 0),
        "memory": None,
        "sm_count": 132,
        "buildable": True,
    }
    names = ("NVIDIA H200", "NVIDIA H100 80GB HBM3", None)
    found = [devices.Device(index=number, name=name, **parts) for number, name in enumerate(names)]
    state = artifacts.ArtifactState(
        path="x", accepted=True, reason="fits", identifier="x", target="sm_90", card="NVIDIA H200", devices=(0, 1, 2)
    )
    section = artifacts.artifacts_section([state], found)
    warned = [line for line in section.lines if "whose tiles follow the card's name" in line]
    assert [line.partition("device ")[2].partition(":")[0] for line in warned] == ["1 is NVIDIA H100 80GB HBM3"]
    assert any(line.split() == ["card", "NVIDIA", "H200"] for line in section.lines)


@pytest.mark.parametrize(("value", "what"), [("1", "vLLM gets them"), ("0", "not without GDN_AOT_COMPILE_CACHE=1")])
def test_code_for_the_host_is_told_of(monkeypatch: pytest.MonkeyPatch, value: str, what: str) -> None:
    monkeypatch.setenv("GDN_AOT_COMPILE_CACHE", value)
    state = artifacts.ArtifactState(path="x", accepted=True, reason="fits", identifier="x", compile_cache=94)
    section = artifacts.artifacts_section([state], [])
    assert any(line.endswith(f"94 files of vLLM's compile cache: {what}") for line in section.lines)
    without = artifacts.artifacts_section([artifacts.ArtifactState(path="x", accepted=True, reason="fits")], [])
    assert not [line for line in without.lines if "host code" in line]

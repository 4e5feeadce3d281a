"""``gdn-aot doctor``: the machine around the artifacts: devices, settings, compiler, and what installs the loader."""

import shutil
from pathlib import Path

import pytest
from doctoring import KERNEL, distribution, doctor, driver_library, first_on_path, in_the_way
from helpers import gdn_aot

from gdn_aot.doctor import process

# ---- Devices ----


def test_devices_that_are_served(served: Path, driver: Path) -> None:
    document = doctor(served, TRITON_LIBCUDA_PATH=str(driver), FAKE_ARCHS="120,120", CUDA_VISIBLE_DEVICES="4,5")
    assert document["verdict"] == "ok: artifacts serve 1 kernel for device 0, 1 (sm_120)"
    found = document["devices"]
    assert (found["driver"], found["cuda"], found["visible"], found["problem"]) == ("ready", "12.8", "4,5", "")
    assert found["found"][1] == {
        "index": 1,
        "name": "Card 1",
        "target": "sm_120",
        "capability": [12, 0],
        "memory": 80 << 30,
        "sm_count": 84,
        "buildable": True,
    }
    assert document["artifacts"][0]["devices"] == [0, 1]
    (start,) = document["next_start"]
    assert (start["target"], start["devices"], start["served"]) == ("sm_120", [0, 1], [KERNEL])


def test_a_device_without_an_artifact(served: Path, driver: Path) -> None:
    document = doctor(served, code=4, TRITON_LIBCUDA_PATH=str(driver), FAKE_ARCHS="120,90,35")
    whats = [obstacle["what"] for obstacle in document["obstacles"]]
    assert whats == ["no artifact that fits is for device 1 (sm_90)", "no artifact that fits is for device 2 (sm_35)"]
    assert document["error"]["hint"].startswith("gdn-aot fetch --arch sm_90, or gdn-aot build --arch sm_90 ")
    assert [start["target"] for start in document["next_start"]] == ["sm_120", "sm_90", "sm_35"]
    served_one, other, unknown = document["next_start"]
    assert served_one["everything"] == ""
    assert (other["everything"], other["commands"]) == (
        "no artifact for sm_90 fits",
        ["gdn-aot build --arch sm_90 --provider fla --model NAME"],
    )
    assert (unknown["everything"], unknown["commands"]) == (
        "no artifact for sm_35 fits, and gdn-aot cannot build for it",
        [],
    )
    shown = gdn_aot("doctor", home=served, code=4, extra={"TRITON_LIBCUDA_PATH": str(driver), "FAKE_ARCHS": "90"}).out
    assert "none of those here is sm_120" in shown
    assert "device 0 (sm_90) compiles and benchmarks everything, as no artifact for sm_90 fits: gdn-aot fetch" in shown


def test_a_driver_without_devices(served: Path, driver: Path) -> None:
    settings = {"TRITON_LIBCUDA_PATH": str(driver), "FAKE_ARCHS": "90"}
    document = doctor(served, **settings, FAKE_INIT="100", CUDA_VISIBLE_DEVICES="")
    assert (document["devices"]["driver"], document["devices"]["found"]) == ("no-device", [])
    assert "CUDA_VISIBLE_DEVICES hides all" in document["devices"]["problem"]
    document = doctor(served, **settings, FAKE_INIT="803", code=4)
    assert document["devices"]["driver"] == "broken"
    expected = "devices: the CUDA driver does not work: cuInit: the text of an error (803)"
    assert in_the_way(document) == expected


def test_a_library_that_is_no_driver(served: Path, tmp_path: Path) -> None:
    empty = driver_library(tmp_path / "empty", source="int nothing;")
    old = driver_library(tmp_path / "old", "-DOLD")
    document = doctor(served, code=4, TRITON_LIBCUDA_PATH=str(empty))
    assert in_the_way(document).startswith("devices: libcuda.so.1 is not a CUDA driver")
    document = doctor(served, code=4, TRITON_LIBCUDA_PATH=str(tmp_path))
    assert in_the_way(document).startswith("devices: cannot load libcuda.so.1 from TRITON_LIBCUDA_PATH")
    (device,) = doctor(served, TRITON_LIBCUDA_PATH=str(old), FAKE_ARCHS="120")["devices"]["found"]
    assert (device["name"], device["memory"]) == (None, None)


# ---- Settings, compiler, hooks ----


def test_switched_off(served: Path) -> None:
    document = doctor(served, code=4, GDN_AOT="0")
    assert in_the_way(document) == "settings: GDN_AOT=0 switches the loader off"
    assert document["artifacts"][0]["accepted"]
    assert document["next_start"][0]["everything"] == "GDN_AOT=0 switches the loader off"


def test_a_variable_that_changes_code(served: Path) -> None:
    document = doctor(served, code=4, PTXAS_OPTIONS="-O1")
    assert document["settings"]["changed_code_variable"] == "PTXAS_OPTIONS"
    assert in_the_way(document) == "settings: PTXAS_OPTIONS is set, which changes what Triton compiles"
    shown = gdn_aot("doctor", home=served, extra={"PTXAS_OPTIONS": "-O1"}, code=4).out
    assert "  changed_code_variable  PTXAS_OPTIONS\n" in shown


def test_the_variable_that_fla_sets_itself_on_old_cards(served: Path, driver: Path) -> None:
    settings = {"TRITON_F32_DEFAULT": "ieee", "TRITON_LIBCUDA_PATH": str(driver)}
    old = doctor(served, code=4, **settings, FAKE_ARCHS="75")
    assert old["settings"]["changed_code_variable"] is None
    new = doctor(served, code=4, **settings, FAKE_ARCHS="120")
    assert in_the_way(new) == "settings: TRITON_F32_DEFAULT is set, which changes what Triton compiles"


def test_what_inductor_compiles_itself_is_said(served: Path) -> None:
    assert doctor(served)["hooks"]["compiled_by_inductor"] == {"fla-core": "the recurrent operator (decode)"}
    shown = gdn_aot("doctor", home=served).out
    assert "the recurrent operator (decode) of fla-core itself; docs/how-to/compiled.md has it served" in shown


def test_settings(served: Path) -> None:
    extra = {"GDN_AOT_STRICT": "yes", "GDN_AOT_ON_MISS": "tune", "GDN_AOT_LOG": "info", "TRITON_CACHE_DIR": "/cache"}
    assert doctor(served, **extra)["settings"] == {
        "enabled": True,
        "home": str(served),
        "artifact": None,
        "strict": True,
        "on_miss": "tune",
        "log": "info",
        "problems": [],
        "triton_cache_dir": "/cache",
        "changed_code_variable": None,
    }
    document = doctor(served, GDN_AOT_STRICT="perhaps", GDN_AOT_ON_MISS="never", GDN_AOT_LOG="loud")
    assert [problem.partition("=")[0] for problem in document["settings"]["problems"]] == [
        "GDN_AOT_ON_MISS",
        "GDN_AOT_STRICT",
        "GDN_AOT_LOG",
    ]


def test_compilers(served: Path, tmp_path: Path) -> None:
    assert doctor(served)["compiler"]["path"] == shutil.which("gcc")
    fake = tmp_path / "clang"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    assert doctor(served, PATH=str(tmp_path))["compiler"]["path"] == str(fake)
    compiler = doctor(served, CC="/nowhere/cc")["compiler"]
    assert (compiler["path"], compiler["native_launcher"], compiler["can_launch"]) == (None, True, True)
    assert "CC=/nowhere/cc, which is not there" in compiler["meaning"]


def test_neither_compiler_nor_launcher(served: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['gdn_aot.triton_internals._launch'] = None\n")
    extra = first_on_path(tmp_path)
    compiler = doctor(served, **extra)["compiler"]
    assert (compiler["native_launcher"], compiler["can_launch"]) == (False, True)
    assert compiler["native_problem"]
    document = doctor(served, code=4, **extra, PATH="/nowhere")
    assert in_the_way(document).startswith("compiler: nothing can be launched: no gcc and no clang")
    assert not document["compiler"]["can_launch"]


@pytest.mark.parametrize(
    ("host", "value", "left_out"),
    [
        ("vllm", None, False),
        ("vllm", "other", True),
        ("vllm", "", True),
        ("vllm", "other,gdn_aot", False),
        ("vllm", "other, gdn_aot", True),
        ("sglang", None, False),
        ("sglang", "other", True),
        ("sglang", "", False),
        ("sglang", "other, gdn_aot", False),
    ],
)
def test_plugin_filters(host: str, value: str | None, left_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"{host.upper()}_PLUGINS"
    if value is not None:
        monkeypatch.setenv(variable, value)
    (plugin,) = (plugin for plugin in process.read_hooks().facts["plugins"] if plugin["host"] == host)
    assert (plugin["variable"], plugin["filter"], plugin["left_out"]) == (variable, value, left_out)


def test_plugins(served: Path, tmp_path: Path) -> None:
    document = doctor(served, VLLM_PLUGINS="other")
    assert [plugin["installed"] for plugin in document["hooks"]["plugins"]] == [True, True]
    ours = "[vllm.general_plugins]\ngdn_aot = gdn_aot.plugins:vllm\n"
    extra = {**distribution(tmp_path / "site", "ours", "1.0", ours), "VLLM_PLUGINS": "other"}
    distribution(tmp_path / "site", "vllm", "0.33.0")
    vllm, sglang = doctor(served, **extra)["hooks"]["plugins"]
    assert (vllm["installed"], vllm["value"], vllm["left_out"]) == (True, "gdn_aot.plugins:vllm", True)
    assert vllm["host_version"] == "0.33.0"
    assert (sglang["installed"], sglang["left_out"]) == (True, False)
    shown = gdn_aot("doctor", home=served, extra=extra).out
    assert "gdn_aot.plugins:vllm of vllm.general_plugins; VLLM_PLUGINS=other leaves gdn_aot out" in shown


def test_a_loader_that_every_python_installs(served: Path, tmp_path: Path) -> None:
    assert doctor(served)["hooks"]["automatic"] is doctor(served)["hooks"]["active"] is False
    (tmp_path / "sitecustomize.py").write_text("import gdn_aot.auto\n")
    hooks = doctor(served, **first_on_path(tmp_path))["hooks"]
    assert hooks["automatic"] is hooks["active"] is True

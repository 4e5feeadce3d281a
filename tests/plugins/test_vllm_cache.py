"""The plugin and the compile cache of an artifact: only if it is asked for, and where it can fit."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factory
import pytest
from factory import CACHE

from gdn_aot.artifact.cached import FOLDER, SWITCH
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.machine import installed
from gdn_aot.plugins import vllm_cache
from gdn_aot.serving import caching, log
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.stored import StoredArtifact

PYTHON = ".".join(map(str, sys.version_info[:3]))
CONFIG = "/home/serving/.config/vllm"
MADE: dict[str, Any] = {"torch": "2.11.0+cu130", "python": PYTHON, "card": "NVIDIA H200"}


class Host:
    """A process of vLLM, as far as the plugin looks at it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.root, self.said = folder, folder / "cache", []
        self.levels: list[str] = []
        for level in ("notice", "warn", "info"):
            patch.setattr(log, level, lambda text, level=level: self.hear(level, text))
        patch.setattr(log, "detail", lambda _: None)
        self.version = "0.24.0+cu129"
        patch.setattr(installed, "version", lambda name: self.version if name == "vllm" else None)
        self.envs = SimpleNamespace(VLLM_CACHE_ROOT=str(self.root), VLLM_CONFIG_ROOT=CONFIG)
        self.torch = SimpleNamespace(__version__="2.11.0+cu130")
        self.card: Any = "NVIDIA H200"
        platform = SimpleNamespace(get_device_name=self.name, _get_physical_device_name=None)
        modules = {"vllm.envs": self.envs, "torch": self.torch}
        modules["vllm.platforms"] = SimpleNamespace(_current_platform=platform)
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)

    def hear(self, level: str, text: str) -> None:
        self.levels.append(level)
        self.said.append(text)

    def name(self) -> str:
        if isinstance(self.card, Exception):
            raise self.card
        return str(self.card)

    def artifact(self, **fields: Any) -> StoredArtifact:
        made = {"environment": (("VLLM_CONFIG_ROOT", CONFIG),), **MADE, **fields}
        file = factory.write_cached(self.folder, "0.24.0", CACHE, **made)
        return StoredArtifact(install(Store(str(self.folder / "home")), open_artifact(file)).place)

    def files(self) -> dict[str, bytes]:
        place = self.root / FOLDER
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv(SWITCH, "1")
    return Host(tmp_path, monkeypatch)


def test_it_is_put_in_place_if_it_is_asked_for(host: Host) -> None:
    artifact = host.artifact()
    vllm_cache.place([artifact])
    assert host.files() == CACHE
    assert host.levels == ["notice"]
    assert f"(4 files) in {host.root}/{FOLDER}" in host.said[0]
    vllm_cache.place([artifact])
    assert host.levels == ["notice", "info"]


@pytest.mark.parametrize("value", ["0", "", None, "perhaps"])
def test_else_nothing_is_written(host: Host, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """One line says that it is there, and what to set."""
    if value is None:
        monkeypatch.delenv(SWITCH)
    else:
        monkeypatch.setenv(SWITCH, value)
    monkeypatch.setattr(StoredArtifact, "read_blob", lambda *_: pytest.fail("it was read"))
    vllm_cache.place([host.artifact()])
    assert not host.root.exists()
    assert host.levels == ["notice"]
    assert f"{SWITCH}=1 if you trust who built it" in host.said[0]


def test_processes_that_an_engine_starts_do_not_say_it_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(multiprocessing, "parent_process", SimpleNamespace)
    vllm_cache.place([host.artifact()])
    assert host.levels == ["info"]


def test_all_is_off_with_the_loader(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDN_AOT", "0")
    vllm_cache.place([host.artifact()])
    assert not host.root.exists()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"torch": "2.11.0+cu128"}, "made with PyTorch 2.11.0+cu128, and here is 2.11.0+cu130"),
        ({"python": "3.9.1"}, "made with Python 3.9.1, and here is"),
        ({"card": "NVIDIA H100 80GB HBM3"}, "made with the GPU NVIDIA H100 80GB HBM3, and here is NVIDIA H200"),
        (
            {"environment": (("VLLM_CONFIG_ROOT", "/root/.config/vllm"),)},
            f"made with VLLM_CONFIG_ROOT=/root/.config/vllm, and here that is {CONFIG}",
        ),
    ],
)
def test_what_cannot_fit_is_not_put_in_place(host: Host, fields: dict[str, Any], why: str) -> None:
    vllm_cache.place([host.artifact(**fields)])
    assert not host.root.exists()
    assert host.levels == ["notice"]
    assert why in host.said[0]


def test_another_vllm(host: Host) -> None:
    host.version = "0.24.1"
    vllm_cache.place([host.artifact()])
    assert not host.root.exists()
    assert "made with vLLM 0.24.0, and here is 0.24.1" in host.said[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"torch": "", "python": "", "card": "", "environment": ()},
        {"card": "NVIDIA H200 MIG 1g.18gb"},
        {"environment": (("VLLM_OF_ANOTHER_RELEASE", "/x"),)},
    ],
    ids=str,
)
def test_what_nobody_knows_does_not_count(host: Host, fields: dict[str, Any]) -> None:
    vllm_cache.place([host.artifact(**fields)])
    assert host.files() == CACHE


def test_a_card_that_cannot_be_asked(host: Host) -> None:
    host.card = RuntimeError("NVML Shared Library Not Found")
    vllm_cache.place([host.artifact()])
    assert host.files() == CACHE


def test_a_platform_that_would_need_cuda_is_not_asked(host: Host) -> None:
    del sys.modules["vllm.platforms"]._current_platform._get_physical_device_name
    host.card = AssertionError("asked")
    vllm_cache.place([host.artifact()])
    assert host.files() == CACHE


def test_a_folder_that_cannot_be_written(host: Host) -> None:
    host.root.touch()
    vllm_cache.place([host.artifact()])
    assert host.levels == ["warn"]
    assert "cannot be put in place" in host.said[0]


@pytest.mark.parametrize("error", [ValueError("x\x1b[2J"), MemoryError(), caching.UnfitPathError("../x")], ids=repr)
def test_nothing_is_raised(host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(caching, "place", fail)
    vllm_cache.place([host.artifact()])
    assert host.levels == ["warn"]
    assert type(error).__name__ in host.said[0]
    assert host.said[0].isprintable()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_is_to_end_the_process(host: Host, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(caching, "place", fail)
    with pytest.raises(type(error)):
        vllm_cache.place([host.artifact()])


def test_artifacts_without_one_are_not_asked(host: Host) -> None:
    vllm_cache.place([SimpleNamespace(header={"identifier": "x"})])
    assert host.levels == []

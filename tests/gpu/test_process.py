"""The ways in which processes come to use the loader."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from gpu import served
from gpu.conftest import Program, Record

pytestmark = pytest.mark.gpu

SCENARIOS = ("launch_hooks", "inference_mode", "user_kernel", "compiled_caller")


@pytest.fixture(scope="module")
def usual(program: Program) -> dict[str, Any]:
    """A process that installs first and then imports FLA; the others must get the same numbers."""
    return program("process", mode="before")


@pytest.fixture(scope="module")
def scenarios(program: Program) -> dict[str, Any]:
    if shutil.which("gcc") is None:
        pytest.skip("gcc, which Triton needs for kernels of others, is not installed")
    return program("process", mode="scenarios", extra={"TORCHINDUCTOR_COMPILE_THREADS": "1"})


def scenario(scenarios: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = scenarios["found"][name]
    assert "error" not in found, found["error"]
    return found


def test_installed_before_import(usual: dict[str, Any], record: Record) -> None:
    report = usual["report"]
    record(modules=report["modules"], loaded=report["loaded"], native=report["native_launcher"], watch=usual["watch"])
    served.check_all(usual)
    assert {*served.CHUNK_KERNELS, served.DECODE_KERNEL, served.NORM_KERNEL} == served.loaded_kernels(report)
    assert 0 < report["modules"] <= sum(report["loaded"].values())


def test_installed_after_import(program: Program, usual: dict[str, Any]) -> None:
    found = program("process", mode="after")
    served.check_all(found)
    assert found["digests"] == usual["digests"]
    assert found["report"]["loaded"] == usual["report"]["loaded"]


def test_no_compiler_on_the_machine(program: Program, usual: dict[str, Any], tmp_path: Path, record: Record) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    found = program("process", mode="no-compiler", extra={"PATH": str(empty)}, without=["CC", "CXX"])
    record(watch=found["watch"], native=found["report"]["native_launcher"])
    assert found["compilers"] == {"gcc": None, "cc": None, "clang": None, "nvcc": None}
    served.check_all(found)
    assert found["report"]["native_launcher"]
    assert found["watch"]["cache_files"] == {}
    assert found["digests"] == usual["digests"]


def test_forked_and_spawned_children(program: Program, usual: dict[str, Any]) -> None:
    parent = program("process", mode="children")
    assert not parent["initialized_before_fork"]
    for found in (parent["forked"], parent["spawned"], parent):
        assert "error" not in found, found["error"]
        served.check_all(found)
        assert found["digests"] == usual["digests"]
    assert parent["forked"]["exit"] == 0
    assert parent["spawned"]["exit"] == 0


def test_first_calls_in_eight_threads_at_once(program: Program, usual: dict[str, Any]) -> None:
    found = program("process", mode="threads", extra={"FLA_DISABLE_TENSOR_CACHE": "1"})
    assert found["errors"] == []
    assert found["alive"] == 0
    served.check_all(found)
    assert len(found["found"]) == 8
    assert all(digests == usual["digests"] for digests in found["found"])
    assert set(found["report"]["loaded"]) == set(usual["report"]["loaded"])
    assert found["report"]["modules"] == usual["report"]["modules"], "each module is loaded once"


def test_two_devices(program: Program, usual: dict[str, Any], machine: dict[str, Any]) -> None:
    if len(machine["devices"]) < 2:
        pytest.skip("one CUDA device")
    found = program("process", mode="devices")
    served.check_all(found)
    assert found["found"] == {"0": usual["digests"], "1": usual["digests"]}
    assert found["report"]["modules"] == 2 * usual["report"]["modules"]


def test_cuda_graph_captured_after_preload(program: Program, usual: dict[str, Any]) -> None:
    found = program("process", mode="graph")
    served.check_all(found)
    assert found["equal"] == [True, True]
    assert found["digests"].items() <= usual["digests"].items()


def test_inference_mode(scenarios: dict[str, Any], usual: dict[str, Any]) -> None:
    assert scenario(scenarios, "inference_mode")["digests"] == usual["digests"]


def test_caller_compiled_by_torch(scenarios: dict[str, Any], record: Record) -> None:
    found = scenario(scenarios, "compiled_caller")
    record(compiled=found["compiled"])
    assert found["equal"] == [True, True]


def test_kernel_of_the_user(scenarios: dict[str, Any], usual: dict[str, Any]) -> None:
    found = scenario(scenarios, "user_kernel")
    assert found["equal"]
    assert found["compiled"] == ["add_kernel"]
    assert found["digests"] == usual["digests"]


def test_launch_hooks(scenarios: dict[str, Any], usual: dict[str, Any], record: Record) -> None:
    found = scenario(scenarios, "launch_hooks")
    record(entered=found["entered"], fields=found["fields"])
    assert found["digests"] == usual["digests"]
    assert {*served.CHUNK_KERNELS, served.DECODE_KERNEL, served.NORM_KERNEL} == set(found["entered"])
    assert found["left"] == found["entered"]
    assert {"name", "function", "stream"} <= set(found["fields"])
    assert found["after_removal"] == 0


def test_scenarios_compiled_nothing_of_fla(scenarios: dict[str, Any]) -> None:
    assert set(scenarios["found"]) == set(SCENARIOS)
    served.check_watch(scenarios["watch"])
    served.check_report(scenarios["report"])

"""The parts of ``benchmarks/vllm_gdn.py`` that need neither GPU nor engine."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, TIMEOUT

sys.path.insert(0, str(ROOT / "benchmarks"))

from builds import Built
from harness import goals_text
from vllm_gdn import plan, report

from gdn_aot import deployment


def requests(lengths: tuple[int, ...], first: float, later: float, **more: Any) -> list[dict[str, Any]]:
    return [
        {"tokens": n, "number": k, "first_token": later if k else first, "output": [n], "compiled_other": 0, **more}
        for n in lengths
        for k in range(3)
    ]


def record(name: str, **more: Any) -> dict[str, Any]:
    case = plan.CASES[name]
    return {
        "case": name,
        "error": None,
        "warm_up": 0.2,
        "ready": 60.0,
        "kv_bytes": 1000,
        "kv_blocks": 100,
        "graphs": case.graphs,
        "process": {"compiled_gdn": 0, "benchmarks_gdn": 0, "compiled_other": 3},
        "requests": requests(case.lengths, 0.03, 0.025),
        "prefill": {"8192": {"tuned": 610.0, "gdn": 900.0}},
        **more,
    }


SERVED_GRAPHS = ("e-graphs", "e-graphs-packed")
KINDS = [f"f-{kind}" for kind in plan.KINDS]


def good() -> dict[str, dict[str, Any]]:
    return {
        "a": record("a", error="OutOfMemoryError: CUDA out of memory", requests=[], prefill={}),
        "b": record("b", prefill={"8192": {"tuned": 747.0, "gdn": 1040.0}}, kv_bytes=900),
        "c": record("c"),
        "d": record("d"),
        "d-tight": record("d-tight", prefill={}),
        "e": record("e"),
        **{name: record(name, process=NOTHING) for name in ("f", *SERVED_GRAPHS, *KINDS)},
        **{name: record(name, ready=52.5) for name in ("warm", "warm-graphs")},
    }


NOTHING = {"compiled_gdn": 0, "benchmarks_gdn": 0, "compiled_other": 0}


def test_goals_that_are_met() -> None:
    assert [goal["met"] for goal in report.goals(good())] == [True] * 29


@pytest.mark.parametrize(
    ("name", "change", "missed"),
    [
        ("d", {"process": {"compiled_gdn": 1, "benchmarks_gdn": 2, "compiled_other": 0}}, [0, 1]),
        ("d", {"warm_up": 0.5}, [2]),
        ("d", {"prefill": {"8192": {"tuned": 700.0, "gdn": 1.0}}}, [3]),
        ("d", {"prefill": {}}, [3]),
        ("d", {"kv_bytes": 999}, [4]),
        ("a", {"error": None}, [5]),
        ("a", {"ready": None}, [5]),
        ("d-tight", {"error": "OutOfMemoryError: no"}, [6]),
        ("e", {"requests": requests((50,), 0.2, 0.02, compiled_other=1)}, [7, 8]),
        ("f", {"ready": 61.0}, [9]),
        ("warm", {"ready": None}, [9]),
        ("f", {"process": {**NOTHING, "compiled_other": 1}}, [10]),
        ("f", {"process": {**NOTHING, "compiled_gdn": 1}}, [10]),
        ("f", {"requests": requests((50,), 0.05, 0.02)}, [11]),
        ("f", {"kv_blocks": 99}, [12]),
        ("e-graphs", {"ready": 69.0}, [13]),
        ("e-graphs", {"requests": requests((50,), 0.11, 0.02)}, [15]),
        ("e-graphs-packed", {"process": {**NOTHING, "compiled_other": 1}, "kv_blocks": 0}, [18, 20]),
        ("e-graphs-packed", {"ready": 69.0}, [17]),
        ("f-drafts", {"process": {**NOTHING, "compiled_other": 1}}, [21]),
        ("f-v2", {"error": "RuntimeError: no", "process": NOTHING}, [27]),
        ("d", {"requests": [{**row, "output": [9]} for row in record("d")["requests"]]}, [28]),
    ],
)
def test_goals_that_are_missed(name: str, change: dict[str, Any], missed: list[int]) -> None:
    records = good()
    records[name].update(change)
    assert [place for place, goal in enumerate(report.goals(records)) if not goal["met"]] == missed
    assert "MISSED" in goals_text(report.goals(records))


def test_answers_are_compared_with_those_of_the_same_mode() -> None:
    records = good()
    for name in ("warm-graphs", *SERVED_GRAPHS):
        records[name]["requests"] = [{**row, "output": [9]} for row in records[name]["requests"]]
    assert report.goals(records)[-1]["met"]
    records["e-graphs"]["requests"] = record("e-graphs")["requests"]
    assert not report.goals(records)[-1]["met"]


def test_out_of_memory_is_told_whoever_says_it() -> None:
    for error, met in (
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 256.00 MiB", True),
        ("RuntimeError: Triton Error [CUDA]: out of memory", True),
        ("ended after 200 s; a line of the log", False),
    ):
        records = good()
        records["a"]["error"] = error
        assert report.goals(records)[5]["met"] is met


def test_cases_that_did_not_run_are_neither() -> None:
    found = report.goals({"b": record("b")})
    assert {goal["met"] for goal in found} == {None}
    assert "not run" in goals_text(found)


def test_the_table_has_every_case_and_why_one_ended() -> None:
    text = report.table(good(), {"a": "tight"})
    assert "(a) tight: OutOfMemoryError" in text
    assert "tuned_us_per_layer: 8192: 747.0" in text


def dry(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/vllm_gdn.py"), *map(str, arguments), "--dry"],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/vb.tar.xz.00").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    return tmp_path


def test_a_dry_run_says_what_would_run(engine: Path) -> None:
    text = dry("--engine", engine, "--cases", "a,b,c").stdout
    assert text.index("(a)") < text.index("(b)") < text.index("(c)")
    assert "GDN_AOT=0" in text
    total = plan.seconds([plan.CASES[name] for name in "abc"])
    assert f"about {total} s" in text


def test_every_split_fits_a_command_of_ten_minutes() -> None:
    deployed = ("f", "capture-graphs", "warm", "warm-graphs", "e-graphs-packed", "e-graphs")
    for names in (("a", "b", "c"), ("capture",), plan.DEFAULT, deployed, KINDS):
        assert plan.seconds([plan.CASES[name] for name in names]) < 600


def test_a_wrong_artifact_is_named(engine: Path, decode: Built) -> None:
    done = dry("--engine", engine, "--cases", "d", "--artifact", decode.path, code=1)
    assert "is of fla-core 0.6.0 and Triton 3.6.0, not of vllm 0.24.0" in done.stderr


def test_missing_things_are_named(tmp_path: Path) -> None:
    assert "parts has no vb.tar.xz" in dry("--engine", tmp_path, "--cases", "a", code=1).stderr
    alone = dry("--engine", tmp_path, "--cases", "warm", "--work", tmp_path, code=2).stderr
    assert "case warm starts with the caches that capture-graphs leaves: run capture-graphs before it" in alone
    assert "case d needs --artifact" in dry("--engine", tmp_path, "--cases", "d", code=2).stderr
    assert "case capture needs --deployment" in dry("--engine", tmp_path, "--cases", "capture", code=2).stderr
    assert "case f-drafts needs --kinds" in dry("--engine", tmp_path, "--cases", "f-drafts", code=2).stderr
    assert "unknown cases: x" in dry("--engine", tmp_path, "--cases", "a,x", code=2).stderr


DEPLOYMENT = deployment.Built(
    model="qwen3-next-80b-a3b", card="NVIDIA H200", config='{"vocab_size": 8}', resolved=(),
    engine=(("enforce_eager", True), ("speculative_config", '{"method": "mtp"}')),
    environment=(("VLLM_USE_DEEP_GEMM", "0"),),
)  # fmt: skip


def test_every_kind_of_deployment_is_described() -> None:
    """By files that can be read, each with options of its own."""
    files = {path.stem: deployment.read(str(path)) for path in (ROOT / "benchmarks/vllm_gdn/kinds").glob("*.toml")}
    assert set(files) == set(plan.KINDS)
    assert len({json.dumps([one.engine, one.environment, one.config], sort_keys=True) for one in files.values()}) == 7
    assert all(deployment.read_config(Path(one.config))["model_type"] == "qwen3_next" for one in files.values())


def test_the_process_of_a_case_is_told_all_that_it_reads(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = {"artifact": tmp_path / "x", "captured": None, "deployment": tmp_path / "y"}
    monkeypatch.setattr(plan, "described", lambda case, _: DEPLOYMENT if case.name == "f-drafts" else None)
    places = plan.Places(engine=engine, unpacked=tmp_path, work=tmp_path, out=tmp_path / "o.json", artifacts=served)
    text = (ROOT / "benchmarks/vllm_gdn/engine.py").read_text()
    for case in plan.CASES.values():
        spec = json.loads(json.dumps(plan.specification(case, places)))
        read = {part.partition('"')[0] for part in text.split('spec["')[1:]}
        assert read <= set(spec)
    variables = plan.environment(plan.CASES["d"], places)
    assert variables["GDN_AOT_ARTIFACT"] == str(tmp_path / "x")
    assert "GDN_AOT" not in variables
    assert plan.specification(plan.CASES["f"], places)["engine"] == {"enforce_eager": True}
    other = plan.CASES["f-drafts"]
    assert plan.environment(other, places)["VLLM_USE_DEEP_GEMM"] == "0"
    spec = plan.specification(other, places)
    assert spec["engine"] == {"enforce_eager": True, "speculative_config": {"method": "mtp"}}
    assert (Path(spec["model"]) / "config.json").read_text() == DEPLOYMENT.config


def test_caches_are_emptied_but_for_what_a_case_keeps(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.tar.zst" for name in ("deployment", "captured")}
    for path in files.values():
        path.write_text(path.name)
    places = plan.Places(engine=tmp_path, unpacked=tmp_path, work=tmp_path, out=tmp_path / "o.json", artifacts=files)
    for cache in plan.CACHES:
        (tmp_path / "kept" / cache).mkdir(parents=True)
        (tmp_path / "kept" / cache / "entry").touch()
    other = replace(plan.CASES["e-graphs"], caches="kept", keeps=("vllm",))
    for case, left in ((plan.CASES["warm"], plan.CACHES), (other, ("vllm",)), (other, ("vllm",))):
        plan.fill(case, places)
        assert {path.parent.name for path in (tmp_path / "kept").glob("*/entry")} == {*left}
    variables = plan.environment(other, places)
    assert {path.name for path in Path(variables["GDN_AOT_ARTIFACT"]).iterdir()} == {one.name for one in files.values()}
    assert all(Path(variables[name]).is_dir() for name in ("TRITON_CACHE_DIR", "VLLM_CACHE_ROOT", "HOME"))
    plan.fill(plan.CASES["f"], places)
    assert [*(tmp_path / "f").glob("*/*")] == []
    assert plan.environment(plan.CASES["warm"], places)["GDN_AOT"] == "0"

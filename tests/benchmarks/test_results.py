"""Committed results are what the programs read, and the small benchmarks say what they are asked."""

import hashlib
import io
import json
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from helpers import ROOT, run
from msgspec.structs import asdict

sys.path.insert(0, str(ROOT / "benchmarks"))

import cost
import harness
import releases
from builds import Built
from cold_start import report as cold_start
from kernels import report as kernels
from vllm_gdn import report as vllm

from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.matrix import load

RESULTS = ROOT / "benchmarks" / "results"
_TRAIN = ("--mode", "train", "--workload")


def test_the_page_on_cost_is_made_of_the_figures() -> None:
    results = harness.load(RESULTS / "cost.json")
    assert (ROOT / "docs" / "explanation" / "cost.md").read_text() == cost.page(results)
    assert {row["identifier"] for row in results["rows"]} <= {row.identifier for row in load(cost.MATRIX).rows}


@pytest.mark.parametrize("name", releases.ENGINES)
def test_the_page_on_releases_and_the_table_of_them_are_those_of_the_wheels(name: str) -> None:
    engine = releases.ENGINES[name]
    results = harness.load(engine.out)
    assert engine.page.read_text() == releases.page(engine, results)
    table = {one.version: one for one in PROVIDERS[name].versions}
    rows, letters = results["rows"], releases.letters(results["rows"])
    assert set(letters) == set(table), "all that could be traced"
    for release, letter in letters.items():
        row = rows[release]
        same = [other for other in letters if letters[other] == letter]
        assert (table[release].same_as or release) == same[-1], "the newest of those with everything in common"
        assert row["triton"] == table[release].triton
        assert f"asks for torch {row['torch']}," in table[release].source
        assert not any(one["misfits"] for one in row["models"].values())
        found = row.get("coverage", [])
        assert not any(one["misses"] for one in (found if isinstance(found, list) else [found]))


def test_a_row_of_coverage_says_of_which_artifact_it_is(decode: Built, tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    counts = {"calls": 5, "launches": 20, "hits": 19, "misses": [{}], "not_covered": [], "refused": [{"count": 2}]}
    said.write_text(json.dumps(counts))
    row = releases.covered(said, decode.path)
    digest = hashlib.sha256(decode.path.read_bytes()).hexdigest()
    assert row == {**counts, "misses": 1, "not_covered": 0, "refused": 2} | {
        "artifact": decode.manifest.identifier, "commit": decode.manifest.build.commit, "sha256": digest,
    }  # fmt: skip
    engine = releases.ENGINES["vllm"]
    releases_row = {"triton": "3.6.0", "kernels": {}, "keys": "", "models": {}}
    rows = {"0.1.0": {**releases_row, "coverage": row}, "0.2.0": {**releases_row, "coverage": {**row, "commit": None}}}
    first, second = releases.page(engine, {"rows": rows}).splitlines()[-2:]
    assert f"with {row['artifact']} ({(row['commit'] or '')[:8] or 'no commit'}, {digest[:8]}) |" in first
    assert f"(no commit, {digest[:8]}) |" in second


def test_training_and_selected_workloads_have_rows_of_their_own(
    build: Callable[..., Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identifier of an artifact says nothing of either, so that they would replace the usual row."""
    small = ("--arch", "sm_120", "--model", "qwen3.5-9b", "--max-tokens", 64)
    one, other = (build(*small, *more) for more in (("--workload", "gated-norm"), (*_TRAIN, "gated-norm-train")))
    assert one.manifest.identifier == other.manifest.identifier
    program = runpy.run_path(str(ROOT / "benchmarks/coverage.py"))
    monkeypatch.setitem(program["main"].__globals__, "OUT", tmp_path / "coverage.json")
    for built, workload in ((one, ""), (one, "gated-norm"), (other, "gated-norm-train")):
        words = ("--model", "qwen3.5-9b", "--tp", "1", "--workload", workload, "--calls", "20")
        monkeypatch.setattr(sys, "argv", ["coverage.py", str(built.path), *words])
        program["main"]()
    (rows,) = json.loads((tmp_path / "coverage.json").read_text())["rows"].values()
    misses = {place: row["misses"] > 0 for place, row in rows.items()}
    place = "qwen3.5-9b tp 1"
    assert misses == {place: True, f"{place} gated-norm": False, f"{place} train gated-norm-train": False}


def test_the_estimate_is_a_sum_over_the_rows_of_the_matrix() -> None:
    row = {"identifier": "fla0.6.0-triton3.6.0-sm_80", "built": "whole", "compiles": 2, "trace": 10.0, "pack": 2.0}
    row["compile"] = {"a": 3000.0, "b": 576.0}
    found = cost.page({"machine": {"cores": 2, "cpu": "x", "triton": "3.6.0"}, "jobs": 2, "rows": [row]})
    count = len(load(cost.MATRIX).rows)
    hours, wall = count * 3586 / 3600, count * (60 + 10 + 1788 + 2) / 3600
    assert f"| all | {count} | {hours:.1f} | {wall:.1f} h | 31.0 min |" in found
    assert "| `a` | 84% |" in found


@pytest.mark.parametrize(
    ("provider", "target", "taken"),
    [("fla", "sm_75", "fla sm_75"), ("fla", "sm_70", "fla sm_75"), ("fla", "sm_86", "fla sm_80"),
     ("fla", "sm_121", "fla sm_120"), ("vllm", "sm_75", "vllm sm_90")],
)  # fmt: skip
def test_what_stands_for_an_artifact_that_was_not_measured(provider: str, target: str, taken: str) -> None:
    measured = ("fla0.6.0-triton3.6.0-sm_75", "fla0.6.0-triton3.6.0-sm_80", "fla0.6.0-triton3.8.0-sm_120")
    rows = [{"identifier": name} for name in (*measured, "vllm0.24.0-triton3.6.0-sm_90")]
    found = cost.stand_in(rows, provider, target)["identifier"]
    assert " ".join(cost.provider_and_target(found)) == taken


def test_results_of_earlier_versions_are_read_and_no_dry_run_replaces_them() -> None:
    assert harness.place("kernels.json", None, dry=False) == RESULTS / "kernels.json"
    assert not harness.place("kernels.json", None, dry=True).is_relative_to(ROOT)
    document = harness.load(RESULTS / "cold_start.json")
    assert cold_start.summarize(document["records"]) == document["summary"]
    assert all(one["met"] for one in cold_start.goals(document) if "(f)" in one["goal"])
    assert "| (e) gdn-aot loader | 12.7 (" in cold_start.table(document)
    document = harness.load(RESULTS / "kernels.json")
    assert "qwen3.5-9b tp 4, microseconds" in kernels.tables(document)
    assert {one["met"] for one in kernels.goals(document)} == {True, False}
    document = harness.load(RESULTS / "vllm_gdn.json")
    assert [one["met"] for one in vllm.goals(document["records"])].count(False) == 1


@pytest.mark.parametrize("name", ["cold_start_kda_pairs", "cold_start_vllm_kda", "cold_start_sglang_kda"])
def test_pairs_and_goals_are_those_of_the_records(name: str) -> None:
    document = harness.load(RESULTS / f"{name}.json")
    made = cold_start.derived(document)
    assert made["summary"] == document["summary"]
    assert made["pairs"] == document["pairs"]
    judged = []
    for one_run in document.get("runs", [{"run": document["records"][0]["run"]}]):
        records = [record for record in document["records"] if record["run"] == one_run["run"]]
        assert records, one_run["run"]
        judged += cold_start.derived({**document, "records": records})["goals"]
    assert document["goals"] == judged


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    made: list[str] = []
    steps = {name: lambda name=name: made.append(name) for name in "ab"}
    found = harness.interleaved(steps, 2, lambda name: made.append(f"before {name}"))
    assert made == ["before a", "a", "before b", "b"] * 3
    assert set(found["a"]) == {"median", "least", "greatest", "cpu"}
    assert harness.summary([(1.0, 2.0), (3.0, 4.0), (20.0, 6.0)]) == {
        "median": 3.0, "least": 1.0, "greatest": 20.0, "cpu": 4.0,
    }  # fmt: skip


def test_a_command_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    done = harness.command(sys.executable, "-c", code, seconds=1.0)
    assert (done["ok"], done["error"]) == (False, "ended after 1 s")
    done = harness.command(sys.executable, "-c", "print('x'); raise SystemExit('no')", log=tmp_path / "log")
    assert (done["code"], done["stderr"]) == (1, "no\nx\n") or done["stderr"] == "x\nno\n"


def old_manifest(built: Built) -> dict[str, Any]:
    """Return what is compared of an artifact as manifests had it before the redesign."""
    return {
        "identifier": built.manifest.identifier,
        "kernels": [
            {
                "module": kernel.module,
                "qualname": kernel.qualname,
                "binaries": [{"launch_key": one.launch_key, "cubin": one.cubin} for one in kernel.binaries],
                "choices": [
                    {
                        "key": list(one.key),
                        "config": {**asdict(one.config), "kwargs": dict(one.config.kwargs)},
                        "provenance": one.provenance,
                    }
                    for one in kernel.choices
                ],
            }
            for kernel in built.manifest.kernels
        ],
    }


def compared(manifest: dict[str, Any], new: Path, folder: Path) -> tuple[int, str]:
    """Write an artifact as it was, a trailer after its frame included, and compare folders."""
    data, raw = json.dumps(manifest).encode(), io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    folder.mkdir()
    trailer = b"\x50\x2a\x4d\x18\x08\x00\x00\x00skipped!"
    (folder / "a.tar.zst").write_bytes(zstandard.compress(raw.getvalue()) + trailer)
    done = run([sys.executable, str(ROOT / "benchmarks/same_artifacts.py"), str(folder), str(new)], folder)
    return done.code, done.out


def test_the_same_artifacts_and_others_are_told_apart(decode: Built, tmp_path: Path) -> None:
    manifest = old_manifest(decode)
    binaries = sum(len(kernel["binaries"]) for kernel in manifest["kernels"])
    code, said = compared(manifest, decode.path.parent, tmp_path / "same")
    assert (code, f"{binaries} binaries" in said, "0 differ" in said) == (0, True, True)
    manifest["kernels"][0]["binaries"][0]["cubin"] = "0" * 64
    config = {"kwargs": {"BK": 64}, "num_warps": 4, "num_stages": 2, "num_ctas": 1, "maxnreg": None}
    manifest["kernels"][0]["choices"].append({"key": [1, None], "config": config, "provenance": "default"})
    code, said = compared(manifest, decode.path.parent, tmp_path / "other")
    assert (code, "2 differ" in said, "0" * 64 + " before" in said, "[1, null]" in said) == (1, True, True, True)
    code, said = compared({**manifest, "identifier": "x"}, decode.path.parent, tmp_path / "lacking")
    assert code == 1


def test_benchmarks_find_what_tests_share(tmp_path: Path) -> None:
    """In processes of their own, to which pytest gives no paths."""
    code = "import sys; sys.path[:0] = sys.argv[1:]; import loopback, launching, fake_cuda"
    done = subprocess.run(
        [sys.executable, "-c", code, ROOT / "tests/support"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    programs = [(ROOT / f"benchmarks/{name}.py").read_text() for name in ("fetch", "start", "stand_in")]
    assert all('ROOT / "tests/support"' in text for text in programs)

"""The parts of ``benchmarks/sglang_engine.py`` that need neither GPU nor engine."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, TIMEOUT, run

sys.path.insert(0, str(ROOT / "benchmarks"))

import packed
from builds import Built
from harness import goals_text
from sglang_engine import plan, report

NOTHING = {"compile_seconds": 0.0, "names": []}
COMPILED = {"compiled_gdn": 2, "compiled_other": 3, "benchmarked_gdn": 4, "compile_seconds": 9.0, "names": ["k"]}


def requests(**more: Any) -> list[dict[str, Any]]:
    rows = [
        {"lengths": lengths, "number": number, "new": new, "seconds": 0.02 if number else 0.03, "output": [[new]]}
        for lengths in ([50], [1000], [20, 300])
        for new in (1, 8)
        for number in range(3)
    ]
    return [{"begun": 10.0 + place, "counts": NOTHING, **row, **more} for place, row in enumerate(rows)]


def record(name: str, **more: Any) -> dict[str, Any]:
    found = {"case": name, "error": None, "started": 1.0, "ready_at": 9.5, "requests": requests(), "counts": NOTHING}
    return {**found, "pool_tokens": 100, "pool_states": 7, **more}


def good() -> dict[str, dict[str, Any]]:
    found = {name: record(name) for name in ("aot", "warm", "captured")}
    return {"plain": record("plain", counts=COMPILED), **found}


def test_goals_that_are_met() -> None:
    found = good()
    found["captured"]["requests"][-1]["output"] = [[9], [9]]  # of prompts that were sent together
    assert [goal["met"] for goal in report.goals(found)] == [True] * 6
    row = report.summarize(found)["plain"]
    assert (row["ready_seconds"], row["compiled_at_start"], row["gdn_compiled"], row["benchmarked_later"]) == (
        8.5,
        5,
        2,
        0,
    )
    assert row["first_ms"] == {50: 30.0, 1000: 30.0}
    assert row["steady_of_8_ms"] == {50: 20.0, 1000: 20.0}


@pytest.mark.parametrize(
    ("name", "change", "missed"),
    [
        ("aot", {"counts": COMPILED}, [0]),
        ("aot", {"counts": {**NOTHING, "benchmarked_gdn": 1}}, [0]),
        ("captured", {"counts": {**NOTHING, "compiled_other": 1}}, [1]),
        ("captured", {"requests": requests(counts={**NOTHING, "benchmarked_other": 1})}, [1]),
        ("captured", {"requests": [{**row, "seconds": 0.1 / (1 + row["number"]) ** 2} for row in requests()]}, [2]),
        ("captured", {"error": "ended after 9 s", "requests": []}, [1, 2, 5]),
        ("warm", {"requests": requests(output=[[9]])}, [4]),
        ("plain", {"requests": []}, [3, 4, 5]),
    ],
)
def test_goals_that_are_missed(name: str, change: dict[str, Any], missed: list[int]) -> None:
    records = good()
    records[name].update(change)
    found = report.goals(records)
    assert [place for place, goal in enumerate(found) if not goal["met"]] == missed
    assert "MISSED" in goals_text(found)
    assert f"({name}) it" in report.table(records, {name: "it"})


def test_cases_that_did_not_run_are_neither() -> None:
    assert {goal["met"] for goal in report.goals({"plain": record("plain")})} == {None}


def test_what_is_counted_belongs_to_the_start_or_to_a_request(tmp_path: Path) -> None:
    times = ((5.0, "compiled", True), (10.5, "compiled", False), (27.5, "found", True), (99.0, "modules", False))
    lines = [json.dumps({"at": at, "kind": kind, "gdn": gdn, "kernel": "k", "ms": 500.0}) for at, kind, gdn in times]
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_text("\n".join([*lines, lines[0][:20]]))
    found = record("plain", pool_states=None, pool_tokens=None)
    report.read(
        found, tmp_path, "x=1 Mamba Cache is allocated. max_mamba_cache_size: 40, y\nmax_total_num_tokens=20000, z"
    )
    assert (found["pool_states"], found["pool_tokens"], found["counting_processes"]) == (40, 20000, 2)
    assert found["counts"] == {"compiled_gdn": 2, "compile_seconds": 1.0, "names": ["k"]}
    counts = [row["counts"] for row in found["requests"]]
    assert counts[0] == {"compiled_other": 2, "compile_seconds": 1.0, "names": ["k"]}
    assert counts[-1] == {"found_gdn": 2, "modules_other": 2, "compile_seconds": 2.0, "names": []}
    assert counts[1:-1] == [{"compile_seconds": 0, "names": []}] * (len(counts) - 2)


def test_a_process_writes_what_triton_compiles(tmp_path: Path) -> None:
    """And calls who listened before."""
    places = places_in(tmp_path)
    plan.install(places)
    code = """
from importlib.metadata import entry_points
from types import SimpleNamespace
from triton import knobs
heard = []
knobs.compilation.listener = lambda **told: heard.append(told["cache_hit"])
(entry,) = [one for one in entry_points(group="sglang.srt.plugins") if one.name == "counted"]
entry.load()()
entry.load()()
times = SimpleNamespace(ir_initialization=1000, lowering_stages=[("ptx", 2000)], store_results=500)
for module, hit in (("sglang.kernels.ops.attention.fla.chunk_o", False), ("sglang.srt.layers.sampler", True)):
    source = SimpleNamespace(fn=SimpleNamespace(__module__=module))
    knobs.compilation.listener(src=source, metadata={"name": "k"}, metadata_group={}, times=times, cache_hit=hit)
assert heard == [False, True]
"""
    (tmp_path / "counts").mkdir()
    env = {"PYTHONPATH": str(places.work / "site"), "SGLANG_ENGINE_COUNTS": str(tmp_path / "counts")}
    done = run([sys.executable, "-c", code], tmp_path, env)
    assert done.code == 0, done.err
    (path,) = (tmp_path / "counts").iterdir()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["kind"], row["gdn"], row["kernel"], row["ms"]) for row in rows] == [
        ("compiled", True, "k", 3.5),
        ("found", False, "k", 0.0),
    ]


BUSY = """
import json, sys, threading, time
from pathlib import Path
import counted

def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

def main(folder):
    threading.Thread(target=counted.sample, args=(folder,), daemon=True).start()
    usual, rows = sys.getswitchinterval(), []
    for name in ("first", "answers"):
        (folder / "sample").touch()
        time.sleep(0.2)
        rows.append({"begun": time.time(), "seconds": 0.4, "sample": name})
        busy(0.4)
        (folder / "sample").unlink()
        time.sleep(1)
    assert sys.getswitchinterval() == usual
    print(json.dumps([*rows, {"begun": 0, "seconds": 1e12, "sample": ""}]))
"""


def test_a_scheduler_says_where_its_main_thread_is_while_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "sglang").mkdir()
    (tmp_path / "sglang/scheduler.py").write_text(BUSY)
    code = "import pathlib, sglang.scheduler; sglang.scheduler.main(pathlib.Path())"
    path = os.pathsep.join([str(tmp_path), str(ROOT / "benchmarks/sglang_engine")])
    done = run([sys.executable, "-c", code], tmp_path, {"PYTHONPATH": path})
    assert done.code == 0, done.err
    found = record("again", requests=json.loads(done.out))
    report.read(found, tmp_path, "")
    assert set(found["profile"]) == {"first", "answers"}
    for sample in found["profile"].values():
        assert (sample["requests"], sample["seconds"], list(sample["in"])) == (1, 0.4, ["SGLang and PyTorch"])
        assert 0.2 < sum(sample["at"].values()) < 0.5
        assert all(place.startswith("sglang.scheduler:busy:") for place in sample["at"])


@pytest.mark.parametrize(
    ("stack", "whose"),
    [
        ("sglang.a:f:1 torch._dynamo.eval_frame:g:2 sglang.b:h:3 torch.nn.functional:linear:4", "SGLang and PyTorch"),
        ("sglang.a:f:1 torch._inductor.async_compile:g:2 sympy.core:h:3", "torch.compile"),
        ("sglang.a:f:1 torch._inductor.graph:g:2 triton.compiler.compiler:compile:3", "Triton"),
        ("sglang.a:f:1 gdn_aot.serving.launch:run:2", "gdn-aot"),
        ("sglang.a:f:1 importlib:import_module:2", "imports"),
        ("tritonic:f:1", "other"),
    ],
)
def test_whose_code_a_look_is_in_says_the_innermost_frame_that_tells(stack: str, whose: str) -> None:
    looks = [{"at": at, "seconds": 0.25, "stack": stack.split()} for at in (0.4, 1.0, 1.6)]
    found = report.profile([{"begun": 0.5, "seconds": 1.0, "sample": "first"}], looks)["first"]
    assert found["in"] == {whose: 0.25}
    assert list(found["at"].values()) == [0.25]


def places_in(folder: Path, artifact: Path | None = None) -> plan.Places:
    return plan.Places(engine=folder, unpacked=folder / "sg", work=folder / "work", artifact=artifact, options={"a": 1})


def pack_engine(folder: Path, *left_out: str) -> None:
    """Pack what says that SGLang is installed."""
    info = "sglang-0.5.17.dist-info"
    texts = {"METADATA": "Metadata-Version: 2.1\nName: sglang\nVersion: 0.5.17\n", "licenses/LICENSE": "the terms"}
    texts["RECORD"] = f"{info}/licenses/LICENSE,,\n"
    with tarfile.open(folder / "parts/3-sglang.tar.xz", "w:xz") as archive:
        for name in texts.keys() - set(left_out):
            member = tarfile.TarInfo(f"./{info}/{name}")
            member.size = len(texts[name])
            archive.addfile(member, io.BytesIO(texts[name].encode()))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    pack_engine(tmp_path)
    for name in ("2-b", "1-a"):
        (tmp_path / "jit").mkdir(exist_ok=True)
        (tmp_path / "jit" / f"{name}.py").write_text("x = 1\n")
        with tarfile.open(tmp_path / "parts" / f"{name}.tar.xz", "w:xz") as archive:
            archive.add(tmp_path / "jit", "jit" if name == "1-a" else "other")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    return tmp_path


def dry(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "benchmarks/sglang_engine.py"), *map(str, arguments), "--dry"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == code, done.stderr
    return done


def test_a_dry_run_says_what_would_run(engine: Path) -> None:
    text = dry("--engine", engine, "--cases", "warm,plain,capture").stdout
    assert text.index("(plain)") < text.index("(warm)") < text.index("(capture)")
    assert "GDN_AOT=0" in text
    assert "gdn_aot build --provider sglang --capture" in text
    assert f"about {plan.seconds([plan.CASES[name] for name in ('plain', 'warm', 'capture')])} s" in text


def test_all_cases_fit_a_command_of_ten_minutes() -> None:
    assert plan.seconds(list(plan.CASES.values())) < 400


def test_wrong_and_missing_things_are_named(tmp_path: Path, engine: Path, decode: Built) -> None:
    done = dry("--engine", engine, "--cases", "aot", "--artifact", decode.path, code=1)
    assert "is of fla-core 0.6.0 and Triton 3.6.0, not of sglang 0.5.17" in done.stderr
    bare = tmp_path / "bare"
    found = dry("--engine", bare, "--cases", "plain", code=1).stderr
    assert "parts has no .tar.xz" in found
    assert "model/config.json is missing" in found
    assert "case aot needs --artifact" in dry("--engine", engine, "--cases", "aot", code=2).stderr
    words = ("--engine", engine, "--work", bare, "--artifact", decode.path, "--cases")
    assert "case warm starts with the caches that plain leaves: run plain" in dry(*words, "warm", code=2).stderr
    assert "needs what is built of capture: run capture before it" in dry(*words, "captured", code=2).stderr
    assert "unknown cases: x" in dry("--engine", engine, "--cases", "plain,x", code=2).stderr


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("licenses/LICENSE", "pack its RECORD and its licence too"),
        ("RECORD", "carries no licence text"),
        ("METADATA", "no part of the engine has sglang-0.5.17.dist-info/METADATA"),
    ],
)
def test_an_engine_of_which_nothing_can_be_built_is_named_before_it_runs(
    engine: Path, left_out: str, said: str
) -> None:
    pack_engine(engine, left_out)
    assert said in dry("--engine", engine, "--cases", "plain,capture", code=1).stderr
    dry("--engine", engine, "--cases", "plain")
    (engine / "parts/3-sglang.tar.xz").write_bytes(b"x")
    assert "3-sglang.tar.xz cannot be read" in dry("--engine", engine, "--cases", "capture", code=1).stderr


def test_parts_are_unpacked_once_and_found_in_their_order(engine: Path) -> None:
    places = places_in(engine)
    for _ in range(2):
        for path, folder in places.parts.items():
            packed.unpack([path], folder)
            path.write_bytes(b"read no more")
    assert [folder.name for folder in places.parts.values()] == ["1-a", "2-b", "3-sglang"]
    assert (engine / "sg/1-a/jit/1-a.py").read_text() == "x = 1\n"
    variables = plan.environment(plan.CASES["plain"], places)
    assert variables["PYTHONPATH"].split(":")[1:3] == [str(engine / "sg/1-a"), str(engine / "sg/2-b")]
    assert variables["TVM_FFI_CACHE_DIR"] == str(engine / "sg/1-a/jit")


def test_caches_are_emptied_but_for_those_of_the_case_before(tmp_path: Path) -> None:
    artifact = tmp_path / "of-models.tar.zst"
    artifact.write_text("x")
    places = places_in(tmp_path, artifact)
    (tmp_path / "work/built").mkdir(parents=True)
    assert places.served("captured") is None
    (tmp_path / "work/built/of-capture.tar.zst").write_text("y")
    for name in ("plain", "warm", "captured", "plain"):
        plan.fill(plan.CASES[name], places)
        variables = plan.environment(plan.CASES[name], places)
        place = Path(variables["TRITON_CACHE_DIR"], "entry")
        assert place.exists() == (name == "warm")
        place.touch()
        assert list(Path(variables["SGLANG_ENGINE_COUNTS"]).iterdir()) == []
        served = variables.get("GDN_AOT_ARTIFACT")
        assert bool(served) == ("gdn_aot" in variables["SGLANG_PLUGINS"]) == (name == "captured")
        names = {path.name for path in Path(served).iterdir()} if served else set()
        assert names == ({"of-models.tar.zst", "of-capture.tar.zst"} if served else set())


def test_the_process_of_a_case_is_told_all_that_it_reads(engine: Path) -> None:
    text = (ROOT / "benchmarks/sglang_engine/engine.py").read_text()
    read = {part.partition('"')[0] for part in text.split('spec["')[1:]}
    for case in plan.CASES.values():
        assert plan.specification(case, places_in(engine))["out"] not in plan.command(case, places_in(engine))
        assert read <= set(json.loads(json.dumps(plan.specification(case, places_in(engine)))))


ENGINE = """
import os
__version__ = "0.5.17"
class Engine:
    def __init__(self, **options):
        assert options["a"] == 1 and options["load_format"] == "dummy", options
        print("max_mamba_cache_size: 12", flush=True)
        print("[time] gdn-aot: loaded 2 modules of 1 kernel from it, 0.1 MiB, before", flush=True)
        from importlib.metadata import entry_points
        wanted = os.environ["SGLANG_PLUGINS"].split(",")
        self._loaded = [one.name for one in entry_points(group="sglang.srt.plugins") if one.name in wanted]
        if "BROKEN" in os.environ:
            raise RuntimeError("no card")
    def get_server_info(self):
        return {"max_total_num_tokens": 1000, "startup_time": {}}
    def generate(self, input_ids, sampling_params):
        if sampling_params["temperature"]:
            assert sampling_params["sampling_seed"]
            return [{"output_ids": [os.getpid()]} for prompt in input_ids]
        return [{"output_ids": [sum(prompt) % 7] * sampling_params["max_new_tokens"]} for prompt in input_ids]
    def shutdown(self):
        assert self._loaded == ["counted"], self._loaded
"""


@pytest.mark.parametrize("broken", [False, True])
def test_cases_run_to_their_records(tmp_path: Path, engine: Path, broken: bool) -> None:
    """With something in the engine's place that answers at once."""
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in/sglang.py").write_text(ENGINE)
    for name in ("torch", "triton"):
        (tmp_path / f"stand_in/{name}.py").write_text('__version__ = "1"\n')
    with tarfile.open(engine / "parts/0-engine.tar.xz", "w:xz") as archive:
        for path in (tmp_path / "stand_in").iterdir():
            archive.add(path, path.name)
    words = ["--engine", engine, "--work", tmp_path / "w", "--unpacked", tmp_path / "u", "--out", tmp_path / "out.json"]
    words += ["--answers", "3", "--cases", "prime,plain,warm", "--options", '{"a": 1}', "--commit", "c0ffee"]
    env = {"BROKEN": "1"} if broken else {}
    script = [sys.executable, ROOT / "benchmarks/sglang_engine.py"]
    done = run([*script, *words], tmp_path, env)
    assert done.code == int(broken), done.err
    if broken:
        assert "(prime)" in done.out
        assert "RuntimeError: no card" in done.out
        assert not (tmp_path / "w/plain.log").exists()
        return
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["commit"], list(document["records"])) == ("c0ffee", ["plain", "warm"])
    row = document["summary"]["warm"]
    assert (row["error"], row["pool_tokens"], row["pool_states"], row["answers_alike"]) == (None, 1000, 12, True)
    assert document["machine"]["sglang"] == "0.5.17"
    assert document["records"]["warm"]["loaded"] == ["loaded 2 modules of 1 kernel from it, 0.1 MiB, before"]
    assert list(document["parts"]) == ["0-engine.tar.xz", "1-a.tar.xz", "2-b.tar.xz", "3-sglang.tar.xz"]
    assert document["parts"]["1-a.tar.xz"]["unpacked_bytes"] == 2 * len("x = 1\n")
    assert document["parts"]["1-a.tar.xz"]["bytes"] == (engine / "parts/1-a.tar.xz").stat().st_size
    (*greedy, drawn) = document["records"]["warm"]["requests"]
    assert [one["temperature"] for one in greedy] == [0.0] * len(greedy)
    assert drawn["temperature"] > 0
    done = run([*script, *words, "--again"], tmp_path, env)
    assert done.code == 0, done.err
    document = json.loads((tmp_path / "out.json").read_text())
    assert list(document["records"]) == ["plain", "warm", "plain-again", "warm-again"]
    samples = Counter(row["sample"] for row in document["records"]["warm-again"]["requests"])
    assert samples == {"first": 1, "": len(document["records"]["warm"]["requests"]) - 1, "answers": 3}
    assert document["summary"]["warm-again"]["answers_alike"]
    assert str(tmp_path) not in json.dumps(document)

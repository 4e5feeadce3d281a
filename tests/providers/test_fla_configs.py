"""``gdn-aot export --format fla``: that FLA itself takes the exported configurations, and what is refused."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factory
import pytest
import tuning_records as records
from helpers import ROOT, expect_error, gdn_aot, python
from msgspec import structs

from gdn_aot._files import write_whole
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.errors import NotWritableError, UsageError
from gdn_aot.machine import installed
from gdn_aot.providers.fla import configs as fla_configs
from gdn_aot.records import tuning as r

WORKLOADS = ("transformers-prefill", "small-chunks", "gated-norm")
KKT = "fla.ops.gated_delta_rule.chunk_fwd:chunk_gated_delta_rule_fwd_kkt_solve_kernel"
CHUNK_O = "fla.ops.common.chunk_o:chunk_fwd_kernel_o"
SOLVE = "fla.ops.utils.solve_tril:merge_16x16_to_32x32_inverse_kernel"
"""Has Triton's own autotune."""

_COMMON = """
import json, sys
from gdn_aot.compiling import worker
from gdn_aot.catalogue.models import ModelShape
request = json.loads(sys.argv[1])
module = worker.start(request)
"""

_TRACE = """
trace = worker.trace(module, request)
print(json.dumps({
    "refused": trace.refused,
    "triton": trace.triton_version,
    "tunings": [
        [trace.kernels[tuning.kernel].name, tuning.key, [
            [dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg]
            for config in tuning.candidates
        ]]
        for tuning in trace.tunings
    ],
}))
"""

_USE = """
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction
from gdn_aot import triton_internals
from gdn_aot.catalogue.providers import Limits

benchmarked, used, launched = [], {}, []

def bench(tuner, *args, config, **kwargs):
    benchmarked.append(triton_internals.kernel_name(triton_internals.layers(tuner)[0]))
    return [1.0, 1.0, 1.0]

def launch(jit, *args, grid, warmup, **kwargs):
    launched.append((kwargs.get("num_warps"), kwargs.get("num_stages")))

own_run = Autotuner.run

def run(tuner, *args, **kwargs):
    own_run(tuner, *args, **kwargs)
    name = triton_internals.kernel_name(triton_internals.layers(tuner)[0])
    plain = {key: value for key, value in kwargs.items() if key not in ("grid", "warmup")}
    if len(tuner.configs) > 1:
        key = triton_internals.autotune_key(tuner, args, plain)
        best = tuner.cache[key]
        assert launched[-1] == (best.num_warps, best.num_stages), "what is in the cache is what is launched"
        used[name, json.dumps(key)] = [dict(best.kwargs), best.num_warps, best.num_stages, best.num_ctas, best.maxnreg]

Autotuner._bench, Autotuner.run, JITFunction.run = bench, run, launch
limits = Limits(**request["limits"])
for name in request["workloads"]:
    workload = module.WORKLOADS[name]()
    for shape in request["shapes"]:
        for call in workload.cases(ModelShape(**shape), limits):
            workload.run(ModelShape(**shape), call)
print(json.dumps({"benchmarked": sorted(set(benchmarked)), "used": [[*key, config] for key, config in used.items()]}))
"""

Used = dict[tuple[str, str], list[Any]]
"""(kernel, autotune key as JSON) -> configuration."""


def _request() -> str:
    from dataclasses import asdict

    from gdn_aot.catalogue.models import find_model

    return json.dumps(
        {
            "provider": "fla",
            "target": "sm_90",
            "ptxas": "unknown",
            "shapes": [asdict(find_model("qwen3.5-9b").shape(8))],
            "workloads": WORKLOADS,
            "limits": {"max_tokens": 128, "max_batch": 1, "mode": "inference"},
        }
    )


@dataclass(frozen=True)
class Traced:
    """A record in which every key has the last of its candidates."""

    record: r.TuningRecord
    wanted: Used


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    found = python(_COMMON + _TRACE, _request(), home=tmp_path_factory.mktemp("home"))
    assert found["refused"] == []
    kernels: dict[str, tuple[list[r.Config], list[r.MeasuredChoice]]] = {}
    wanted: Used = {}
    for name, key, candidates in found["tunings"]:
        configs = [r.Config(tuple(config[0].items()), *config[1:]) for config in candidates]
        assert configs[0] != configs[-1]
        row = records.times(64, *[2.0] * (len(configs) - 1), 1.0)
        choice = records.choice(row, key=tuple(key), chosen=len(configs) - 1)
        known, choices = kernels.setdefault(name, (configs, []))
        assert known == configs
        choices.append(choice)
        wanted[name, json.dumps(key)] = candidates[-1]
    made = records.record(
        *(records.kernel(configs, *choices, name=name) for name, (configs, choices) in kernels.items()),
        provider=structs.replace(records.FLA, version=installed.require("fla")),
        triton=found["triton"],
    )
    assert {KKT, CHUNK_O, SOLVE} <= set(kernels)
    return Traced(made, wanted)


def _export(record: r.TuningRecord, place: Path) -> tuple[Path, Any]:
    r.save(record, place / "record.json")
    done = gdn_aot(
        "export", "--format", "fla", "--record", place / "record.json", "-o", place / "configs", "--json",
        home=place / "home",
    )  # fmt: skip
    return place / "configs", done.json


def _use(directory: Path, home: Path) -> tuple[set[str], Used]:
    """Return which kernels FLA benchmarked in a process that has the files, and the configurations that it used."""
    extra = {**fla_configs.environment(directory), "TRITON_CACHE_DIR": str(home / "triton")}
    found = python(_COMMON + _USE, _request(), home=home, extra=extra)
    return set(found["benchmarked"]), {(name, key): config for name, key, config in found["used"]}


def test_fla_uses_what_was_exported_and_benchmarks_nothing(traced: Traced, tmp_path: Path) -> None:
    directory, document = _export(traced.record, tmp_path)
    not_served = {item["kernel"] for item in document["not_served"]}
    assert SOLVE in not_served
    served = {name for name, _ in traced.wanted} - not_served
    assert {KKT, CHUNK_O} <= served
    benchmarked, used = _use(directory, tmp_path / "use")
    assert set(used) == set(traced.wanted)
    assert benchmarked == not_served
    for (name, key), config in used.items():
        assert (config == traced.wanted[name, key]) is (name in served), (name, key)


def test_without_the_files_fla_benchmarks_and_takes_the_first(traced: Traced, tmp_path: Path) -> None:
    """The same process with an empty directory: the test above could fail."""
    benchmarked, used = _use(tmp_path, tmp_path / "use")
    assert benchmarked == {name for name, _ in traced.wanted}
    assert all(config != traced.wanted[pair] for pair, config in used.items())


def test_a_key_that_is_missing_is_benchmarked(traced: Traced, tmp_path: Path) -> None:
    (kernel,) = (kernel for kernel in traced.record.kernels if kernel.kernel == CHUNK_O)
    dropped, *rest = kernel.choices
    assert rest, "another key of the kernel is still there"
    kernels = [item for item in traced.record.kernels if item is not kernel]
    changed = structs.replace(traced.record, kernels=(*kernels, structs.replace(kernel, choices=tuple(rest))))
    directory, document = _export(changed, tmp_path)
    not_served = {item["kernel"] for item in document["not_served"]}
    benchmarked, used = _use(directory, tmp_path / "use")
    assert benchmarked == not_served | {CHUNK_O}
    for (name, key), config in used.items():
        missing = name in not_served or (name, key) == (CHUNK_O, json.dumps(dropped.key))
        assert (config != traced.wanted[name, key]) is missing


def test_the_document_names_files_kernels_and_variables(traced: Traced, tmp_path: Path) -> None:
    directory, document = _export(traced.record, tmp_path)
    assert document["directory"] == str(directory)
    assert {item["path"] for item in document["files"]} == {str(path) for path in directory.iterdir()}
    (row,) = (item for item in document["files"] if item["kernel"] == "chunk_fwd_kernel_o")
    assert row["choices"] == sum(name == CHUNK_O for name, _ in traced.wanted)
    assert document["environment"] == {"FLA_CACHE_MODE": "strict", "FLA_CONFIG_DIR": str(directory)}
    (gap,) = (item for item in document["not_served"] if item["kernel"] == SOLVE)
    assert gap["reason"] == "it is not decorated with fla_cache_autotune"
    assert gap["choices"] == sum(name == SOLVE for name, _ in traced.wanted)
    file = json.loads((directory / "chunk_fwd_kernel_o.json").read_text())
    assert file["triton_version"] == traced.record.triton
    assert file["default_config"] is None


def test_exporting_again_changes_nothing_and_removes_what_is_no_longer_chosen(traced: Traced, tmp_path: Path) -> None:
    directory, _ = _export(traced.record, tmp_path)
    (directory / "notes.json").write_text("{}")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}
    _export(traced.record, tmp_path)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()} == before
    _export(
        structs.replace(traced.record, kernels=tuple(item for item in traced.record.kernels if item.kernel == KKT)),
        tmp_path,
    )
    assert {path.stem for path in directory.iterdir()} == {KKT.partition(":")[2], "notes"}


def test_text_output(traced: Traced, tmp_path: Path) -> None:
    version = traced.record.provider.version
    r.save(traced.record, r.record_path(tmp_path / "records", "sm_90", "fla-core", version))
    done = gdn_aot(
        "export", "--format", "fla", "--arch", "sm_90", "--tuning", tmp_path / "records", "-o", tmp_path / "configs",
        home=tmp_path,
    )  # fmt: skip
    assert done.out.splitlines() == sorted(str(path) for path in (tmp_path / "configs").iterdir())
    assert f"not served by these files: {SOLVE}: " in done.err
    assert f"FLA_CACHE_MODE=strict FLA_CONFIG_DIR={tmp_path / 'configs'}" in done.err


def test_an_artifact_is_exported(tmp_path: Path) -> None:
    manifest, version = factory.make_manifest(), installed.require("fla")
    kernel = manifest.kernels[0]
    assert f"{kernel.module}:{kernel.qualname}" == CHUNK_O
    manifest = structs.replace(
        manifest,
        identifier=names.make_identifier("fla", version, manifest.triton.version, manifest.target.name),
        provider=structs.replace(manifest.provider, version=version),
        kernels=(kernel,),
    )
    path = write_artifact(manifest, factory.make_blobs(), tmp_path / "artifact.tar.zst").path
    arguments = ("export", "--format", "fla", "--artifact", path, "-o", tmp_path / "configs", "--json")
    found = gdn_aot(*arguments, home=tmp_path).json
    assert [(row["kernel"], row["choices"]) for row in found["files"]] == [(kernel.qualname, len(kernel.choices))]
    entries = json.loads((tmp_path / "configs" / f"{kernel.qualname}.json").read_text())["autotune_entries"]
    entry = entries[fla_configs.key_digest(kernel.choices[0].key)]
    assert entry["autotune_key"] == list(kernel.choices[0].key)
    assert entry["config"] == {
        "kwargs": {"BK": 64, "BV": 128}, "num_warps": 4, "num_stages": 3, "num_ctas": 1, "maxnreg": None,
        "ir_override": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    [
        ((), 2, "usage", "exactly one source of choices"),
        (("--arch", "sm_90", "--record", "x.json"), 2, "usage", "exactly one source of choices"),
        (("--arch", "sm_99"), 2, "usage", "unknown target"),
        (("--arch", "sm_80", "--tuning", "."), 2, "usage", "there is no tuning record sm_80/fla-core-"),
        (("--record", "none.json"), 2, "usage", "there is no tuning record none.json"),
        (("--record", "old.json"), 2, "usage", "these choices are for fla-core 0.1.0, but "),
        (("--record", "vllm.json"), 2, "usage", "provider.distribution: 'vllm' is not 'fla-core'"),
        (("--record", "broken.json"), 2, "usage", "broken.json is refused: is not JSON"),
        (("--record", "unknown.json"), 2, "usage", "has no kernel fla.ops.common.chunk_o:other"),
        (("--record", "plain.json"), 3, "nothing-selected", "no kernel with a choice reads such files"),
        (("--record", "empty.json"), 3, "nothing-selected", "no kernel with a choice reads such files"),
        (("--artifact", "broken.json"), 5, "verification", ""),
    ],
)
def test_bad_input(tmp_path: Path, arguments: tuple[str, ...], code: int, kind: str, message: str) -> None:
    version = installed.require("fla")
    fla = structs.replace(records.FLA, version=version)
    row = records.choice(records.times(64, 1.0))
    configs = [records.config()]
    files = {
        "old": records.record(provider=structs.replace(fla, version="0.1.0")),
        "vllm": records.record(provider=structs.replace(fla, distribution="vllm")),
        "unknown": records.record(records.kernel(configs, row, name="fla.ops.common.chunk_o:other"), provider=fla),
        "plain": records.record(records.kernel(configs, row, name=SOLVE), provider=fla),
        "empty": records.record(provider=fla),
    }
    home = tmp_path / "home"
    home.mkdir()
    for name, record in files.items():
        r.save(record, home / f"{name}.json")
    (home / "broken.json").write_text("{")
    done = gdn_aot("export", "--format", "fla", *arguments, "-o", "configs", "--json", home=home, code=code)
    error = expect_error(done, code, kind)
    assert message in error["message"]
    assert not (home / "configs").exists()


_CLASSES = """
import json
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
import fla.modules, fla.ops.gated_delta_rule
from gpu.programs.exported import autotuners
print(json.dumps({name: type(tuner).__name__ for name, tuner in autotuners().items()}))
"""


def test_the_source_says_what_the_autotuners_are(tmp_path: Path) -> None:
    found = python(_CLASSES, home=tmp_path, extra={"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])})
    assert {"CachedAutotuner", "Autotuner"} == set(found.values())
    for kernel, name in found.items():
        assert fla_configs.is_served(kernel) is (name == "CachedAutotuner"), kernel


def _choice(kernel: str, block: int) -> fla_configs.ExportedChoice:
    return fla_configs.ExportedChoice(kernel=kernel, key=(1, "torch.bfloat16"), config=records.config(block))


def test_two_kernels_of_one_name_that_disagree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fla_configs, "is_served", lambda kernel: "plain" not in kernel)
    agreeing = fla_configs.prepare([_choice("fla.a:k", 32), _choice("fla.b:k", 32)], "3.6.0")
    assert agreeing.entries == {"k.json": 1}
    assert fla_configs.prepare([_choice("fla.a:k", 32), _choice("fla.plain:k", 64)], "3.6.0").entries == {"k.json": 1}
    with pytest.raises(UsageError, match=r"fla\.a:k and fla\.b:k both read k\.json") as caught:
        fla_configs.prepare([_choice("fla.a:k", 32), _choice("fla.b:k", 64)], "3.6.0")
    assert "BK=32" in caught.value.message
    assert "BK=64" in caught.value.message


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    export = fla_configs.prepare([_choice(KKT, 32), _choice(CHUNK_O, 32)], "3.6.0")
    foreign = tmp_path / f"{KKT.partition(':')[2]}.json"
    foreign.write_text('{"kernel_name": "x"}')
    with pytest.raises(UsageError, match="was not written by gdn-aot"):
        fla_configs.write(export, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"kernel_name": "x"}']


def test_a_full_disk_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fla_configs.write(fla_configs.prepare([_choice(KKT, 32), _choice(CHUNK_O, 32)], "3.6.0"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    written: list[Path] = []

    def full(path: Path, content: bytes, *, sync: bool) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write_whole(path, content, sync=sync)

    monkeypatch.setattr(fla_configs, "write_whole", full)
    with pytest.raises(NotWritableError, match="No space left"):
        fla_configs.write(fla_configs.prepare([_choice(KKT, 64), _choice(CHUNK_O, 64)], "3.6.0"), tmp_path)
    assert set(tmp_path.iterdir()) == set(before)
    assert [path for path in before if path.read_bytes() != before[path]] == written
    for path in before:
        json.loads(path.read_bytes())

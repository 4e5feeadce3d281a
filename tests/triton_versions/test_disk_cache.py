"""`gdn_aot.triton_internals.disk_cache` against the cache that Triton itself writes. Runs with every supported version.

The truth comes from processes in which Triton compiles, measures and caches by itself. Only the card is a stand-in: the
stub driver, with binaries that load and launch to nothing and a benchmark that returns made-up times.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import triton
from helpers import gdn_aot, python
from launching import STUBBED
from triton.compiler import compiler
from triton.runtime import cache
from triton.runtime.autotuner import Autotuner

from gdn_aot.building.seed import _Writer
from gdn_aot.errors import UnsupportedTritonError
from gdn_aot.triton_internals import disk_cache
from gdn_aot.triton_internals.disk_cache import Place

_PREPARE = f"""{STUBBED}
from triton.runtime.autotuner import Autotuner
from triton.runtime.driver import driver

launched, lookups, measured = [], [], []
driver.active.launcher_cls = lambda src, metadata: lambda *_: launched.append(metadata.name)
driver.active.utils.load_binary = lambda *_: (object(), object(), 32, 0, 1024)
driver.active.utils.unload_module = lambda *_: None
knobs.compilation.listener = lambda *, src, cache_hit, **_: lookups.append([src.name, cache_hit])
"""

_CALLS = """
kernels.tuned.cache_results = True
tuned = [
    dict(x=storage, bias=storage, y=storage, n=64, WIDE=True),
    dict(x=storage.bfloat16(), bias=None, y=storage, n=7, WIDE=False),
]
def call():
    kernels.every[(1,)](*kernels.arguments().values(), num_warps=2)
    for arguments in tuned:
        kernels.tuned[(1,)](**arguments)
    kernels.staged[(1,)](storage, storage, num_stages=4, launch_pdl=True, num_warps=2)
"""

_WRITTEN_BY_TRITON = """
def bench(self, *args, config, **kwargs):
    measured.append(str(config))
    current = {**kwargs, **config.all_kwargs()}
    self.fn.run(*args, **current)
    return [1.0, 1.0, 1.0] if config.num_warps == 4 else [2.0, 2.0, 2.0]
Autotuner._bench = bench
call()
print(json.dumps({"lookups": lookups, "measured": len(measured)}))
"""

_OUR_ENTRIES = """
from dataclasses import asdict
from gdn_aot.triton_internals import disk_cache
disk_cache.check_disk_cache()
launches, choices = [], []
def on_launch(jit, args, kwargs):
    launches.append((jit, triton_internals.Launch(jit, args, kwargs).specialization()))
winner = dict(kwargs={"BLOCK": 128}, num_warps=4, num_stages=3, num_ctas=1, maxnreg=None)
def on_autotune(tuner, args, kwargs):
    plain = {name: value for name, value in kwargs.items() if name not in ("grid", "warmup")}
    key = json.loads(json.dumps(triton_internals.autotune_key(tuner, args, plain)))
    found = triton_internals.find_kernel("kernels", "tuned")[1]
    assert found is tuner and disk_cache.choice_refusal(found) is None
    place, text = disk_cache.choice_file(found, key, winner)
    choices.append({"place": asdict(place), "text": text})
    return triton_internals.run_config(tuner, args, kwargs, triton_internals.make_config(**winner))
with interception.intercept(on_autotune, on_launch):
    call()
import os, tempfile
binaries = []
for jit, specialization in launches:
    specialization = json.loads(json.dumps(specialization))
    with tempfile.TemporaryDirectory() as scratch, knobs.cache.scope():
        knobs.cache.dir = scratch
        source = triton_internals.make_source(jit, specialization)
        cubin, metadata, _ptx = triton_internals.compile_source(source, specialization["options"], 90)
    place, text = disk_cache.binary_entry(jit, specialization, json.loads(json.dumps(metadata)), 90)
    binaries.append({"place": asdict(place), "metadata": text, "cubin": cubin.hex()})
print(json.dumps({"binaries": binaries, "choices": choices, "cache": os.listdir(os.environ["TRITON_CACHE_DIR"])}))
"""

_SERVED = """
def bench(self, *args, config, **kwargs):
    raise RuntimeError("there is nothing to measure with")
Autotuner._bench = bench
call()
print(json.dumps({
    "lookups": lookups, "launched": launched, "configs": [str(config) for config in kernels.tuned.cache.values()],
}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk-cache")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Path:
    """A cache that Triton wrote."""
    root = folder / "theirs"
    made = python(_PREPARE + _CALLS + _WRITTEN_BY_TRITON, home=folder, extra={"TRITON_CACHE_DIR": str(root)})
    assert [hit for _, hit in made["lookups"]] == [False] * 6, "two kernels, and two configurations for two keys"
    assert made["measured"] == 4
    return root


@pytest.fixture(scope="module")
def ours(folder: Path) -> dict[str, Any]:
    """What this module says about the same calls, made where there is no cache to look into."""
    root = folder / "empty"
    root.mkdir()
    made: dict[str, Any] = python(_PREPARE + _CALLS + _OUR_ENTRIES, home=folder, extra={"TRITON_CACHE_DIR": str(root)})
    assert made["cache"] == [], "asking leaves nothing behind"
    assert len(made["binaries"]) == 4
    assert len(made["choices"]) == 2
    return made


def test_binaries_lie_where_triton_puts_them(theirs: Path, ours: dict[str, Any]) -> None:
    """Those of a kernel that has options as parameters are compiled with them, as Triton does."""
    for row in ours["binaries"]:
        place = Place(**row["place"])
        directory = theirs / place.directory
        assert json.loads((directory / place.name).read_bytes()) == json.loads(row["metadata"])
        group = json.loads((directory / disk_cache.group_name(place)).read_bytes())["child_paths"]
        expected = json.loads(disk_cache.group_text(str(theirs), place))["child_paths"]
        assert expected.items() <= group.items()
        assert json.loads(row["metadata"])["hash"] == disk_cache.kernel_hash(place)
        assert disk_cache.read_entry(theirs, place) == (directory / disk_cache.cubin_name(place)).read_bytes()
    staged = json.loads(ours["binaries"][-1]["metadata"])
    assert (staged["name"], staged["num_stages"], staged["launch_pdl"]) == ("staged", 4, True)


def test_choices_lie_where_triton_puts_them(theirs: Path, ours: dict[str, Any]) -> None:
    for row in ours["choices"]:
        stored = (theirs / row["place"]["directory"] / row["place"]["name"]).read_bytes()
        measured, seeded = json.loads(stored), json.loads(row["text"])
        assert seeded["key"] == measured["key"]
        ((config, times),) = seeded["configs_timings"]
        assert times == [0.0, 0.0, 0.0]
        winner = min(measured["configs_timings"], key=lambda pair: pair[1])
        assert config == winner[0]
        assert disk_cache.keeps_choice(stored, row["text"])


def test_triton_finds_what_is_written(ours: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "cache"
    writer = _Writer(root)
    for row in ours["binaries"]:
        writer.binary(Place(**row["place"]), row["metadata"], bytes.fromhex(row["cubin"]))
    for row in ours["choices"]:
        writer.choice(Place(**row["place"]), row["text"])
    assert (writer.written, writer.kept) == (6, 0)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    served = python(_PREPARE + _CALLS + _SERVED, home=tmp_path, extra={"TRITON_CACHE_DIR": str(root)})
    assert served["lookups"] == [["every", True], ["tuned", True], ["tuned", True], ["staged", True]]
    assert served["launched"] == ["every", "tuned", "tuned", "staged"]
    assert served["configs"] == ["BLOCK: 128, num_warps: 4, num_ctas: 1, num_stages: 3, maxnreg: None"] * 2
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_what_cannot_be_found_is_refused(tmp_path: Path) -> None:
    code = """
from gdn_aot.triton_internals import disk_cache
jit = triton_internals.layers(kernels.tuned)[0]
prune = {"early_config_prune": lambda configs, *_, **__: configs}
def tuner(*configs, **more):
    return triton.autotune(configs=list(configs), key=["n"], cache_results=True, **more)(jit)
one, two = triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 128})
winner = dict(kwargs={"BLOCK": 128}, num_warps=4, num_stages=3, num_ctas=1, maxnreg=None)
uncached = tuner(one, two)
uncached.cache_results = False
hook = triton.Config({"BLOCK": 32}, pre_hook=print)
specialization = {"signature": {}, "constants": [], "attributes": [], "options": {"num_warps": 2}}
def differing():
    launch = []
    with interception.intercept(lambda *_: None, lambda *a: launch.append(triton_internals.Launch(*a))):
        kernels.every[(1,)](*kernels.arguments().values(), num_warps=2)
    try:
        disk_cache.binary_entry(kernels.every, launch[0].specialization(), {"enable_fp_fusion": False}, 90)
    except ValueError as error:
        return str(error)
print(json.dumps({
    "good": disk_cache.choice_refusal(tuner(one, two)),
    "none": disk_cache.choice_refusal(triton_internals.find_kernel("kernels", "every")[1]),
    "one": disk_cache.choice_refusal(tuner(one)),
    "hook": disk_cache.choice_refusal(tuner(one, hook)),
    "pruned": disk_cache.choice_refusal(tuner(one, two, prune_configs_by=prune)),
    "uncached": disk_cache.choice_refusal(uncached),
    "no key": disk_cache.choice_file(tuner(one, two), [], winner),
    "differing": differing(),
}))
"""
    made = python(_PREPARE + _CALLS + code, home=tmp_path)
    assert made.pop("good") is None
    assert made.pop("no key") is None
    parts = {
        "none": "not found", "one": "one configuration", "hook": "has a hook", "pruned": "arguments of a call",
        "uncached": "does not read", "differing": "enable_fp_fusion=True here, False in the artifact",
    }  # fmt: skip
    assert set(made) == set(parts)
    for name, part in parts.items():
        assert part in made[name]


def _other(source: Any, target: Any = None) -> None: ...


def _other_name(manager: Any, name: str, group: dict[str, str]) -> None:
    manager.put(json.dumps({"child_paths": group}), f"group-{name}")


def _other_text(manager: Any, name: str, group: dict[str, str]) -> None:
    manager.put(json.dumps(list(group)), f"__grp__{name}")


_CHANGES: list[tuple[Any, str, Any, str]] = [
    (compiler, "compile", _other, "compile"),
    (compiler, "get_cache_invalidating_env_vars", None, "get_cache_invalidating_env_vars"),
    (compiler.CompiledKernel, "__init__", _other, "CompiledKernel"),
    (Autotuner, "check_disk_cache", None, r"Autotuner\.check_disk_cache"),
    (Autotuner, "check_disk_cache", _other, r"Autotuner\.check_disk_cache"),
    (cache, "CacheManager", None, "CacheManager"),
    (cache.FileCacheManager, "put_group", _other_name, "the layout"),
    (cache.FileCacheManager, "put_group", _other_text, "the layout"),
]


@pytest.mark.parametrize(("owner", "name", "new", "what"), _CHANGES)
def test_what_has_changed_is_named(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, new: Any, what: str) -> None:
    if new is None:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, new)
    with pytest.raises(UnsupportedTritonError, match=f"Triton {triton.__version__} has changed {what}"):
        disk_cache.check_disk_cache()


def _never_asks(*_: object, **__: object) -> None: ...


def _writes_first(*_: object, **__: object) -> None:
    cache.get_cache_manager("00" * 32).put(b"", "kernel.cubin")


@pytest.mark.parametrize("changed", [_never_asks, _writes_first])
def test_a_compiler_that_does_not_ask_is_named(monkeypatch: pytest.MonkeyPatch, changed: Callable[..., None]) -> None:
    monkeypatch.setattr(triton, "compile", changed)
    with pytest.raises(UnsupportedTritonError, match="has changed compile"):
        disk_cache._asked_place(object(), None, {})
    assert triton.knobs.cache.manager_class is None


_FLA = """
def bench(self, *args, config, **kwargs):
    raise RuntimeError("there is nothing to measure with")
Autotuner._bench = bench
from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule
from fla.modules import FusedRMSNormGated
make = lambda *size: torch.zeros(*size, dtype=torch.bfloat16)
with torch.no_grad():
    for batch in (1, 3):
        fused_recurrent_gated_delta_rule(
            q=make(batch, 1, 16, 128), k=make(batch, 1, 16, 128), v=make(batch, 1, 32, 128), beta=make(batch, 1, 32),
            g=torch.zeros(batch, 1, 32), initial_state=torch.zeros(batch, 32, 128, 128), output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        norm = FusedRMSNormGated(128, eps=1e-6, activation="silu", dtype=torch.bfloat16)
        norm(make(batch * 32, 128), make(batch * 32, 128))
print(json.dumps({"lookups": lookups, "launches": len(launched)}))
"""


def test_seed(tmp_path: Path) -> None:
    built = gdn_aot(
        "build", "--arch", "sm_90", "--model", "qwen3.5-9b", "--workload", "transformers-decode",
        "--workload", "gated-norm", "--max-tokens", "2048", "-o", tmp_path / "out", "--json", home=tmp_path,
    ).json  # fmt: skip
    (artifact,) = built["artifacts"]
    root = tmp_path / "cache"
    done = gdn_aot("seed", artifact["path"], "--into", root, "--json", home=tmp_path).json
    assert done["skipped"] == []
    assert done["written"] == done["binaries"] + done["choices"]
    assert done["choices"] > 0
    served = python(_PREPARE + _FLA, home=tmp_path, extra={"TRITON_CACHE_DIR": str(root)})
    assert served["lookups"]
    assert all(hit for _, hit in served["lookups"])
    assert served["launches"] >= 4

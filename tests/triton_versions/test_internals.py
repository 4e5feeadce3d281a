"""What `gdn_aot.triton_internals` relies on, checked against Triton itself. Runs with every supported version.

Needs only pytest, torch, triton and fla-core. Whatever needs the stub driver runs in a process of its own, and asks
Triton for the truth through ``knobs.runtime.jit_cache_hook``, which sees each launch key before anything compiles.
"""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import triton
from helpers import gdn_aot, python
from launching import STUBBED
from triton.compiler import ASTSource
from triton.runtime import jit
from triton.runtime.autotuner import Autotuner

from gdn_aot import triton_internals
from gdn_aot.errors import UnsupportedTritonError
from gdn_aot.triton_internals import interception
from gdn_aot.triton_internals.relaxing import relaxed_key

_HERE = Path(__file__).parent

_PREPARE = f"""{STUBBED}
seen = []
def hook(*, key, **_):
    seen.append(key)
    return True  # as if it were cached: nothing compiles
knobs.runtime.jit_cache_hook = hook
"""

_VARIANTS = """
variants = {
    "base": {},
    "aligned output": {"unaligned": storage},
    "unaligned input": {"aligned": storage[1:]},
    "bf16": {"aligned": storage.bfloat16()},
    "one is 2": {"one": 2},
    "multiple is 1": {"multiple": 1},
    "odd is 16": {"odd": 16},
    "large is small": {"large": 3},
    "zero": {"odd": 0},
    "negative": {"odd": -16},
    "bool": {"odd": True},
    "int for a float": {"number": 3},
    "float is 1": {"number": 1.0},
    "something": {"nothing": storage},
    "free is 1": {"free": 1},
    "free is 64 bits": {"free": 1 << 40},
    "annotated is 1": {"annotated": 1},
    "annotated is 16": {"annotated": 16},
    "block": {"BLOCK": 128},
    "name": {"NAME": "gelu"},
    "flag": {"FLAG": False},
    "kind": {"KIND": tl.float16},
    "present": {"ABSENT": 1},
    "ratio": {"RATIO": 0.25},
    "less than all": {"RATIO": float("-inf")},
    "more than all": {"RATIO": (1, float("inf")), "ABSENT": 1},
    "warps": {"num_warps": 8},
    "stages": {"num_stages": 1},
    "registers": {"maxnreg": 96},
    "debug": {"debug": True},
}
"""


def test_this_triton_is_supported_and_that_of_child_processes(tmp_path: Path) -> None:
    assert python("import json, triton; print(json.dumps(triton.__version__))", home=tmp_path) == triton.__version__
    assert triton_internals.check_supported() == triton.__version__ == importlib.metadata.version("triton")


_INTERNALS: list[tuple[Any, str, str]] = [
    (jit.JITFunction, "_pack_args", "JITFunction._pack_args"),
    (jit.JITFunction, "create_binder", "JITFunction.create_binder"),
    (jit, "compute_cache_key", "jit.compute_cache_key"),
    (Autotuner, "prune_configs", "Autotuner.prune_configs"),
    (ASTSource, "make_ir", "ASTSource.make_ir"),
]


@pytest.mark.parametrize(("owner", "name", "what"), _INTERNALS, ids=[what for _, _, what in _INTERNALS])
def test_an_internal_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: str) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(UnsupportedTritonError, match=what) as caught:
        triton_internals.check_supported()
    assert triton.__version__ in caught.value.message
    assert caught.value.exit_code == 2


def _more(self: Any, *args: Any, grid: Any, warmup: Any, stream: Any, **kwargs: Any) -> None: ...


def _other_order(self: Any, *args: Any, warmup: Any, grid: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize("changed", [_more, _other_order])
def test_a_changed_run_is_named(monkeypatch: pytest.MonkeyPatch, changed: Callable[..., None]) -> None:
    monkeypatch.setattr(jit.JITFunction, "run", changed)
    with pytest.raises(UnsupportedTritonError, match=r"JITFunction\.run"):
        triton_internals.check_supported()


def test_every_change_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(jit.JITFunction, "_pack_args")
    monkeypatch.delattr(Autotuner, "prune_configs")
    with pytest.raises(UnsupportedTritonError, match=r"JITFunction\._pack_args, Autotuner\.prune_configs"):
        triton_internals.check_supported()


@pytest.mark.parametrize("version", ["3.5.0", "3.10.0", "2.9.1", "4.0.0", "3.5.1+git1234"])
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(triton, "__version__", version)
    with pytest.raises(UnsupportedTritonError, match=f"Triton {version.replace('+', '.')} is installed.*3.6 to 3.9"):
        triton_internals.check_supported()


@pytest.mark.parametrize("version", ["3.6.0+git1234", "3.9.1"])
def test_another_build_of_a_supported_version_is_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(triton, "__version__", version)
    assert triton_internals.check_supported() == version


@pytest.fixture(scope="module")
def launch_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Per variant of the arguments: Triton's launch key, ours, and ours with keyword arguments."""
    code = """
made = {}
for name, changes in variants.items():
    options = {k: v for k, v in changes.items() if k in ("num_warps", "num_stages", "maxnreg", "debug")}
    given = kernels.arguments(**{k: v for k, v in changes.items() if k not in options})
    seen.clear()
    kernels.every[(1,)](*given.values(), **options)
    ours = triton_internals.Launch(kernels.every, tuple(given.values()), options)
    by_name = triton_internals.Launch(kernels.every, (), {**given, **options})
    text = json.dumps(ours.specialization(), allow_nan=False)
    again = triton_internals.make_source(kernels.every, json.loads(text))
    first = triton_internals.make_source(kernels.every, ours.specialization())
    made[name] = {
        "triton": list(seen), "ours": ours.key, "by_name": by_name.key,
        "same_source": again.hash() == first.hash() and again.constants == first.constants,
        "constants": str(list(again.constants.values())),
    }
print(json.dumps(made))
"""
    found: dict[str, dict[str, Any]] = python(_PREPARE + _VARIANTS + code, home=tmp_path_factory.mktemp("keys"))
    return found


def test_launch_keys_are_those_of_triton(launch_keys: dict[str, dict[str, Any]]) -> None:
    wrong = {name: made for name, made in launch_keys.items() if made["triton"] != [made["ours"]]}
    assert not wrong
    assert [name for name, made in launch_keys.items() if made["by_name"] != made["ours"]] == []


def test_a_specialization_survives_json(launch_keys: dict[str, dict[str, Any]]) -> None:
    assert all(made["same_source"] for made in launch_keys.values())
    assert "-inf" in launch_keys["less than all"]["constants"]
    assert "(1, inf)" in launch_keys["more than all"]["constants"]


def test_what_is_no_number_survives_json() -> None:
    again = triton_internals.decode(json.loads(json.dumps(triton_internals.encode(math.nan), allow_nan=False)))
    assert math.isnan(again)


def test_autotune_keys_are_those_of_triton(tmp_path: Path) -> None:
    code = """
class Recording(dict):
    def __contains__(self, key):
        looked_up.append(key)
        return True
    def __getitem__(self, key):
        return kernels.tuned.configs[0]

looked_up = []
kernels.tuned.cache = Recording()
x, y, bias = storage, torch.zeros(64, dtype=torch.bfloat16), torch.zeros(64, dtype=torch.float16)
calls = [
    ((x, bias, y, 64, True), {}),
    ((x, None, y, 64, True), {}),
    ((x, bias, y), {"n": 64, "WIDE": False}),
    ((), {"x": x, "bias": bias, "y": y, "n": 7, "WIDE": True}),
    ((), {"WIDE": True, "y": y, "n": 7, "x": x, "bias": bias}),
    ((x,), {"y": y, "bias": bias, "WIDE": True, "n": 16}),
]
made = []
for args, kwargs in calls:
    looked_up.clear()
    seen.clear()
    kernels.tuned[(1,)](*args, **kwargs)
    ours = triton_internals.autotune_key(kernels.tuned, args, kwargs)
    launched = []
    with interception.intercept(lambda *_: None, lambda jit, a, k: launched.append((jit, a, k))):
        triton_internals.run_config(
            kernels.tuned, args, {**kwargs, "grid": (1,), "warmup": False}, kernels.tuned.configs[0]
        )
    (launch,) = launched
    made.append({
        "triton": [list(key) for key in dict.fromkeys(looked_up)],
        "ours": list(ours),
        "triton_launches": list(seen),
        "our_launch": triton_internals.Launch(*launch).key,
        "same_jit": triton_internals.layers(kernels.tuned)[0] is launch[0],
        "candidates": [str(c) for c in triton_internals.candidates(kernels.tuned, args, kwargs)],
        "configs": [str(c) for c in kernels.tuned.configs],
        "nargs": kernels.tuned.nargs is None,
    })
print(json.dumps(made))
"""
    made = python(_PREPARE + code, home=tmp_path)
    assert [call["triton"] for call in made] == [[call["ours"]] for call in made]
    assert [call["triton_launches"] for call in made] == [[call["our_launch"]] for call in made]
    assert made[0]["ours"] == [64, True, "torch.float32", "torch.float16", "torch.bfloat16"]
    assert made[4]["ours"] != made[3]["ours"], "keyword order is part of the key"
    for call in made:
        assert call["candidates"] == call["configs"]
        assert call["same_jit"]
        assert call["nargs"]


_COMPILE = """
knobs.runtime.jit_cache_hook = None
import hashlib
from triton.backends.compiler import GPUTarget
given, options = kernels.arguments(), {"num_warps": 2}
launch = triton_internals.Launch(kernels.every, tuple(given.values()), options)
specialization = json.loads(json.dumps(launch.specialization()))
source = triton_internals.make_source(kernels.every, specialization)
cubin, metadata, _ptx = triton_internals.compile_source(source, specialization["options"], 90)

# Triton's own: stop its run just before it would compile, and compile what it was about to.
stopped = []
original = kernels.every._do_compile
def stop(key, signature, device, constexprs, options, attrs, warmup):
    from triton.compiler import ASTSource
    src = ASTSource(kernels.every, signature, constexprs, attrs)
    stopped.append(triton.compile(src, target=GPUTarget("cuda", 90, 32), options=options.__dict__))
    return None
kernels.every._do_compile = stop
try:
    kernels.every[(1,)](*given.values(), **options)
except (AttributeError, TypeError):
    pass  # what stop returned cannot be launched
(theirs,) = stopped
print(json.dumps({
    "ours": hashlib.sha256(cubin).hexdigest(),
    "theirs": hashlib.sha256(theirs.asm["cubin"]).hexdigest(),
    "metadata": metadata,
    "their_metadata": {k: getattr(theirs.metadata, k) for k in ("name", "shared", "num_warps", "num_stages")},
    "elf": cubin[:4] == b"\\x7fELF",
    "ir": triton_internals.source_ir(source, specialization["options"], 90),
}))
"""


def test_what_is_compiled_is_what_triton_compiles(tmp_path: Path) -> None:
    extra = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "TRITON_DISABLE_LINE_INFO": "1"}
    made = python(_PREPARE + _COMPILE, home=tmp_path, extra=extra)
    assert made["elf"]
    assert made["ours"] == made["theirs"]
    metadata = made["metadata"]
    assert {name: metadata[name] for name in made["their_metadata"]} == made["their_metadata"]
    assert metadata["name"] == "every"
    assert metadata["target"] == {"backend": "cuda", "arch": 90, "warp_size": 32}
    assert not {"hash", "extern_libs", "triton_version"} & set(metadata)
    assert not [name for name in metadata if name.isupper()]
    assert str(tmp_path) not in json.dumps(metadata)
    assert "tt.func public @every" in made["ir"]
    assert str(_HERE) not in made["ir"]


def test_cache_key_and_globals(tmp_path: Path) -> None:
    code = """
jit = triton_internals.find_kernel("kernels", "tuned")[0]
key = triton_internals.cache_key(kernels.every)
print(json.dumps({
    "key": key, "again": triton_internals.cache_key(kernels.every), "triton": kernels.every.cache_key,
    "globals": triton_internals.used_globals([kernels.every]),
    "name": triton_internals.kernel_name(jit), "jit": type(jit).__name__,
}))
"""
    made = python(_PREPARE + code, home=tmp_path)
    assert made["key"] == made["again"] == made["triton"]
    assert len(made["key"]) == len(hashlib.sha256().hexdigest())
    assert dict(made["globals"])["SCALE"] == "constexpr[3]"
    assert (made["name"], made["jit"]) == ("kernels:tuned", "JITFunction")


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(TypeError, match="not a Triton kernel"):
        triton_internals.find_kernel("json", "dumps")[0]
    with pytest.raises(AttributeError):
        triton_internals.find_kernel("json", "nothing")[0]


def test_intercept_restores_triton() -> None:
    before = Autotuner.run, jit.JITFunction.run

    def fail() -> None:
        with interception.intercept(lambda *_: None, lambda *_: None):
            assert Autotuner.run is not before[0]
            assert jit.JITFunction.run is not before[1]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (Autotuner.run, jit.JITFunction.run) == before


def test_build_and_coverage(tmp_path: Path) -> None:
    built = gdn_aot(
        "build", "--arch", "sm_90", "--model", "qwen3.5-9b", "--workload", "transformers-decode",
        "-o", tmp_path / "out", "--json", home=tmp_path,
    ).json  # fmt: skip
    (artifact,) = built["artifacts"]
    assert artifact["identifier"] == (f"fla{importlib.metadata.version('fla-core')}-triton{triton.__version__}-sm_90")
    assert artifact["not_covered"] == []
    assert artifact["binaries"] > 0
    covered = gdn_aot(
        "coverage", artifact["path"], "--workload", "transformers-decode", "--calls", "100", "--json", home=tmp_path
    ).json
    assert covered["misses"] == []
    assert covered["hits"] == covered["launches"] >= 100


# Launch keys with another value for a constexpr


_KEYS = f"""{STUBBED}
from gdn_aot.triton_internals.relaxing import constant_position, relaxed_key

def launch(constants=None, **changes):
    arguments = kernels.arguments(**{{"NAME": "it's [a], ('b'", **changes}})
    return triton_internals.Launch(kernels.every, (), {{**arguments, "num_warps": 8}}, constants)

got = {{}}
for name in ("BLOCK", "NAME", "FLAG", "KIND", "ABSENT", "RATIO"):
    position = constant_position(kernels.every, name)
    wanted = launch(**{{name: 2147483647}})
    given = launch({{name: 2147483647}})
    got[name] = {{
        "key": relaxed_key(launch().key, position, 2147483647) == wanted.key,
        "launch": given.key == wanted.key,
        "compiled": given.specialization() == wanted.specialization(),
        "argument": given.arguments[name],
    }}
refused = []
for name in ("odd", "aligned", "nowhere"):
    try:
        constant_position(kernels.every, name)
    except ValueError as error:
        refused.append(str(error))
not_constant = kernels.every.arg_names.index("odd")
block = constant_position(kernels.every, "BLOCK")
taken = launch({{"BLOCK": None}})
print(json.dumps({{"got": got, "refused": refused, "odd": relaxed_key(launch().key, not_constant, 1),
    "beyond": relaxed_key(launch().key, 99, 1),
    "taken": [taken.key == relaxed_key(launch().key, block, None), taken.specialization()["signature"]["BLOCK"],
        taken.arguments["BLOCK"] == launch().arguments["BLOCK"]],
    "folded": launch({{"BLOCK": None}}, BLOCK=1).key == relaxed_key(launch(BLOCK=1).key, block, None)
        == launch(BLOCK=1).key,
    "no number": relaxed_key(launch().key, constant_position(kernels.every, "NAME"), None)}}))
"""


def test_a_relaxed_key_is_the_key_of_a_launch_with_that_value(tmp_path: Path) -> None:
    found: Any = python(_KEYS, home=tmp_path)
    for name, row in found["got"].items():
        assert row == {"key": True, "launch": True, "compiled": True, "argument": 2147483647}, name
    assert [text.rpartition(" ")[2] for text in found["refused"]] == ["odd", "aligned", "nowhere"]
    assert (found["odd"], found["beyond"]) == (None, None)
    assert found["taken"] == [True, "i32", True], "in place of a constant it is an argument"
    assert found["folded"], "but not the value 1"
    assert found["no number"] is None


@pytest.mark.parametrize("key", ["", "[]", "[('i32', '')", "nothing like a key", "[('constexpr', 'open"])
def test_what_is_no_key_is_left_alone(key: str) -> None:
    assert relaxed_key(key, 0, 7) is None

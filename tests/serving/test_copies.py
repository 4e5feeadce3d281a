"""Kernels of the provider in packages of another name: served if they mean the same, and never silently left out."""

from pathlib import Path
from typing import Any

import pytest
from copying import CALL, CHANGED_H, FWD_H, HUB, KERNEL_H, copy_fla
from helpers import python

from gdn_aot._hooks import ImportHook


@pytest.fixture(scope="module")
def absolute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy that imports itself by its own name."""
    return copy_fla(tmp_path_factory.mktemp("absolute") / HUB).parent


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_fla(tmp_path_factory.mktemp("relative") / "vendored" / "fla_x", relative=True).parent.parent


@pytest.mark.parametrize(("kind", "root"), [("absolute", HUB), ("relative", "vendored.fla_x")])
def test_a_copy_is_served(serve: Any, request: pytest.FixtureRequest, kind: str, root: str) -> None:
    got = serve(f"{CALL}install(strict=True); become(); chunk({root!r}); step({root!r}); done()", _site(request, kind))
    _all_served(got, root)
    assert got["report"]["loaded"][f"{root}.ops.common.chunk_delta_h:{KERNEL_H}"] == 1


def _site(request: pytest.FixtureRequest, kind: str) -> Path:
    site: Path = request.getfixturevalue(kind)
    return site


def _all_served(got: Any, *roots: str) -> None:
    report = got["report"]
    assert (got["compiled"], got["benchmarked"], report["misses"], report["refused"]) == ([], 0, [], {})
    assert {name.partition(".ops.")[0].partition(".modules.")[0] for name in report["loaded"]} == set(roots)
    assert len(got["launched"]) >= 8


def test_two_copies_and_the_provider_itself(serve: Any, absolute: Path, relative: Path) -> None:
    """Each is served on its own."""
    got = serve(
        f"{CALL}sys.path.insert(0, {str(relative)!r}); install(strict=True); become()\n"
        f"for root in {HUB!r}, 'fla', 'vendored.fla_x': chunk(root); step(root)\n"
        "done()",
        absolute,
    )
    _all_served(got, HUB, "fla", "vendored.fla_x")
    assert len(got["launched"]) == 3 * 8


def test_imported_before_it_is_installed(serve: Any, absolute: Path) -> None:
    got = serve(
        f"{CALL}become(); importlib.import_module({HUB!r} + '.ops.gated_delta_rule'); install(strict=True);"
        f"chunk({HUB!r}); step({HUB!r}); done()",
        absolute,
    )
    _all_served(got, HUB)


EDITS: dict[str, tuple[dict[str, tuple[str, str]], str, str]] = {
    "body": (CHANGED_H, KERNEL_H, f"the body of {KERNEL_H} is not the one"),
    "callee": (
        {"ops/utils/op.py": ("return tl.math.exp2(x.to(tl.float32))", "return tl.math.exp2((x).to(tl.float32))")},
        KERNEL_H,
        f"exp2 in {KERNEL_H} is not the function",
    ),
    "global": (
        {
            "ops/gated_delta_rule/chunk_fwd.py": (
                "    SOLVE_TRIL_DOT_PRECISION = tl.constexpr('tf32')",
                "    SOLVE_TRIL_DOT_PRECISION = tl.constexpr('tf32x3')",
            )
        },
        "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
        "the global SOLVE_TRIL_DOT_PRECISION is constexpr[tf32x3]",
    ),
    "shadowed name": (
        {FWD_H: ("\nNUM_WARPS = ", "\nfrom triton.language import maximum as min\n\nNUM_WARPS = ")},
        KERNEL_H,
        f"{KERNEL_H} reads min, which the artifact does not have",
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_what_differs_is_said_and_the_rest_served(serve: Any, tmp_path: Path, edit: str) -> None:
    edits, kernel, reason = EDITS[edit]
    copy = copy_fla(tmp_path / HUB, edits=edits)
    code = f"{CALL}install(); said = listen(); become(); first = tried(chunk, {HUB!r});"
    got = serve(f"{code} tried(chunk, {HUB!r}, 200); tried(step, {HUB!r}); done(said=said, first=first)", tmp_path)
    refused = {name.partition(":")[2]: why for name, why in got["report"]["refused"].items()}
    assert reason in refused[kernel]
    assert {"exp2", "callee"} & {edit} or set(refused) == {kernel}
    (told,) = [text for text in got["said"] if "is not served" in text]
    assert f"{HUB} is {copy}/__init__.py" in told
    assert f"gdn-aot build --arch sm_90 --provider fla --package {copy} --model NAME" in told
    if edit == "body":
        assert got["first"] == ""
        assert set(got["compiled"]) == {KERNEL_H}
        assert "fused_recurrent_gated_delta_rule_fwd_kernel" in {
            name.partition(":")[2] for name in got["report"]["loaded"]
        }


def test_what_differs_is_an_error_in_strict_mode(serve: Any, tmp_path: Path) -> None:
    """Of the kernel that differs alone, and not before it is launched."""
    copy = copy_fla(tmp_path / HUB, edits=CHANGED_H)
    got = serve(
        f"{CALL}install(strict=True); become(); importlib.import_module({HUB!r} + '.ops.gated_delta_rule');"
        f"errors = [tried(step, {HUB!r}), tried(chunk, {HUB!r}), tried(chunk, {HUB!r}), tried(chunk, 'fla')];"
        "done(errors=errors)",
        tmp_path,
    )
    step, first, again, own = got["errors"]
    assert step == own == ""
    assert first.startswith(f"MissError: {HUB}.ops.common.chunk_delta_h:{KERNEL_H} is not served: the body of")
    assert f"--package {copy}" in first
    assert again == first
    assert got["compiled"] == []


def test_a_kernel_of_an_unknown_package(serve: Any, tmp_path: Path) -> None:
    """Another layout than the provider's: its place in the package says nothing, its name does."""
    package = copy_fla(tmp_path / "engine", name="engine")
    (package / "ops").rename(package / "operators")
    for file in package.rglob("*.py"):
        file.write_text(file.read_text().replace("engine.ops", "engine.operators"))
    code = f"{CALL}install(strict=STRICT); said = listen(); become(); "
    code += "error = tried(chunk, 'engine', 128, '.operators.gated_delta_rule');"
    code += "done(said=said, error=error)"
    got = serve(code.replace("STRICT", "True"), tmp_path)
    assert got["error"].startswith("MissError: engine.operators.")
    assert "it is at no place of a known provider, and gdn-aot serves kernels by place and source" in got["error"]
    assert "No artifact can cover it" in got["error"]
    assert got["compiled"] == []
    got = serve(code.replace("STRICT", "False"), tmp_path)
    assert got["error"] == ""
    (told,) = [text for text in got["said"] if "is not served" in text]
    assert "package engine" in told or "engine is " in told
    assert got["compiled"]
    assert set(got["report"]["refused"].values()) == {
        "it is at no place of a known provider, and gdn-aot serves kernels by place and source"
    }


MADE_AGAIN = """
import copy, triton
become()
module = importlib.import_module(HUB + ".ops.gated_delta_rule.fused_recurrent")
kernel = inner = module.fused_recurrent_gated_delta_rule_fwd_kernel
while not isinstance(inner, triton.runtime.JITFunction):
    inner = inner.fn
again = copy.copy(kernel)
again.fn = triton.jit(inner.fn)
class Wrapper:
    kept = again
    def __getitem__(self, grid):
        return self.kept[grid]
module.fused_recurrent_gated_delta_rule_fwd_kernel = Wrapper()
"""


@pytest.mark.parametrize("launched", [False, True])
def test_a_kernel_in_a_wrapper_made_before_it_is_installed(serve: Any, absolute: Path, launched: bool) -> None:
    """No module has it by its name: it is an error when it is compiled, if it was not before."""
    got = serve(
        f"{CALL}HUB = {HUB!r}\n{MADE_AGAIN}"
        f"before = tried(step, HUB) if {launched} else ''; count = len(counter.compiled); install(strict=True)\n"
        "errors = [tried(step, HUB), tried(step, HUB), tried(step, HUB, 1)]; chunk(HUB)\n"
        "done(before=before, count=count, errors=errors)",
        absolute,
    )
    assert (got["before"], got["count"], len(got["compiled"])) == ("", launched, launched)
    place = f"{HUB}.ops.gated_delta_rule.fused_recurrent:fused_recurrent_gated_delta_rule_fwd_kernel"
    said = f"MissError: {place} is not served: it is not the function that its module had"
    assert [error.startswith(said) for error in got["errors"][:2]] == [not launched] * 2


def test_kernels_of_other_names_are_none_of_our_business(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text(
        "import triton\nimport triton.language as tl\n@triton.jit\ndef copy_kernel(x, N: tl.constexpr):\n"
        "    tl.store(x + tl.arange(0, N), 1)\n"
    )
    got = serve(
        "install(strict=True); become(); import others, torch; others.copy_kernel[(1,)](torch.zeros(16), 16);done()",
        tmp_path,
    )
    assert got["compiled"] == ["copy_kernel"]
    assert got["report"]["refused"] == {}


def test_hooks_that_others_set_stay(serve: Any, tmp_path: Path) -> None:
    """A monitor that takes Triton's hooks, or wraps the binder itself, neither loses them nor switches ours off."""
    copy_fla(tmp_path / HUB, edits=CHANGED_H)
    got = serve(
        f"""{CALL}
install(strict=True); become()
importlib.import_module({HUB!r} + ".ops.gated_delta_rule")
from triton import knobs
from triton.runtime.jit import JITFunction
seen, bound = [], []
knobs.runtime.jit_post_compile_hook = lambda **given: seen.append(given["fn"].name)
within = JITFunction.create_binder
def create_binder(function):
    bound.append(function.fn.__name__)
    return within(function)
JITFunction.create_binder = create_binder
errors = [tried(chunk, {HUB!r}), tried(step, {HUB!r})]
done(errors=errors, bound=bound, kept=JITFunction.create_binder is create_binder)
""",
        tmp_path,
    )
    assert got["errors"][0].startswith("MissError")
    assert got["errors"][1] == ""
    assert "l2norm_fwd_kernel" in got["bound"]
    assert got["kept"]


DEVICE = """
import importlib, json, sys
sys.path.insert(0, {site!r})
from gdn_aot.launches import Kernel
from gdn_aot.serving.matching import MismatchError, match, match_copy
from gdn_aot.store.index_records import KernelRecord
from gdn_aot.tracing.recorder import describe_kernel
from gdn_aot.triton_internals import find_kernel

def found(root):
    return find_kernel(root + ".ops.common.chunk_delta_h", {kernel!r})[0]

kernel = describe_kernel(found("fla"))
rows = [(one.name, one.module, one.qualname, one.source_sha256) for one in kernel.dependencies]
values = [(one.name, one.value) for one in kernel.globals]
files = [(one.path, one.sha256) for one in kernel.sources]
told = {{}}
for root in "fla", "same", "other":
    for kind, kept in ("new", rows), ("old", [row for row in rows if "." not in row[0]]):
        record = KernelRecord(kernel.module, kernel.qualname, kernel.source_sha256, files, kept, values, [])
        try:
            match(record, found("fla")) if root == "fla" else match_copy(record, found(root), "fla", root)
            told[root + " " + kind] = ""
        except MismatchError as error:
            told[root + " " + kind] = str(error)
print(json.dumps({{"rows": [row[:3] for row in rows], **told}}))
"""


def test_modules_of_triton_are_compared_by_what_is_called_in_them(tmp_path: Path) -> None:
    """With FLA's fast operators, which call functions of ``libdevice``; and by records that do not list those."""
    copy_fla(tmp_path / "same")
    library = ("import triton.language.extra.libdevice as", "import triton.language.extra.hip.libdevice as")
    copy_fla(tmp_path / "other", edits={"ops/utils/op.py": library})
    got = python(
        DEVICE.format(site=str(tmp_path), kernel=KERNEL_H), home=tmp_path / "home", extra={"FLA_USE_FAST_OPS": "1"}
    )
    assert ["tldevice.exp2", "triton.language.extra.libdevice", "exp2"] in got["rows"]
    assert (got["fla new"], got["fla old"], got["same new"]) == ("", "", "")
    assert got["other new"] == f"tldevice.exp2 in {KERNEL_H} is not the function that the artifact was built with"
    assert (
        got["same old"]
        == got["other old"]
        == f"{KERNEL_H} reads tldevice, which the artifact does not have as it is here"
    )


def test_ends_of_names() -> None:
    """Of packages, not of words; and of what was imported before."""
    hook, seen = ImportHook(), []
    hook.after_imports_ending([".util", ".nothing.here"], seen.append)
    assert "importlib.util" in seen
    assert all(name.endswith(".util") for name in seen)
    hook.remove()

"""Autotune keys as the page shows them, against the provider's source, the models of real artifacts, and real notes."""

import ast
import importlib.util
from pathlib import Path

import pytest
from builds import Built

from gdn_aot.launches import Key
from gdn_aot.providers.autotune_keys import key_names
from gdn_aot.reporting.keys import Users, key_text, why

KERNEL = "fla.ops.common.chunk_o:chunk_fwd_kernel_o"
KEY: Key = (12, 12, 128, 128, 64, False, *["torch.bfloat16"] * 4, "torch.float32", "torch.bfloat16")


def named_in_source(module: str, function: str) -> list[str]:
    """The names in `key=` above a kernel, as its source has them."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    (found,) = (
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    keys = [word.value for call in found.decorator_list if isinstance(call, ast.Call)
            for word in call.keywords if word.arg == "key"]  # fmt: skip
    names: list[str] = ast.literal_eval(keys[0])
    return names


def test_the_names_are_those_of_the_providers_source(sm_90: Built) -> None:
    tuned = [kernel for kernel in sm_90.manifest.kernels if kernel.choices]
    assert tuned
    for kernel in tuned:
        names = named_in_source(kernel.module, kernel.qualname)
        assert key_names(kernel.name, len(names)) == tuple(names)
        assert set(names) <= kernel.binaries[0].specialization.signature.keys()
        for choice in kernel.choices:
            assert key_text(kernel.name, choice.key).startswith(f"{names[0]}={choice.key[0]}")


def test_a_package_may_have_names_of_its_own_for_keys_of_one_length() -> None:
    kernel = "chunk_intra:chunk_kda_fwd_kernel_inter_solve_fused"
    assert key_names(f"fla.ops.kda.{kernel}", 6) == ("H", "HV", "K", "BT", "BC", "NC")
    named = ("H", "K", "BC", "V", "FUSE_RECOMPUTE", "FUSE_DIAGONAL")
    assert key_names(f"sglang.kernels.ops.attention.fla.{kernel}", 6) == named


def test_every_key_has_its_models(sm_90: Built) -> None:
    for kernel in sm_90.manifest.kernels:
        users = Users(kernel, sm_90.manifest)
        assert all(users.of(choice.key) == "qwen3.5-9b TP 1" for choice in kernel.choices)


def test_keys_are_readable() -> None:
    text = "H=12, HV=12, K=128, V=128, BT=64, STATE_V_FIRST=False; bfloat16 x 4, float32, bfloat16"
    assert key_text(KERNEL, KEY) == text
    assert key_text("other:kernel", (16, True)) == "#1=16, #2=True"
    assert key_text("other:kernel", ("torch.float16",)) == "float16"


RATED = "on card: 1.046 of the best time on weighted average, 1.077 at 2048 tokens, of 16 eligible"
SAID = (
    "on card: 4.6 % slower than the best candidates on weighted average, 7.7 % at 2048 tokens; eligible candidates: "
    "16; 2 candidates are within noise, and this is the smallest; the fastest of them is 0.6 % slower"
)


@pytest.mark.parametrize(
    ("source", "note", "said"),
    [
        ((4, *KEY[1:]), "rank 1, for 4 instead of 12", "rank 1, measured with H 4 instead of 12"),
        (
            (4, 4, *KEY[2:]),
            "rank 2, for 4/4 instead of 12/12",
            "rank 2, measured with H 4 instead of 12, HV 4 instead of 12",
        ),
        (None, "rank 1, for 32 instead of 64", "rank 1, measured with BT 32 instead of 64"),
        (None, "rank 1, for 4 instead of 12", "rank 1, for 4 instead of 12"),  # H or HV
        (None, "rank 1, for float32 instead of bfloat16", "rank 1, for float32 instead of bfloat16"),
        (
            None,
            f"{RATED}; smallest of 2 that noise does not tell apart, the fastest of which has 1.006",
            SAID,
        ),
        (None, "the only one", "the only one"),
    ],
)
def test_reasons_name_what_differs(source: Key | None, note: str, said: str) -> None:
    assert why(KERNEL, KEY, source, note) == said

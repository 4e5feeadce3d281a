"""What the table of targets says of ``tl.dot``, against the PTX that Triton makes."""

import re
from pathlib import Path

import pytest
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gdn_aot.catalogue.targets import Target, all_targets

_MATRIX = {"mma": r"mma\.sync\.aligned\.m16n8k16\.", "wgmma": r"wgmma\.mma_async\.", "tcgen05": r"tcgen05\.mma\."}


@triton.jit
def _product(a, b, c):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows, columns, depth = tl.arange(0, 128), tl.arange(0, 64), tl.arange(0, 64)
    left = tl.load(a + rows[:, None] * 64 + depth[None, :])
    right = tl.load(b + depth[:, None] * 64 + columns[None, :])
    tl.store(c + rows[:, None] * 64 + columns[None, :], tl.dot(left, right))


@pytest.mark.parametrize("target", all_targets(), ids=str)
def test_what_a_product_becomes(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    source = ASTSource(_product, {"a": "*fp16", "b": "*fp16", "c": "*fp32"}, {})
    ptx = triton.compile(source, target=GPUTarget("cuda", target.arch_number, 32), options={"num_warps": 4}).asm["ptx"]
    found = {name for name, pattern in _MATRIX.items() if re.search(pattern, ptx)}
    assert found == (set() if target.dot == "fma" else {target.dot})
    assert ("fma.rn.f32" in ptx) == (target.dot == "fma")

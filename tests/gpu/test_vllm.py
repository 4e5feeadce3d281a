"""What is declared of vLLM's kernels holds on the device."""

import importlib.metadata
import importlib.util
from pathlib import Path

import cache_lines
import pytest
from gpu.conftest import Record

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed here")
def test_convolutions_are_the_same_with_the_number_that_stands_for_all(tmp_path: Path, record: Record) -> None:
    """Bit for bit, with the least and the greatest number of pages."""
    rows = cache_lines.rows_of(tmp_path, "cuda", extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")})
    record(vllm=importlib.metadata.version("vllm"), rows=rows)
    cache_lines.check(rows)

"""What is declared of vLLM's kernels holds on the device; its layers, served by an artifact, give what float64 does."""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

import cache_lines
import pytest
from gpu.conftest import Record, provenance, run_program, sizes_of

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.catalogue.models import KDA

pytestmark = pytest.mark.gpu

STEPS = 200
COMMAND = "gdn-aot build --provider vllm --arch ARCH --model kimi-linear-48b-a3b --tp 1,2,4,8 -o DIR"


@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed here")
def test_convolutions_are_the_same_with_the_number_that_stands_for_all(tmp_path: Path, record: Record) -> None:
    """Bit for bit, with the least and the greatest number of pages."""
    rows = cache_lines.rows_of(tmp_path, "cuda", extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")})
    record(vllm=importlib.metadata.version("vllm"), rows=rows)
    cache_lines.check(rows)


@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed here")
def test_200_random_steps_of_each_model_with_kda(tmp_path: Path, record: Record) -> None:
    """Strict: with an empty Triton cache, nothing is compiled and nothing benchmarked."""
    artifact = os.environ.get("GDN_AOT_TEST_ARTIFACT_VLLM")
    if not artifact:
        pytest.skip(f"GDN_AOT_TEST_ARTIFACT_VLLM is not set; make the file with: {COMMAND}")
    manifest = open_artifact(artifact).manifest
    sizes = sizes_of(manifest, KDA)
    assert sizes, f"{artifact} has no model with KDA; make it with: {COMMAND}"
    for model, tps in sizes.items():
        asked = {"artifact": str(Path(artifact).resolve()), "model": model, "tp": tps, "count": STEPS, "seed": 20261201}
        asked |= {"workloads": manifest.workloads, "max_tokens": min(16384, manifest.max_tokens)}
        answer = run_program("vllm_traffic", asked, tmp_path / "home", tmp_path, timeout=550)
        record(vllm=importlib.metadata.version("vllm"), **provenance(artifact), **{model: answer})
        assert answer["wrong"] == []
        assert answer["checked"] == STEPS
        assert answer["watch"]["compiled"] == []
        assert answer["watch"]["benchmarked"] == 0
        assert answer["watch"]["warnings"] == []
        assert answer["report"]["misses"] == []

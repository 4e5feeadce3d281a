"""An artifact for training serves Kimi Delta Attention: random calls, forwards and backwards."""

import os
from pathlib import Path

import pytest
from gpu import served
from gpu.conftest import TRAINING, Record, provenance, run_program, sizes_of

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.catalogue.models import KDA

pytestmark = pytest.mark.gpu

CALLS = 200


def test_200_random_calls_of_training_of_each_model_with_kda(tmp_path: Path, record: Record) -> None:
    """Strict: with an empty Triton cache, nothing is compiled and nothing benchmarked; gradients are as in float64."""
    artifact = os.environ.get("GDN_AOT_TEST_ARTIFACT_TRAIN")
    if not artifact:
        pytest.skip(f"GDN_AOT_TEST_ARTIFACT_TRAIN is not set; make the file with: {TRAINING}")
    manifest = open_artifact(artifact).manifest
    workloads = [name for name in manifest.workloads if "kda" in name and name.endswith("-train")]
    sizes = sizes_of(manifest, KDA)
    assert workloads, f"{artifact} has no training of KDA; make it with: {TRAINING}"
    assert sizes, f"{artifact} has no model with KDA; make it with: {TRAINING}"
    answers = {}
    for model, tps in sizes.items():
        asked = {"artifact": str(Path(artifact).resolve()), "model": model, "tp": tps, "count": CALLS, "seed": 20261202}
        asked |= {"workloads": workloads, "max_tokens": min(16384, manifest.max_tokens)}
        asked |= {"max_batch": min(64, manifest.max_batch)}
        answers[model] = run_program("traffic", asked, tmp_path / "home", tmp_path, timeout=500)
    names = ("calls", "checked", "wrong", "worst", "seconds", "watch")
    measured = {model: {name: answer[name] for name in names} for model, answer in answers.items()}
    record(**provenance(artifact), workloads=workloads, **measured)
    for model, answer in answers.items():
        assert answer["wrong"] == [], model
        assert answer["checked"] == CALLS
        assert {f"chunk.d.{name} of a chunk" for name in ("q", "k", "v", "g", "beta")} <= set(answer["worst"])
        served.check_all(answer)

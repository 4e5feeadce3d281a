"""Random traffic from the artifact: nothing is compiled or benchmarked, and every result is right."""

import pytest
from gpu import served
from gpu.conftest import Loaded, Program, Record

from gdn_aot.catalogue.providers import get_provider

pytestmark = pytest.mark.gpu

CALLS = 500


def test_500_random_calls(program: Program, artifact: Loaded, record: Record) -> None:
    inference = {name for name, mode in get_provider("fla").workloads if mode == "inference"}
    workloads = sorted(inference & set(artifact.manifest.workloads))
    assert set(workloads) == inference, "the artifact must cover every inference workload"
    answer = program(
        "traffic",
        timeout=500,
        workloads=workloads,
        tp=[1, 2],
        count=CALLS,
        seed=20261123,
        max_tokens=min(32768, artifact.manifest.max_tokens),
        max_batch=min(64, artifact.manifest.max_batch),
    )
    report = answer["report"]
    record(
        **{name: answer[name] for name in ("calls", "checked", "wrong", "worst", "references_agree", "seconds")},
        watch=answer["watch"],
        modules=report["modules"],
        chosen=report["chosen"],
        loaded=report["loaded"],
        native_launcher=report["native_launcher"],
    )
    assert max(answer["references_agree"].values()) < 1e-12
    assert answer["wrong"] == []
    assert sum(answer["calls"].values()) == CALLS
    assert answer["checked"] == CALLS
    served.check_all(answer)
    assert {*served.CHUNK_KERNELS, served.DECODE_KERNEL, served.NORM_KERNEL} <= served.loaded_kernels(report)

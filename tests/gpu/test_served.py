"""The artifact serves: random traffic, the first calls after a preload, an almost full card, the bits of plain FLA."""

import json
from pathlib import Path

import pytest
from gpu import fla_configs, served
from gpu.conftest import Loaded, Program, Record, provenance, sizes_of

from gdn_aot.catalogue.models import GDN, KDA
from gdn_aot.catalogue.providers import get_provider
from gdn_aot.reference import tolerance as checking

pytestmark = pytest.mark.gpu

CALLS = 500


def test_500_random_calls(program: Program, artifact: Loaded, record: Record) -> None:
    fla = get_provider("fla")
    usual = {name for name in fla.workloads if GDN in fla.families_of([name])}
    usual -= {"transformers-conv"}  # of OLMo-Hybrid alone
    workloads = sorted(usual & set(artifact.manifest.workloads))
    assert set(workloads) == usual, "the artifact must cover what is built by default"
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


KDA_CALLS = 200


def test_200_random_calls_of_each_model_with_kda(program: Program, artifact: Loaded, record: Record) -> None:
    sizes = sizes_of(artifact.manifest, KDA)
    if not sizes:
        pytest.skip("the artifact has no model with KDA: add --model kimi-linear-48b-a3b to its build")
    fla = get_provider("fla")
    answers = {}
    for model, tps in sizes.items():
        answers[model] = program(
            "traffic",
            timeout=500,
            model=model,
            workloads=[name for name in artifact.manifest.workloads if KDA in fla.families_of([name])],
            tp=tps,
            count=KDA_CALLS,
            seed=20261201,
            max_tokens=min(32768, artifact.manifest.max_tokens),
            max_batch=min(64, artifact.manifest.max_batch),
        )
    names = ("calls", "checked", "wrong", "worst", "seconds", "watch")
    measured = {model: {name: answer[name] for name in names} for model, answer in answers.items()}
    record(**provenance(artifact.path), **measured)
    for model, answer in answers.items():
        assert answer["wrong"] == [], model
        assert answer["checked"] == KDA_CALLS
        served.check_all(answer)


LONG_CALLS = 300


def test_300_random_calls_of_any_length_and_batch(program: Program, artifact: Loaded, record: Record) -> None:
    answer = program(
        "traffic",
        timeout=560,
        workloads=["transformers-decode", "transformers-prefill", "transformers-prefill"],
        tp=[1, 2],
        count=LONG_CALLS,
        seed=20261130,
        max_tokens=262144,
        max_batch=300,
    )
    names = ("calls", "checked", "wrong", "worst", "most_tokens", "most_batch", "lengths_over_32768", "seconds")
    record(**{name: answer[name] for name in names}, watch=answer["watch"], loaded=answer["report"]["loaded"])
    assert answer["wrong"] == []
    assert answer["checked"] == LONG_CALLS
    assert answer["most_tokens"] == 262144
    assert answer["most_batch"] > 64
    served.check_all(answer)


MIB = 1 << 20


def test_first_calls_after_preload(program: Program, record: Record) -> None:
    answer = program("preload")
    before, steps = answer["before"], answer["steps"]
    record(
        taken_mib=answer["taken"] / MIB,
        preload_seconds=answer["seconds"],
        modules=before["modules"],
        outside_pytorch_mib={name: step["outside_pytorch"] / MIB for name, step in steps.items()},
        first_call_seconds={name: step["seconds"] for name, step in steps.items()},
    )
    served.check_all(answer)
    assert answer["is_int"]
    assert answer["taken"] >= 0
    assert answer["random_kept"] == [True, True], "the state of the generators on the CPU and on the device"
    assert before["modules"] > 0
    for name, step in steps.items():
        assert step["modules"] == before["modules"], name
        assert step["loaded"] == before["loaded"], name
        assert abs(step["outside_pytorch"]) <= 2 * MIB, name  # the grain of device memory


LEFT_MIB = 300
"""A prefill of 4096 tokens takes 240 to 250 MiB besides its inputs; one buffer of a benchmark takes 256 MiB."""


def test_first_prefill_with_300_mib_left(program: Program, record: Record) -> None:
    with_artifact = program("memory", served=True, left_mib=LEFT_MIB)
    plain = program("memory", served=False, left_mib=LEFT_MIB, timeout=240)
    first, second = with_artifact["first"], with_artifact.get("second")
    record(
        left_mib=with_artifact["left_mib"],
        total_mib=with_artifact["total_mib"],
        served_first=first,
        served_second=second,
        plain_left_mib=plain["left_mib"],
        plain_first=plain["first"],
        plain_compiled=len(plain["watch"]["compiled"]),
        plain_benchmarked=plain["watch"]["benchmarked"],
    )
    assert with_artifact["left_mib"] <= LEFT_MIB + 2
    assert plain["left_mib"] <= LEFT_MIB + 2
    served.check_all(with_artifact)
    assert first["error"] == ""
    assert first["finite"]
    assert second is not None
    assert second["error"] == ""
    assert first["digests"] == second["digests"]
    assert abs(first["peak_mib"] - second["peak_mib"]) <= 1, "the first call needs what any call needs"
    assert plain["first"]["error"].startswith("OutOfMemoryError"), "plain FLA runs out of memory while it tunes"


def test_bits_are_those_of_plain_fla(program: Program, artifact: Loaded, tmp_path: Path, record: Record) -> None:
    saved = str(tmp_path / "served.pt")
    choices = fla_configs.read_choices(artifact.path)
    fla_configs.export(choices, tmp_path / "configs")
    listed = tmp_path / "choices.json"
    listed.write_text(json.dumps(choices), encoding="utf-8")
    loader = program("numbers", served=True, saved=saved)
    plain = program(
        "numbers", served=False, saved=saved, choices=str(listed), extra=fla_configs.environment(tmp_path / "configs")
    )
    record(
        names=plain["names"],
        differ=plain["differ"],
        error_against_float64=loader["exact"],
        plain_compiled=len(plain["watch"]["compiled"]),
    )
    served.check_all(loader)
    assert len(plain["watch"]["of_fla"]) >= len(served.CHUNK_KERNELS), "Triton compiled the other side"
    assert plain["watch"]["benchmarked"] == 0, "the other side took the artifact's choices"
    assert plain["names"] == loader["names"]
    assert plain["differ"] == {}
    assert plain["zero"] == []
    for name, error in loader["exact"].items():
        assert error <= checking.LONG[name.split(" ")[1]], name

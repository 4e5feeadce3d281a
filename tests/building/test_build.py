"""Whole builds: targets, models, workloads, the same bytes again; ``--only``: one row, the bytes of its options."""

import copy
import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import triton
from builds import Built, make
from commands import refused
from helpers import gdn_aot
from matrices import SMALL, toml

from gdn_aot.artifact import manifest_json
from gdn_aot.machine import installed


def test_an_unchanged_build_compiles_nothing(sm_120: Built, tmp_path: Path) -> None:
    again = make(sm_120.home, tmp_path / "elsewhere", *sm_120.arguments)
    assert again.row["compiled"] == 0
    assert sm_120.row["binaries"] > 0
    assert again.path.read_bytes() == sm_120.path.read_bytes()


def test_the_same_bytes_with_another_cache_and_directory(decode: Built, tmp_path: Path) -> None:
    again = make(tmp_path / "another-home", tmp_path / "a" / "longer" / "way", *decode.arguments, "--jobs", 1)
    assert again.row["compiled"] == decode.row["binaries"] > 0
    assert again.path.read_bytes() == decode.path.read_bytes()


def test_the_same_trace_in_another_environment(decode: Built, tmp_path: Path) -> None:
    """Traced again from nothing; what was compiled before answers for every launch."""
    for kind in ("launches", "objects", "cubins"):
        shutil.copytree(decode.home / "build" / kind, tmp_path / "build" / kind)
    extra = {"PYTHONHASHSEED": "4711", "TZ": "Asia/Tokyo", "TRITON_DEBUG": "1", "FLA_USE_FAST_OPS": "1"}
    arguments = (*decode.arguments, "-o", tmp_path / "out", "--json")
    (row,) = gdn_aot("build", *arguments, home=tmp_path, extra=extra).json["artifacts"]
    assert row["compiled"] == 0
    assert row["sha256"] == decode.row["sha256"]


def test_source_date_epoch(decode: Built, tmp_path: Path) -> None:
    arguments, extra = (*decode.arguments, "-o", tmp_path, "--json"), {"SOURCE_DATE_EPOCH": "1700000000"}
    (row,) = gdn_aot("build", *arguments, home=decode.home, extra=extra).json["artifacts"]
    assert row["sha256"] != decode.row["sha256"]
    assert row["compiled"] == 0


def test_several_targets_in_one_command(build: Callable[..., Built]) -> None:
    made = build(
        "--arch", "sm_80,sm_100", "--arch", "sm_121", "--model", "qwen3.5-9b", "--workload", "transformers-decode"
    )  # fmt: skip
    rows = made.document["artifacts"]
    assert [row["arch"] for row in rows] == ["sm_80", "sm_100", "sm_121"]
    assert len({row["sha256"] for row in rows}) == 3
    assert all(row["binaries"] and not row["not_covered"] for row in rows)
    assert len(list(Path(rows[0]["path"]).parent.iterdir())) == 3


def test_an_indivisible_pair_is_skipped_and_the_rest_built(build: Callable[..., Built]) -> None:
    made = build(
        "--arch", "sm_90", "--model", "olmo-hybrid-7b", "--model", "qwen3.5-9b", "--tp", "4",
        "--workload", "transformers-decode",
    )  # fmt: skip
    assert "skipped: olmo-hybrid-7b has 30 key heads, which 4 does not divide" in made.err
    assert [(row["model"], row["tp"]) for row in made.document["skipped"]] == [("olmo-hybrid-7b", 4)]
    assert [(row.name, row.tp, row.v_heads) for row in made.manifest.models] == [("qwen3.5-9b", 4, 8)]
    (row,) = json.loads(manifest_json.to_json(made.manifest))["models"]
    assert not {"family", "gate_bound"} & set(row), "rows of GDN models are as they were before there were others"


def test_cards_without_bf16_get_fp16(build: Callable[..., Built]) -> None:
    arguments = ("--arch", "sm_75", "--model", "qwen3.5-9b", "--workload", "transformers-decode")
    made = build(*arguments)
    assert [row.dtype for row in made.manifest.models] == ["fp16"]
    assert "sm_75 has no bf16 arithmetic: building for fp16" in made.err
    asked = build(*arguments, "--dtype", "bf16")
    assert [row.dtype for row in asked.manifest.models] == ["bf16"]


_TRAIN = (
    "--model", "qwen3.5-9b", "--mode", "train", "--workload", "transformers-train",
    "--max-batch", 1, "--max-tokens", 256,
)  # fmt: skip


def test_what_the_provider_refuses_on_a_target_is_listed(build: Callable[..., Built]) -> None:
    """FLA refuses its gated backward kernel on Hopper with this Triton: wrong results (its issue #640)."""
    if not (3, 4) <= tuple(map(int, triton.__version__.split(".")[:2])) <= (3, 7):
        pytest.skip(f"FLA does not refuse with Triton {triton.__version__}")
    made = build("--arch", "sm_90", *_TRAIN)
    assert "chunk_bwd_kernel_dqkwg" not in {kernel.qualname for kernel in made.manifest.kernels}
    (gap,) = made.row["not_covered"]
    assert "transformers-train" in gap["kernel"]
    assert "refused by the provider" in gap["reason"]
    assert "produces incorrect results for gated chunk_bwd_dqkwg" in gap["reason"]
    assert "not covered: " in made.err


def test_the_text_output_is_the_paths(decode: Built, tmp_path: Path) -> None:
    done = gdn_aot("build", *decode.arguments, "-o", tmp_path, home=decode.home)
    assert done.out == f"{tmp_path / decode.path.name}\n"
    assert "compiled 0" in done.err


def test_workloads_can_be_excluded(build: Callable[..., Built]) -> None:
    made = build(
        "--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-*",
        "--exclude-workload", "*-prefill",
    )  # fmt: skip
    assert made.manifest.workloads == ("transformers-decode", "transformers-conv")


HERE = f"fla{importlib.metadata.version('fla-core')}-triton{importlib.metadata.version('triton')}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a matrix with one row of the installed versions, as `builds.sm_120` builds it, and one of others."""
    document: dict[str, Any] = copy.deepcopy(SMALL)
    document["environment"][0].update(
        version=importlib.metadata.version("fla-core"), triton=importlib.metadata.version("triton")
    )
    document["artifact"][0].update(targets=["sm_120", "sm_70"], models=["qwen3.5-9b"], tp=[1], max_tokens=262144)
    path = tmp_path / "matrix.toml"
    path.write_bytes(toml(document))
    return path


def test_a_row_is_built_as_its_options_would(sm_120: Built, session_home: Path, file: Path, tmp_path: Path) -> None:
    done = gdn_aot(
        "build", "--only", f"{HERE}-sm_120", "--matrix", file, "-o", tmp_path / "out", "--json", home=session_home
    )
    (row,) = done.json["artifacts"]
    assert row["identifier"] == f"{HERE}-sm_120"
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == f"gdn-aot-{HERE}-sm_120.tar.zst"
    assert path.read_bytes() == sm_120.path.read_bytes()


def test_records_are_those_beside_the_matrix(session_home: Path, file: Path, tmp_path: Path) -> None:
    record = tmp_path / "tuning" / "sm_120" / f"fla-core-{importlib.metadata.version('fla-core')}.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    arguments = ("build", "--only", f"{HERE}-sm_120", "--matrix", file, "-o", tmp_path / "out")
    assert str(record) in refused(*arguments, home=session_home, code=2, kind="usage")["message"]


@pytest.fixture
def refuse(file: Path, tmp_path: Path) -> Any:
    """Run a build that must be refused before anything is done."""

    def refuse(*arguments: str, code: int, kind: str) -> dict[str, str]:
        out, home = tmp_path / "out", tmp_path / "home"
        error = refused("build", *arguments, "--matrix", file, "-o", out, home=home, code=code, kind=kind)
        assert not out.exists()
        assert not list(home.iterdir())
        return error

    return refuse


def test_an_unknown_identifier(refuse: Any) -> None:
    error = refuse("--only", f"{HERE}-sm_121", code=3, kind="nothing-selected")
    assert f"{HERE}-sm_120" in error["hint"]
    refuse("--only", "fla*", code=3, kind="nothing-selected")
    refuse("--only", "", code=3, kind="nothing-selected")


@pytest.mark.parametrize(
    "beside",
    [
        *("--arch sm_120", "--model all", "--tp 1", "--shape heads=1", "--dtype bf16", "--provider fla"),
        *("--mode inference", "--max-tokens 32768", "--max-batch 64", "--workload *", "--exclude-workload x"),
        *("--capture x.json", "--candidates chosen"),
    ],
)
def test_options_that_say_what_the_row_says(refuse: Any, beside: str) -> None:
    error = refuse("--only", f"{HERE}-sm_120", *beside.split(), code=2, kind="usage")
    assert f"{beside.split(maxsplit=1)[0]} cannot stand beside --only" in error["message"]


def test_a_matrix_without_a_row_of_it(refuse: Any) -> None:
    error = refuse("--arch", "sm_120", "--model", "all", code=2, kind="usage")
    assert "--matrix without --only" in error["message"]


def test_another_environment(refuse: Any) -> None:
    error = refuse("--only", "vllm0.33.0-triton3.8.0-sm_90", code=2, kind="usage")
    assert "is built with vllm 0.33.0 and triton 3.8.0, but here is" in error["message"]
    assert "python3.11 -m venv .venv-b" in error["hint"]
    assert "pip install --no-deps -r ../b.txt" in error["hint"]


@pytest.mark.parametrize(("name", "version"), [("triton", "3.9.9"), ("fla-core", "0.5.2"), ("fla-core", None)])
def test_one_version_differs(refuse: Any, monkeypatch: pytest.MonkeyPatch, name: str, version: str | None) -> None:
    real = installed.version
    monkeypatch.setattr(installed, "version", lambda asked: version if asked == name else real(asked))
    error = refuse("--only", f"{HERE}-sm_120", code=2, kind="usage")
    assert (f"{name} {version}" if version else f"no {name}") in error["message"]

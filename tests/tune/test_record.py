"""Tuning records: what is read, what is refused and why, and that the schema agrees."""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from gdn_aot.build import tuning
from gdn_aot.build.records import Config
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORD: dict[str, Any] = {
    "format": 1,
    "target": "sm_120",
    "provider": {"name": "fla", "distribution": "fla-core", "version": "0.6.0"},
    "triton": "3.6.0",
    "device": {"name": "NVIDIA GeForce RTX 5090", "driver": "575.51"},
    "kernels": [
        {
            "kernel": "fla.ops.common.chunk_o:chunk_fwd_kernel_o",
            "choices": [
                {
                    "key": [16, 128, True, None, "torch.bfloat16"],
                    "config": {"kwargs": {"BK": 64, "BV": 32}, "num_warps": 4, "num_stages": 2},
                    "provenance": "measured",
                    "note": "3 runs",
                },
                {
                    "key": [8],
                    "config": {"kwargs": {}, "num_warps": 4, "num_stages": 2, "num_ctas": 2, "maxnreg": 96},
                    "provenance": "transferred",
                },
            ],
        }
    ],
}


def _load(root: Path, record: object) -> tuning.TuningTable:
    path = tuning.record_path(root, "sm_120", "fla-core", "0.6.0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return tuning.load(root, "sm_120", "fla-core", "0.6.0")


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(resources.files("gdn_aot").joinpath("resources/tuning.schema.json").read_text())
    return schema


def test_a_record_is_read(tmp_path: Path) -> None:
    name = "fla.ops.common.chunk_o:chunk_fwd_kernel_o"
    assert _load(tmp_path, RECORD) == {
        (name, (16, 128, True, None, "torch.bfloat16")): tuning.TunedChoice(
            config=Config(kwargs=(("BK", 64), ("BV", 32)), num_warps=4, num_stages=2),
            provenance="measured",
            note="3 runs",
        ),
        (name, (8,)): tuning.TunedChoice(
            config=Config(kwargs=(), num_warps=4, num_stages=2, num_ctas=2, maxnreg=96),
            provenance="transferred",
            note="",
        ),
    }


def test_the_schema_accepts_what_is_read() -> None:
    jsonschema.Draft202012Validator.check_schema(_schema())
    jsonschema.validate(RECORD, _schema())
    jsonschema.validate({**RECORD, "device": None}, _schema())


def test_no_record_is_an_empty_table(tmp_path: Path) -> None:
    assert tuning.load(tmp_path, "sm_120", "fla-core", "0.6.0") == {}
    assert tuning.load(None, "sm_120", "fla-core", "0.6.0") == {}


def _set(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        for step in path[:-1]:
            record = record[step]
        record[path[-1]] = to

    return change


def _drop(*path: str | int) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        for step in path[:-1]:
            record = record[step]
        del record[path[-1]]

    return change


_CHOICE = ("kernels", 0, "choices", 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("format", to=2), "its format is 2, not 1"),
        (_set("target", to="sm_121"), "its target is 'sm_121', not 'sm_120'"),
        (_set("provider", "version", to="0.5.2"), "its version is '0.5.2', not '0.6.0'"),
        (_set("provider", "distribution", to="vllm"), "its distribution is 'vllm', not 'fla-core'"),
        (_drop("provider"), "not a tuning record"),
        (_drop("format"), "not a tuning record"),
        (_drop("kernels"), "malformed"),
        (_set("kernels", to=3), "malformed"),
        (_drop(*_CHOICE, "key"), "malformed"),
        (_drop(*_CHOICE, "provenance"), "malformed"),
        (_set(*_CHOICE, "provenance", to="default"), "'default' is not one of measured, transferred"),
        (_drop(*_CHOICE, "config", "num_warps"), "malformed"),
        (_set(*_CHOICE, "config", "kwargs", to=[1]), "malformed"),
        (_set(*_CHOICE, "config", to="BV=32"), "malformed"),
    ],
)
def test_a_wrong_record_is_refused_by_name(tmp_path: Path, change: Callable[[Any], None], reason: str) -> None:
    record = copy.deepcopy(RECORD)
    change(record)
    with pytest.raises(UsageError) as caught:
        _load(tmp_path, record)
    assert reason in caught.value.message
    assert "fla-core-0.6.0.json" in caught.value.message
    assert "\n" not in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        _set(*_CHOICE, "config", "num_warps", to="4"),
        _set(*_CHOICE, "config", "kwargs", "BV", to="32"),
        _set(*_CHOICE, "key", to="abc"),
        _set(*_CHOICE, "key", to=[[1]]),
        _set("kernels", 0, "kernel", to=7),
    ],
    ids=["num_warps is text", "a block is text", "the key is text", "a list in the key", "the kernel is a number"],
)
def test_a_wrong_type_is_refused_when_loaded(tmp_path: Path, change: Callable[[Any], None]) -> None:
    record = copy.deepcopy(RECORD)
    change(record)
    with pytest.raises(UsageError):
        _load(tmp_path, record)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "\ufeff{}"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="not a tuning record"):
        _load(tmp_path, text)

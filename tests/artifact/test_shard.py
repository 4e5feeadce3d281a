"""The shard of a manifest: its form, and what contradicts itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import sharding

from artifact import factory
from artifact.test_manifest import schema
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.parse import load_manifest
from gdn_aot.artifact.shard import Checked, file_name
from gdn_aot.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKED = Checked(where="on a card", packed=("a", "b"), good=("b",))


def _manifest() -> m.Manifest:
    (made,) = sharding.divide(factory.full_manifest(), 1, lambda: 0)
    assert made.shard is not None
    return replace(made, shard=replace(made.shard, of=3, checked=CHECKED, candidates="all", spare=((0, 1), (1, 0))))


def _plain() -> Any:
    return json.loads(m.to_json(_manifest()))


def test_it_is_written_last_and_read_again() -> None:
    assert list(_plain())[-1] == "shard"
    assert load_manifest(m.to_json(_manifest())) == _manifest()
    jsonschema.Draft202012Validator(schema()).validate(_plain())


def test_an_artifact_has_none() -> None:
    assert b'"shard"' not in m.to_json(factory.full_manifest())
    assert load_manifest(m.to_json(factory.full_manifest())).shard is None


def test_the_name_of_its_file() -> None:
    assert file_name("fla0.6.0-triton3.6.0-sm_120", 2, 10) == (
        "gdn-aot-fla0.6.0-triton3.6.0-sm_120-shard-2-of-10.tar.zst"
    )


_BREAKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "missing": ("shard.number", lambda p: p.pop("number")),
    "unknown": ("shard.more", lambda p: p.update(more=1)),
    "type": ("shard.keys", lambda p: p.update(keys="5")),
    "candidates": ("shard.candidates", lambda p: p.update(candidates="some")),
    "input": ("shard.inputs.trace", lambda p: p["inputs"].update(trace=1)),
    "checked": ("shard.checked.where", lambda p: p["checked"].pop("where")),
    "pair": ("shard.spare[0]", lambda p: p.update(spare=[[0, 1, 2]])),
    "index": ("shard.spare[0][1]", lambda p: p.update(spare=[[0, "1"]])),
    "beyond": ("shard.number", lambda p: p.update(number=4)),
    "zero": ("shard.number", lambda p: p.update(number=0)),
    "many": ("shard.number", lambda p: p.update(of=1_000_000)),
    "count": ("shard.keys", lambda p: p.update(keys=4)),
    "all": ("shard.all_keys", lambda p: p.update(all_keys=4)),
    "digest": ("shard.inputs.code", lambda p: p["inputs"].update(code="x")),
    "numerics": ("shard.inputs.numerics", lambda p: p["inputs"].update(numerics="x")),
    "order": ("shard.spare", lambda p: p.update(spare=[[1, 0], [0, 1]])),
    "place": ("shard.spare[1]", lambda p: p.update(spare=[[0, 1], [9, 0]])),
    "spare": ("shard.spare", lambda p: p.update(candidates="chosen")),
    "packed": ("shard.checked.packed", lambda p: p["checked"].update(packed=["b", "b"])),
    "good": ("shard.checked.good", lambda p: p["checked"].update(good=["c"])),
    "null": ("shard", lambda p: p.clear()),
}


@pytest.mark.parametrize("name", _BREAKS)
def test_what_is_wrong_is_named_with_its_path(name: str) -> None:
    where, break_it = _BREAKS[name]
    value = _plain()
    break_it(value["shard"])
    with pytest.raises(VerificationError) as caught:
        load_manifest(json.dumps(value).encode())
    assert any(problem.where.startswith(where) for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("value", [None, [], 1])
def test_it_is_an_object(value: object) -> None:
    with pytest.raises(VerificationError) as caught:
        load_manifest(json.dumps({**_plain(), "shard": value}).encode())
    assert caught.value.problems[0].where == "shard"

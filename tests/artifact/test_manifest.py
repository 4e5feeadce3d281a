from __future__ import annotations

import dataclasses
import json
import math
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings

from artifact import factory
from artifact.strategies import manifests
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.check import check_manifest
from gdn_aot.artifact.parse import load_manifest, parse_manifest
from gdn_aot.errors import UnknownFormatError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable


_LEFT_OUT = ((m.Kernel, "relaxations"),)


def schema() -> dict[str, Any]:
    text = resources.files("gdn_aot").joinpath("resources/manifest.schema.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def records() -> list[type]:
    named = vars(m)
    return [item for item in named.values() if isinstance(item, type) and dataclasses.is_dataclass(item)]


def plain() -> Any:
    return json.loads(m.to_json(factory.full_manifest()))


def problems_of(value: Any) -> dict[str, str]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(VerificationError) as caught:
        load_manifest(data)
    return {problem.where: problem.what for problem in caught.value.problems}


def test_json_form() -> None:
    data = m.to_json(factory.full_manifest())
    assert data.startswith(b'{"format":1,"identifier":"fla0.6.0-triton3.6.0-sm_120","target":{"name":"sm_120",')
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    assert data.isascii()


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ({"float": "-inf"}, True),
        ({"constexpr": {"float": "nan"}}, True),
        ({"float": "1.0"}, False),
        ({"float": 1.0}, False),
        ({"float": "nan", "dtype": "fp32"}, False),
    ],
)
def test_constants_that_json_lacks(value: Any, *, good: bool) -> None:
    document = plain()
    constants = document["kernels"][1]["binaries"][0]["specialization"]["constants"]
    constants[0][1] = value
    if good:
        assert (
            load_manifest(json.dumps(document).encode()).kernels[1].binaries[0].specialization.constants[0][1] == value
        )
    else:
        assert list(problems_of(document).values()) == [
            "expected a value, {constexpr: value}, {dtype: str} or {float: str}"
        ]


def test_file_name() -> None:
    assert names.file_name("fla0.6.0-triton3.6.0-sm_120") == "gdn-aot-fla0.6.0-triton3.6.0-sm_120.tar.zst"


def test_round_trip() -> None:
    manifest = factory.full_manifest()
    assert load_manifest(m.to_json(manifest)) == manifest


@settings(max_examples=60, deadline=None)
@given(manifests())
def test_round_trip_and_schema_of_any_manifest(manifest: m.Manifest) -> None:
    data = m.to_json(manifest)
    parsed = parse_manifest(data)
    assert parsed == manifest
    assert m.to_json(parsed) == data
    assert list(check_manifest(parsed)) == []
    jsonschema.Draft202012Validator(schema()).validate(json.loads(data))


def test_schema_is_valid_and_says_what_the_records_say() -> None:
    loaded = schema()
    jsonschema.Draft202012Validator.check_schema(loaded)
    found = {name: d for name, d in loaded["$defs"].items() if name[0].isupper()} | {"Manifest": loaded}
    assert found.keys() == {record.__name__ for record in records()}
    for record in records():
        names = [field.name for field in dataclasses.fields(record)]
        definition = found[record.__name__]
        required = [name for name in names if (record, name) not in _LEFT_OUT]
        assert (list(definition["properties"]), definition["required"]) == (names, required)
        assert definition["additionalProperties"] is False


def test_schema_refuses_what_the_parser_refuses() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    breaks: list[Callable[[Any], Any]] = [
        lambda p: p.pop("mode"),
        lambda p: p.update(extra=1),
        lambda p: p["blobs"][0].update(size="1"),
        lambda p: p["kernels"][0]["choices"][0].update(provenance="guessed"),
        lambda p: p["kernels"][0]["sources"][0].update(path="../x"),
        lambda p: p["kernels"][0]["binaries"][0]["specialization"].update(signature={"k": 1}),
        lambda p: p["kernels"][0]["binaries"][0].update(workloads=[]),
        lambda p: p["kernels"][0]["binaries"][0].update(models=[-1]),
        lambda p: p["kernels"][0]["binaries"][0].update(workloads=[0, 0]),
        lambda p: p["kernels"][0]["binaries"][0].pop("workloads"),
        lambda p: p["kernels"][0].update(relaxations=[]),
        lambda p: p["kernels"][0].update(relaxations=[{"argument": "n", "value": "7", "reason": ""}]),
        lambda p: p["kernels"][0].update(relaxations=[{"argument": "n", "value": 7}]),
    ]
    for break_it in breaks:
        value = plain()
        break_it(value)
        assert not validator.is_valid(value)
        assert problems_of(value)


def test_a_kernel_without_relaxations_is_written_as_before_there_were_any() -> None:
    assert "relaxations" not in plain()["kernels"][0]
    relaxed = m.Relaxation(argument="k", value=7, reason="a bound")
    kernel = dataclasses.replace(factory.make_manifest().kernels[0], relaxations=(relaxed,))
    value = json.loads(m.to_json(dataclasses.replace(factory.make_manifest(), kernels=(kernel,))))
    assert value["kernels"][0]["relaxations"] == [{"argument": "k", "value": 7, "reason": "a bound"}]
    assert list(value["kernels"][0])[-1] == "relaxations"


def test_a_relaxed_argument_is_a_constexpr_of_every_binary_and_named_once() -> None:
    kernel = factory.make_manifest().kernels[0]
    names = [name for name, kind in kernel.binaries[0].specialization.signature.items() if kind == "constexpr"]
    good = m.Relaxation(argument=names[0], value=7, reason="")
    bad = m.Relaxation(argument="absent", value=7, reason="")

    def problems(*relaxations: m.Relaxation) -> list[str]:
        changed = dataclasses.replace(kernel, relaxations=relaxations)
        rest = factory.make_manifest().kernels[1:]
        whole = dataclasses.replace(factory.make_manifest(), kernels=(changed, *rest))
        return [problem.where for problem in check_manifest(whole) if "relaxations" in problem.where]

    assert problems(good) == []
    assert problems(bad) == ["kernels[0].relaxations[0].argument"]
    assert problems(good, good) == ["kernels[0].relaxations[1].argument"]


def test_freeze() -> None:
    assert m.freeze({"a": [1, [2.5, None]], "b": (True, "x")}) == {"a": (1, (2.5, None)), "b": (True, "x")}
    with pytest.raises(TypeError):
        m.freeze({"a": {1, 2}})
    with pytest.raises(TypeError):
        m.freeze({1: 2})
    with pytest.raises(ValueError, match="nan"):
        m.freeze([math.nan])


def test_every_problem_is_reported_with_its_path() -> None:
    value = plain()
    kernel = value["kernels"][1]
    kernel["choices"][0]["config"]["num_warps"] = "4"
    kernel["choices"][1]["derived"] = 1
    kernel["choices"][1]["key"][0] = [1]
    kernel["choices"][0]["config"]["kwargs"]["BK"] = {}
    kernel["binaries"][0]["specialization"]["signature"]["k"] = ["*bf16", 3]
    kernel["binaries"][0]["specialization"]["constants"][0] = [[True], 1]
    kernel["binaries"][0]["specialization"]["constants"][1] = [[1]]
    kernel["binaries"][0]["specialization"]["constants"][2][1] = {"eval": "x"}
    kernel["binaries"][0]["specialization"]["attributes"][0][1] = [["tt.divisibility"]]
    kernel["binaries"][0]["metadata"]["x y"] = 10**30
    kernel["binaries"][0]["metadata"]["lone"] = ["\ud800"]
    kernel["binaries"][0]["models"] = [False, "0"]
    kernel["binaries"][0]["workloads"] = 1
    kernel["odd key!"] = kernel.pop("qualname")
    value["target"]["capability"] = [12, 0, 0]
    value["not_covered"][0]["keys"][0] = "abc"
    value["numerics"] = None
    value["mode"] = "both"
    value["workloads"][1] = 7
    del value["provider"]
    assert problems_of(value) == {
        "target.capability": "expected list of 2, got list of 3",
        "provider": "missing, expected object",
        "workloads[1]": "expected str, got int",
        "mode": "expected one of inference, train",
        "kernels[1]['odd key!']": "unknown key",
        "kernels[1].qualname": "missing, expected str",
        "kernels[1].choices[0].config.num_warps": "expected int, got str",
        "kernels[1].choices[0].config.kwargs.BK": "expected scalar, got object",
        "kernels[1].choices[1].derived": "expected bool, got int",
        "kernels[1].choices[1].key[0]": "expected scalar, got list",
        "kernels[1].binaries[0].specialization.signature.k": "expected str or list of them, got list",
        "kernels[1].binaries[0].specialization.constants[0][0][0]": "expected int, got bool",
        "kernels[1].binaries[0].specialization.constants[1]": "expected list of 2, got list of 1",
        "kernels[1].binaries[0].specialization.constants[2][1]": (
            "expected a value, {constexpr: value}, {dtype: str} or {float: str}"
        ),
        "kernels[1].binaries[0].specialization.attributes[0][1]": "expected list of [str, value]",
        "kernels[1].binaries[0].metadata['x y']": "expected int of at most 64 bits, got int",
        "kernels[1].binaries[0].metadata.lone[0]": "expected str without lone surrogates, got str",
        "kernels[1].binaries[0].models[0]": "expected int, got bool",
        "kernels[1].binaries[0].models[1]": "expected int, got str",
        "kernels[1].binaries[0].workloads": "expected list, got int",
        "not_covered[0].keys[0]": "expected list, got str",
        "numerics": "expected object, got null",
    }


def test_contradictions_are_reported_with_their_path() -> None:
    value = plain()
    value["identifier"] = "fla0.6.0-triton3.6.0-sm_121"
    value["target"]["capability"] = [9, 0]
    value["provider"]["license_files"][0]["path"] = "/etc/passwd"
    first, second = value["kernels"]
    second["qualname"] = first["qualname"]
    first["cache_key"] = "A" * 64
    first["sources"][0] = {"path": "a/../b", "sha256": "0"}
    first["choices"][0]["key"], first["choices"][1]["key"] = [1, "x"], [True, "x"]
    first["binaries"][1]["launch_key"] = first["binaries"][0]["launch_key"]
    first["binaries"][1]["cubin"] = "f" * 64
    first["binaries"][0]["models"], first["binaries"][1]["models"] = [], [0, 0]
    first["binaries"][0]["workloads"], first["binaries"][1]["workloads"] = [1, 0], [-1, 0]
    second["binaries"][0]["workloads"] = [0, 2]
    second["binaries"][0]["cubin"] = "../../x"
    value["build"].update(commit="main", epoch=-1)
    value["blobs"][0]["size"] = -1
    value["blobs"].append(dict(value["blobs"][-1]))
    orphan = next(i for i, b in enumerate(value["blobs"]) if b["sha256"] == factory.sha256(factory.CUBINS[1]))
    digits = "expected 64 lower-case hexadecimal digits"
    assert problems_of(value) == {
        "identifier": "is not what the fields below give, 'fla0.6.0-triton3.6.0-sm_120'",
        "target.capability": "[9, 0] is not that of 'sm_120'",
        "provider.license_files[0].path": "expected a relative path with forward slashes, without . and ..",
        "kernels[1]": "is the same as that of kernels[0]",
        "kernels[0].cache_key": digits,
        "kernels[0].sources[0].path": "expected a relative path with forward slashes, without . and ..",
        "kernels[0].sources[0].sha256": digits,
        "kernels[0].choices[1].key": "is the same as that of kernels[0].choices[0]",
        "kernels[0].binaries[1].launch_key": "is the same as that of kernels[0].binaries[0]",
        "kernels[0].binaries[1].cubin": f"blob {'f' * 64} is not in the blob table",
        "kernels[0].binaries[0].models": "is empty",
        "kernels[0].binaries[1].models": "expected indices in rising order, each once",
        "kernels[0].binaries[0].workloads": "expected indices in rising order, each once",
        "kernels[0].binaries[1].workloads": "expected indices from 0, below 2",
        "kernels[1].binaries[0].workloads": "expected indices from 0, below 2",
        "kernels[1].binaries[0].cubin": digits,
        "build.commit": "expected null or 40 lower-case hexadecimal digits",
        "build.epoch": "expected seconds from 0 to 8589934591",
        "blobs[0].size": "expected 0 to 67108864 bytes",
        f"blobs[{orphan}].sha256": "nothing refers to this blob",
        f"blobs[{len(value['blobs']) - 1}].sha256": "is listed twice",
    }


def test_identifier_is_a_file_name() -> None:
    value = plain()
    value["provider"]["version"] = "/../../x"
    value["identifier"] = "fla/../../x-triton3.6.0-sm_120"
    assert problems_of(value) == {"identifier": "has characters that a file name must not have"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "manifest.json is not JSON: Expecting value at byte 0"),
        (b"{" * 5, "manifest.json is not JSON: Expecting property name enclosed in double quotes at byte 1"),
        (b'"\xff"', "manifest.json is not ASCII"),
        ("{}".encode("utf-16"), "manifest.json is not ASCII"),
        (b"[]", "expected object, got list"),
        (b"null", "expected object, got null"),
        (b'{"format": 1, "format": 1}', "manifest.json is not acceptable JSON: an object has the key 'format' twice"),
        (b'{"format": NaN}', "manifest.json is not acceptable JSON: NaN is not a JSON number"),
        (b"[" * 1_500_000, "manifest.json is nested too deep"),
        (b"[" * 2_000_001, "manifest.json has more than 2000000 brackets and commas"),
        (b" " * ((32 << 20) + 1), "manifest.json is larger than 33554432 bytes"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_not_json(data: bytes, what: str) -> None:
    assert problems_of(data) == {"": what}


def test_integer_of_many_digits() -> None:
    assert "manifest.json is not acceptable JSON" in problems_of(b'{"format": %s}' % (b"9" * 5000))[""]


@pytest.mark.parametrize(
    ("data", "where"),
    [(b"{}", "missing, expected int"), (b'{"format": "1"}', "expected int, got str"), (b'{"format": true}', None)],
)
def test_format_is_read_first(data: bytes, where: str | None) -> None:
    assert problems_of(data) == {"format": where or "expected int, got bool"}


@pytest.mark.parametrize("version", [0, 2, 10**40])
def test_unknown_format(version: int) -> None:
    with pytest.raises(UnknownFormatError) as caught:
        load_manifest(b'{"format": %d, "identifier": 7}' % version)
    assert [problem.where for problem in caught.value.problems] == ["format"]


def test_deep_metadata() -> None:
    value = plain()
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested]
    value["kernels"][0]["binaries"][0]["metadata"]["deep"] = nested
    (where,) = problems_of(value)
    assert where == "kernels[0].binaries[0].metadata.deep" + "[0]" * 32


def test_a_thousand_problems_are_listed() -> None:
    value = plain()
    value["workloads"] = [1] * 5000
    problems = problems_of(value)
    assert len(problems) == 1001
    assert problems[""] == "there are more than 1000 problems"


def captured() -> Any:
    """A manifest of which one binary is known from a capture alone."""
    value = plain()
    value["workloads"].append("capture-0123abcd")
    value["identifier"] += "-capture-0123abcd"
    value["kernels"][0]["binaries"][0].update(models=[], workloads=[len(value["workloads"]) - 1])
    return value


def test_a_captured_binary_needs_no_model_and_the_identifier_names_the_capture() -> None:
    value = captured()
    jsonschema.Draft202012Validator(schema()).validate(value)
    parsed = load_manifest(json.dumps(value).encode())
    assert parsed.kernels[0].binaries[0].models == ()
    value["identifier"] = plain()["identifier"]
    assert list(problems_of(value)) == ["identifier"]


def test_a_binary_that_a_workload_launches_needs_a_model() -> None:
    value = captured()
    value["kernels"][0]["binaries"][0]["workloads"] = [0]
    assert problems_of(value) == {"kernels[0].binaries[0].models": "is empty"}

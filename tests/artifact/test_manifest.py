import json
from collections.abc import Callable
from typing import Any

import factory
import jsonschema  # type: ignore[import-untyped]
import pytest
from factory import dump, plain, problems_of
from hypothesis import given, settings
from msgspec.structs import replace
from strategies import manifests

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.manifest_json import FORM, load_manifest, to_json
from gdn_aot.errors import UnknownFormatError, VerificationError
from gdn_aot.launches import Relaxed

# Places in a row of ``binaries``.
KEY, METADATA, MODELS, WORKLOADS, BLOB = 0, 5, 7, 8, 9
EVERY_BINARY = ("0].binaries[0", "0].binaries[1", "1].binaries[0")


def test_json_form() -> None:
    data = to_json(factory.full_manifest())
    assert data.startswith(b'{"format":1,"identifier":"fla0.6.0-triton3.6.0-sm_120","target":{"name":"sm_120",')
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1


def test_rows_of_models_say_what_is_not_usual_alone() -> None:
    manifest = factory.full_manifest()
    (usual,) = manifest.models
    kda = replace(usual, family="kda")
    for row in (usual, kda, replace(kda, gate_bound=-5.0)):
        data = to_json(replace(manifest, models=(row,)))
        (written,) = json.loads(data)["models"]
        more = {name: written[name] for name in ("family", "gate_bound") if name in written}
        assert more == {name: getattr(row, name) for name in more}
        assert len(more) == (row.family == "kda") + (row.gate_bound is not None)
        assert load_manifest(data).models == (row,)


def test_what_binaries_share_is_there_once() -> None:
    value = plain()
    assert {name: len(part) for name, part in value["parts"].items()} == dict.fromkeys(m.Parts.__struct_fields__, 1)
    rows = [row for kernel in value["kernels"] for row in kernel["binaries"]]
    assert [row[1:] for row in rows] == [[0] * 8 + [1], [0] * 8 + [2], [0] * 8 + [1]]


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
    document["parts"]["constants"][0][0][1] = value
    if good:
        binary = load_manifest(dump(document)).kernels[1].binaries[0]
        assert binary.specialization.constants[0][1] == value
    else:
        what = "expected a value, {constexpr: value}, {dtype: str} or {float: str}"
        assert problems_of(document) == {"parts.constants[0][0][1]": what}


@settings(max_examples=60)
@given(manifests())
def test_round_trip_and_schema_of_any_manifest(manifest: m.Manifest) -> None:
    data = to_json(manifest)
    parsed = load_manifest(data)
    assert parsed == manifest
    assert to_json(parsed) == data
    jsonschema.Draft202012Validator(FORM.schema()).validate(json.loads(data))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}, 10**30, "\ud800", (1, 2)], ids=repr)
def test_what_would_not_be_read_as_it_was_is_not_written(bad: Any) -> None:
    manifest = factory.full_manifest()
    binary = replace(manifest.kernels[1].binaries[0], metadata={"x": bad})
    kernels = (manifest.kernels[0], replace(manifest.kernels[1], binaries=(binary,)))
    with pytest.raises((ValueError, VerificationError)):
        load_manifest(to_json(replace(manifest, kernels=kernels)))


def test_a_relaxed_argument_is_a_constexpr_of_every_binary_and_named_once() -> None:
    manifest = factory.full_manifest()
    name = next(name for name, kind in plain()["parts"]["signature"][0].items() if kind == "constexpr")

    def problems(*arguments: str) -> list[str]:
        relaxations = tuple(Relaxed(argument=argument, value=7, reason="a bound") for argument in arguments)
        kernels = (replace(manifest.kernels[0], relaxations=relaxations), *manifest.kernels[1:])
        data = to_json(replace(manifest, kernels=kernels))
        try:
            assert load_manifest(data).kernels[0].relaxations == relaxations
        except VerificationError as error:
            return [problem.where for problem in error.problems]
        return []

    assert problems(name) == []
    assert problems("absent") == ["kernels[0].relaxations[0].argument"]
    assert problems(name, name) == ["kernels[0].relaxations[1].argument"]


def test_every_problem_is_reported_with_its_path() -> None:
    value = plain()
    kernel, parts = value["kernels"][1], value["parts"]
    kernel["choices"][0]["config"]["num_warps"] = "4"
    kernel["choices"][0]["config"]["kwargs"][0][1] = {}
    kernel["choices"][1]["derived"] = 1
    kernel["choices"][1]["key"][0] = [1]
    kernel["choices"][1]["provenance"] = "guessed"
    kernel["binaries"][0][METADATA] = "0"
    kernel["cache_key"] = "A" * 64
    kernel["dependencies"][0]["source_sha256"] = "0"
    kernel["odd key!"] = kernel.pop("qualname")
    parts["constants"][0][0] = [[True], 1]
    parts["constants"][0][1] = [[1]]
    parts["attributes"][0][0][1] = [["tt.divisibility"]]
    parts["models"][0] = [False, "0"]
    value["target"]["capability"] = [12, 0, 0]
    value["not_covered"][0]["keys"][0] = "abc"
    value["numerics"] = None
    value["mode"] = "both"
    value["workloads"][1] = 7
    value["build"].update(commit="main", epoch=-1)
    value["blobs"][0]["size"] = -1
    value["blobs"][1]["sha256"] = "../../x"
    del value["provider"]
    scalar = "expected bool or int or number or str or null, got"
    provenances = "expected captured or default or measured or proxy or transferred"
    assert problems_of(value) == {
        "target.capability": "expected list of 2, got list of 3",
        "provider": "missing",
        "workloads[1]": "expected str, got int",
        "mode": "expected inference or train, got 'both'",
        "not_covered[0].keys[0]": "expected list, got str",
        "numerics": "expected object, got null",
        "build.commit": "'main' does not match ^[0-9a-f]{40}$",
        "build.epoch": "expected at least 0, got -1",
        "blobs[0].size": "expected at least 0, got -1",
        "blobs[1].sha256": "'../../x' does not match ^[0-9a-f]{64}$",
        "parts.constants[0][0][0][0]": "expected int, got bool",
        "parts.constants[0][1]": "expected list of 2, got list of 1",
        "parts.attributes[0][0][1][0]": "expected list of 2, got list of 1",
        "parts.models[0][0]": "expected int, got bool",
        "parts.models[0][1]": "expected int, got str",
        "kernels[1]['odd key!']": "unknown key; known are module, qualname, cache_key, source_sha256, "
        "sources, dependencies, globals, relaxations, choices, binaries",
        "kernels[1].qualname": "missing",
        "kernels[1].cache_key": f"'{'A' * 64}' does not match ^[0-9a-f]{{64}}$",
        "kernels[1].dependencies[0].source_sha256": r"'0' does not match ^([0-9a-f]{64})?(?![\s\S])",
        "kernels[1].choices[0].config.kwargs[0][1]": f"{scalar} object",
        "kernels[1].choices[0].config.num_warps": "expected int, got str",
        "kernels[1].choices[1].derived": "expected bool, got int",
        "kernels[1].choices[1].key[0]": f"{scalar} list",
        "kernels[1].choices[1].provenance": f"{provenances}, got 'guessed'",
        "kernels[1].binaries[0][5]": "expected int, got str",
    }


def test_contradictions_are_reported_with_their_path() -> None:
    value = plain()
    value["identifier"] = "fla0.6.0-triton3.6.0-sm_121"
    value["target"]["capability"] = [9, 0]
    value["provider"]["license_files"][0].update(path="/etc/passwd", blob="f" * 64)
    first, second = value["kernels"]
    second["qualname"] = first["qualname"]
    first["sources"][0]["path"] = "a/../b"
    first["choices"][0]["key"], first["choices"][1]["key"] = [1, "x"], [True, "x"]
    first["choices"][0]["config"]["kwargs"] *= 2
    first["binaries"][1][KEY] = first["binaries"][0][KEY]
    first["binaries"][1][METADATA] = 1
    second["binaries"][0][BLOB] = -1
    parts = value["parts"]
    parts["signature"][0]["h"] = ["*fp32", 3]
    parts["options"] *= 2
    value["blobs"].append(value["blobs"][-1])
    path = "expected a relative path with forward slashes, without . and .."
    assert problems_of(value) == {
        "identifier": "is not what the fields below give, 'fla0.6.0-triton3.6.0-sm_120'",
        "target.capability": "[9, 0] is not that of 'sm_120'",
        "provider.license_files[0].path": path,
        "provider.license_files[0].blob": f"blob {'f' * 64} is not in the blob table",
        "kernels[1]": "is the same as that of kernels[0]",
        "kernels[0].sources[0].path": path,
        "kernels[0].choices[1].key": "is the same as that of kernels[0].choices[0]",
        "kernels[0].choices[0].config.kwargs[2][0]": "is the same as that of kernels[0].choices[0].config.kwargs[0]",
        "kernels[0].choices[0].config.kwargs[3][0]": "is the same as that of kernels[0].choices[0].config.kwargs[1]",
        "kernels[0].binaries[1][0]": "is the same as that of kernels[0].binaries[0]",
        "kernels[0].binaries[1][5]": "expected a number from 0, below 1",
        "kernels[1].binaries[0][9]": "expected a number from 0, below 4",
        "parts.options[1]": "is the same as that of parts.options[0]",
        "parts.signature[0].h": "expected str or list of them, got list",
        "blobs[3].sha256": "is the same as that of blobs[2]",
    }


def _users(models: list[int], workloads: list[int]) -> Callable[[Any], None]:
    return lambda value: value["parts"].update(models=[models], workloads=[workloads])


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (lambda v: v["blobs"].append({"sha256": "f" * 64, "size": 1}), {"blobs[3]": "nothing refers to it"}),
        (lambda v: v["blobs"].reverse(), {"blobs[0]": "nothing refers to it"}),
        (lambda v: v["parts"]["options"].append({}), {"parts.options[1]": "nothing refers to it"}),
        (
            lambda v: [
                v["parts"]["metadata"].insert(0, {**v["parts"]["metadata"][0], "num_stages": 2}),
                v["kernels"][1]["binaries"][0].__setitem__(METADATA, 1),
            ],
            {},
        ),
        (
            lambda v: [v["parts"]["options"].append({}), v["kernels"][0]["binaries"][0].__setitem__(4, 1)],
            {"parts.options[0]": "is referred to after one behind it"},
        ),
        (_users([0, 0], [0, 1]), {"parts.models[0]": "expected indices in rising order, each once"}),
        (_users([0], [1, 0]), {"parts.workloads[0]": "expected indices in rising order, each once"}),
        (_users([0], [-1, 0]), {"parts.workloads[0]": "expected indices from 0, below 2"}),
        (_users([1], [0]), {"parts.models[0]": "expected indices from 0, below 1"}),
        (_users([0], [0, 2]), {"parts.workloads[0]": "expected indices from 0, below 2"}),
        (_users([], [0]), {f"kernels[{place}][7]": "is empty" for place in EVERY_BINARY}),
        (_users([0], []), {f"kernels[{place}][8]": "is empty" for place in EVERY_BINARY}),
        (lambda v: v["blobs"][0].update(size=4 << 20) or v["blobs"][1].update(size=4 << 20), {}),
    ],
)  # fmt: skip
def test_numbers_of_parts_and_blobs(change: Callable[[Any], object], problems: dict[str, str]) -> None:
    value = plain()
    change(value)
    if problems:
        assert problems_of(value) == problems
    else:
        assert to_json(load_manifest(dump(value))) == dump(value)


def test_identifier_is_a_file_name() -> None:
    value = plain()
    value["provider"]["version"] = "/../../x"
    value["identifier"] = "fla/../../x-triton3.6.0-sm_120"
    (what,) = problems_of(value).values()
    assert what.startswith("'fla/../../x-triton3.6.0-sm_120' does not match")


SOUND = to_json(factory.full_manifest())
OTHER_FORM = "is not written as gdn-aot writes it: from byte"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is not JSON: Expecting value at character 0"),
        (b"{" * 5, "is not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b'"\xff"', "is not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[]", "expected object, got list"),
        (b'{"format": NaN}', "is not JSON: NaN is not a JSON number"),
        (b"[" * 1_500_000, "is nested too deep"),
        (b"[" * 2_000_001, "has more than 2000000 brackets and commas"),
        (b" " * ((32 << 20) + 1), "is larger than 33554432 bytes"),
        (SOUND.replace(b'"format":1', b'"format":1,"format":1'), f"{OTHER_FORM} 13 on"),
        (SOUND.replace(b'"dirty":false', b'"dirty":true,"dirty":false'), OTHER_FORM),
        (SOUND[:-1], OTHER_FORM),
        (SOUND.replace(b":", b": ", 1), OTHER_FORM),
        (SOUND.replace(b"MIT", b"\\u004dIT"), OTHER_FORM),
        (SOUND.replace(b'"num_ctas":1,"maxnreg"', b'"maxnreg"', 1), OTHER_FORM),
        (SOUND.replace(b'"tp":1,', b'"tp":1.0,'), "tp"),
        (SOUND.replace(b'[64,"a"]', b"[64e0]"), OTHER_FORM),
        (SOUND.replace(b'"tensordesc_meta":[]', b'"tensordesc_meta":["\\ud800"]'), "surrogate"),
        (SOUND.replace(b'"shared":65536,"num', b'"shared":1e999,"num'), "number out of range"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_another_form(data: bytes, what: str) -> None:
    ((where, found),) = problems_of(data).items()
    assert what in (f"{where} {found}" if what == "tp" else found)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"{}", "missing"),
        (b'{"format": "1"}', "expected int, got str"),
        (b'{"format": true}', "expected int, got bool"),
    ],
)
def test_the_format_is_looked_at(data: bytes, what: str) -> None:
    assert problems_of(data)["format"] == what
    assert "format" in problems_of(b'{"format": %s}' % (b"9" * 5000))


@pytest.mark.parametrize("version", [0, 2, 10**40])
def test_unknown_format(version: int) -> None:
    with pytest.raises(UnknownFormatError) as caught:
        load_manifest(b'{"format": %d, "identifier": 7}' % version)
    assert [problem.where for problem in caught.value.problems] == ["format"]


@pytest.mark.parametrize("part", ["metadata", "options", "constants", "attributes", "signature"])
def test_deep_and_large_values(part: str) -> None:
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested]
    for bad, what in ((nested, "is nested deeper than 32 levels"), (10**30, "holds an integer of more than 64 bits")):
        value = plain()
        entry = value["parts"][part][0]
        if isinstance(entry, dict):
            entry["x"] = bad
        else:
            entry[0][1] = bad if part == "constants" else [["x", bad]]
        assert problems_of(value)[f"parts.{part}[0]"] == what


@pytest.mark.parametrize("depth", [500, 900, 960, 990, 1000, 5000])
def test_as_deep_as_the_decoder_goes(depth: int) -> None:
    data = SOUND.replace(b'"tensordesc_meta":[]', b'"tensordesc_meta":' + b"[" * depth + b"]" * depth)
    assert "deep" in str(problems_of(data)) or "recursion" in str(problems_of(data))


def test_a_thousand_problems_are_listed() -> None:
    value = plain()
    value["workloads"] = [1] * 5000
    problems = problems_of(value)
    assert len(problems) == 1001
    assert problems[""] == "there are more than 1000 problems"


def test_of_a_very_large_file_the_first_problem_is_listed() -> None:
    value = plain()
    value["workloads"] = [1] * 600_000
    assert problems_of(value) == {"workloads[0]": "expected `str`, got `int`"}


def captured() -> Any:
    """A manifest of which one binary is known from a capture alone."""
    value = plain()
    value["workloads"].append("capture-0123abcd")
    value["identifier"] += "-capture-0123abcd"
    value["parts"].update(models=[[], [0]], workloads=[[2], [0, 1]])
    for row in (value["kernels"][0]["binaries"][1], value["kernels"][1]["binaries"][0]):
        row[MODELS] = row[WORKLOADS] = 1
    return value


def test_a_captured_binary_needs_no_model_and_the_identifier_names_the_capture() -> None:
    value = captured()
    parsed = load_manifest(dump(value))
    assert parsed.kernels[0].binaries[0].models == ()
    value["identifier"] = plain()["identifier"]
    assert list(problems_of(value)) == ["identifier"]


def test_a_binary_that_a_workload_launches_needs_a_model() -> None:
    value = captured()
    value["parts"]["workloads"][0] = [0]
    assert problems_of(value) == {"kernels[0].binaries[0][7]": "is empty"}

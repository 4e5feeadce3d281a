"""The matrix file: what is read, what is refused, and with which words."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matrices import PUBLISHED, SMALL, changed, made, published, toml

from gdn_aot.artifact.names import make_identifier
from gdn_aot.catalogue import targets
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import all_targets, assembler_version, assemblers, get_target, release_refusal
from gdn_aot.errors import MatrixError, UsageError
from gdn_aot.matrix import form, load
from gdn_aot.matrix.load import check_requirements, parse


def refused(document: dict[str, Any]) -> dict[str, str]:
    """Return the problems of a document that must be refused, by path."""
    with pytest.raises(MatrixError) as caught:
        made(document)
    assert caught.value.exit_code == 2
    return {problem.where: problem.what for problem in caught.value.problems}


VLLM = PROVIDERS["vllm"].versions


def test_the_published_matrix() -> None:
    matrix = load(PUBLISHED)
    check_requirements(matrix)
    rows = {row.identifier: row for row in matrix.rows}
    names = [target.name for target in all_targets()]
    expected = [make_identifier("fla", "0.6.0", triton, name) for triton in ("3.6.0", "3.8.0") for name in names]
    newest = {tuple(map(int, one.version.split(".")[:2])): one for one in sorted(VLLM, key=lambda one: one.version)}
    for release in newest.values():
        if not release.same_as:
            made = (make_identifier("vllm", release.version, release.triton, name) for name in names)
            expected += [one for one in made if not one.endswith("sm_70")]
    for version, triton in (("0.5.17", "3.6.0"), ("0.5.23", "3.8.0")):
        made = (make_identifier("sglang", version, triton, name) for name in names)
        expected += [one for one in made if not one.endswith(("sm_70", "sm_75"))]
    assert sorted(rows) == sorted(expected)
    assert len(matrix.rows) == 20 + 16 * 9 + 2 * 8
    assert {(row.table.models, row.table.tp, row.table.max_tokens) for row in matrix.rows} == {
        (("all",), (1, 2, 4, 8), 262144)
    }


def test_rows_are_expanded_and_defaults_come_from_the_file() -> None:
    matrix = made(SMALL)
    assert [(row.identifier, row.table.models, row.table.tp, row.table.max_tokens) for row in matrix.rows] == [
        ("fla0.6.0-triton3.6.0-sm_70", ("qwen3.5-9b",), (1, 2), 8192),
        ("fla0.6.0-triton3.6.0-sm_90", ("qwen3.5-9b",), (1, 2), 8192),
        ("vllm0.33.0-triton3.8.0-sm_90", ("all",), (8,), 64),
    ]
    assert matrix.include(matrix.rows[2]) == {
        "identifier": "vllm0.33.0-triton3.8.0-sm_90",
        "provider": "vllm",
        "provider_version": "0.33.0",
        "triton": "3.8.0",
        "arch": "sm_90",
        "runner": "ubuntu-24.04",
        "requirements": "b.txt",
        "python": "3.11",
        "models": "all",
        "tp": "8",
        "max_tokens": 64,
    }
    document = changed(("environment", 1, "runner"), "large")
    document["environment"][1]["python"] = "3.12"
    row = made(document).rows[2]
    assert (row.environment.runner, row.environment.python) == ("large", "3.12")


FORM = [
    (("artifacts",), [], "artifacts", "unknown key; did you mean artifact?"),
    (("format",), ..., "format", "missing"),
    (("format",), 2, "format", "expected 1, got 2"),
    (("defaults", "tp"), ..., "defaults.tp", "missing"),
    (("defaults", "tp"), [1, 2, 1], "defaults.tp[2]", "1 occurs twice"),
    (("defaults", "pyton"), "3.11", "defaults.pyton", "did you mean python?"),
    (("environment",), [], "environment", "expected list of at least 1, got list of 0"),
    (("environment", 0, "name"), "A b", "environment[0].name", "lower-case letters"),
    (("environment", 0, "name"), "a\n", "environment[0].name", "lower-case letters"),
    (("environment", 0, "triton"), 3.6, "environment[0].triton", "expected str, got float"),
    (("environment", 0, "triton"), "latest", "environment[0].triton", "a version such as 3.6.0"),
    (("environment", 0, "python"), "4.1", "environment[0].python", "a version of Python"),
    (("environment", 0, "runner"), "${{ x }}", "environment[0].runner", "a label"),
    (("environment", 0, "requirements"), "a b; rm", "environment[0].requirements", "a path of letters"),
    (("artifact", 0, "targets"), ..., "artifact[0].targets", "missing"),
    (("artifact", 0, "targets"), [], "artifact[0].targets", "expected list of at least 1, got list of 0"),
    (("artifact", 0, "targets", 0), "90", "artifact[0].targets[0]", "a target such as sm_90"),
    (("artifact", 0, "targets", 1), "sm_70", "artifact[0].targets[1]", "occurs twice"),
    (("artifact", 0, "tp"), [], "artifact[0].tp", "expected list of at least 1, got list of 0"),
    (("artifact", 0, "tp"), [0], "artifact[0].tp[0]", "expected at least 1, got 0"),
    (("artifact", 0, "tp"), [1, True], "artifact[0].tp[1]", "got bool"),
    (("artifact", 0, "max_tokens"), 0, "artifact[0].max_tokens", "expected at least 1, got 0"),
    (("artifact", 0, "max_tokens"), 1 << 31, "artifact[0].max_tokens", "expected less than 2147483648"),
    (("artifact", 0, "models"), ["x y"], "artifact[0].models[0]", "lower-case letters"),
]


@pytest.mark.parametrize(("steps", "value", "where", "what"), FORM)
def test_what_is_wrong_in_form(steps: tuple[Any, ...], value: Any, where: str, what: str) -> None:
    problems = refused(changed(steps, value))
    assert what in problems[where]
    assert len(problems) == 1


MEANING = [
    (("environment", 0, "provider"), "flaa", "environment[0].provider", "did you mean fla?"),
    (("environment", 0, "version"), "0.6.1", "environment[0].version", "did you mean 0.6.0?"),
    (("environment", 0, "triton"), "3.10.0", "environment[0].triton", "3.6 to 3.9 are"),
    (("environment", 1, "triton"), "3.6.0", "environment[1].triton", "vllm 0.33.0 does not run with Triton 3.6.0"),
    (("environment", 1, "triton"), "3.6.0", "environment[1].triton", "torch 2.14.0, which asks for triton ~=3.8.0"),
    (("environment", 1, "version"), "0.24.0", "environment[1].triton", "it requires 3.6.0"),
    (("environment", 1, "python"), "3.10", "environment[1].python", "requires Python 3.11"),
    (("environment", 1, "name"), "a", "environment[1].name", "another environment is named 'a'"),
    (("artifact",), SMALL["artifact"][:1], "environment[1].name", "no artifact is built in 'b'"),
    (("artifact", 0, "environments"), ["aa"], "artifact[0].environments[0]", "did you mean a?"),
    (("artifact", 0, "targets", 0), "sm_91", "artifact[0].targets[0]", "did you mean sm_90?"),
    (("artifact", 1, "targets"), ["sm_70"], "artifact[1].targets[0]", "itself does not run on sm_70"),
    (("artifact", 0, "models", 0), "qwen3.5-9c", "artifact[0].models[0]", "did you mean qwen3.5-9b?"),
    (("artifact", 0, "models"), ["all", "qwen3.5-9b"], "artifact[0].models", "all stands alone"),
    (("artifact", 0, "tp"), [1, 7], "artifact[0].models[0]", "which 7 does not divide"),
    (("artifact", 1, "tp"), [1, 7], "artifact[1].tp[1]", "7 divides the heads of no model"),
    (("artifact", 1, "environments"), ["a"], "artifact[1].targets[0]", "is an artifact of artifact[0] already"),
]


@pytest.mark.parametrize(("steps", "value", "where", "what"), MEANING)
def test_what_cannot_be(steps: tuple[Any, ...], value: Any, where: str, what: str) -> None:
    assert what in refused(changed(steps, value))[where]


def test_a_named_model_exists_in_every_size() -> None:
    document = changed(("artifact", 0, "models"), ["qwen3.5-9b", "olmo-hybrid-7b"])
    assert made(document).rows[0].table.models == ("qwen3.5-9b", "olmo-hybrid-7b")
    document["artifact"][0]["tp"] = [1, 4]
    assert refused(document) == {"artifact[0].models[1]": "olmo-hybrid-7b has 30 key heads, which 4 does not divide"}


def test_every_problem_is_named_at_once() -> None:
    document = changed(("environment", 1, "triton"), "3.6.0")
    document["artifact"][0]["targets"] = ["sm_91", "sm_92"]
    document["artifact"][0]["models"] = ["nothing"]
    assert set(refused(document)) == {
        "environment[1].triton",
        "artifact[0].targets[0]",
        "artifact[0].targets[1]",
        "artifact[0].models[0]",
    }


def test_one_environment_under_two_names_is_a_duplicate() -> None:
    document = changed(("artifact", 1, "environments"), ["c"])
    document["environment"].append({**SMALL["environment"][0], "name": "c"})
    assert (
        "fla0.6.0-triton3.6.0-sm_90 is an artifact of artifact[0] already"
        in refused(document)["artifact[1].targets[0]"]
    )


def test_sm_70_where_ptxas_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """No supported Triton is such a one; its next may be: ptxas 13 refuses sm_70, as that of 3.8 for Blackwell does."""
    made(SMALL)
    newer = {"triton": "3.6.0", "ptxas": "13.0.88", "ptxas_blackwell": "13.0.88", "source": "made up"}
    table = {**assemblers(), "release": [newer]}
    monkeypatch.setattr(targets, "assemblers", lambda: table)
    problems = refused(SMALL)
    assert list(problems) == ["artifact[0].targets[0]"]
    assert (
        "Triton 3.6.0 assembles with ptxas 13.0.88, and ptxas 13.0 dropped sm_70" in problems["artifact[0].targets[0]"]
    )


def test_what_is_known_of_assemblers_is_what_the_installed_ones_say() -> None:
    import importlib.metadata

    releases, dropped = assemblers()["release"], assemblers()["dropped"]
    installed = importlib.metadata.version("triton")
    (known,) = (row for row in releases if row["triton"] == installed)
    assert assembler_version(get_target("sm_90")) == known["ptxas"]
    assert assembler_version(get_target("sm_100")) == known["ptxas_blackwell"]
    assert {row["target"] for row in dropped} <= {target.name for target in all_targets()}
    assert all(release_refusal(target, row["triton"]) is None for target in all_targets() for row in releases)


@pytest.mark.parametrize("data", [b"format = ", b"\xff", b"[" * 9000, b"a = 1\na = 2"])
def test_what_is_not_toml(data: bytes) -> None:
    with pytest.raises(MatrixError, match="is not TOML"):
        parse(data, Path("matrix.toml"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot read the matrix") as caught:
            load(path)
        assert "--matrix" in caught.value.hint


def test_pins_must_agree_with_the_matrix(tmp_path: Path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_bytes(toml(SMALL))
    (tmp_path / "a.txt").write_text("# comment\n--no-binary x\nFLA_core==0.6.0  # here\ntriton==3.6.0\ntorch>=2\n")
    (tmp_path / "b.txt").write_text("vllm==0.24.0\n")
    with pytest.raises(MatrixError) as caught:
        check_requirements(load(path))
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == 3
    assert "environment[0].requirements" in found[0]
    assert "'torch>=2', which pins nothing" in found[0]
    assert "pins vllm 0.24.0, but b is vllm 0.33.0" in found[1]
    assert "pins no triton, but b is triton 3.8.0" in found[2]
    (tmp_path / "b.txt").unlink()
    with pytest.raises(MatrixError) as caught:
        check_requirements(load(path))
    assert any("No such file" in problem.what for problem in caught.value.problems)


def test_the_schema_takes_the_published_matrix() -> None:
    jsonschema.Draft202012Validator.check_schema(form.FORM.schema())
    for document in (published(), SMALL):
        jsonschema.validate(document, form.FORM.schema())


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to everything in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(place for key, item in inner for place in places(item, (*at, key)))]


WORDS = ["", "a", "sm_90", "sm_9", "3.6.0", "3.11", "all", "A", "a b", "1", "../x.txt", "ubuntu-24.04", "x" * 65, "_"]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 1 << 32), st.just(1.5), st.sampled_from(WORDS)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "tp", "x", "targets"]), inner, max_size=2)
    ),
    max_leaves=4,
)
EDIT = st.tuples(st.sampled_from(places(SMALL)), st.one_of(st.just(...), VALUES))


@given(EDIT, st.sampled_from(["", "format", "extra", "tp", "runner"]))
def test_a_file_of_another_form_is_refused_with_a_path(edit: tuple[tuple[Any, ...], Any], added: str) -> None:
    document = changed(*edit)
    if added and isinstance(document.get("defaults"), dict):
        document["defaults"].setdefault(added, "3.11")
    try:
        found, problems = form.read(document, Path("matrix.toml")), ()
    except MatrixError as error:
        found, problems = None, error.problems
    assert (found is None) == bool(problems)
    assert all(problem.where for problem in problems)
    if found is not None:
        jsonschema.validate(document, form.FORM.schema())
        assert found.environment[0].python
        assert found.artifact[0].tp

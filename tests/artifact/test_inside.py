"""What verification finds inside: cubins, launch keys, metadata, choices, modules."""

import time
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any

import factory
import pytest
from cubins import make_cubin
from factory import CUBINS, KEY, NAME, OTHER, dump, plain
from msgspec.structs import replace

from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.manifest_json import load_manifest
from gdn_aot.artifact.verify import examine, open_artifact
from gdn_aot.errors import VerificationError

# ---- Cubins ----

SIZES = (8, 8, 4, 4, 8, 8)
GOOD: dict[str, Any] = {"arch": 120, "parameters": SIZES, "threads": 128, "registers": 168}


def with_cubin(cubin: bytes, path: Path) -> Path:
    """Write an artifact in which one binary has this cubin."""
    manifest = factory.make_manifest()
    first, second = manifest.kernels
    first = replace(first, binaries=(first.binaries[0], replace(first.binaries[1], cubin=factory.sha256(cubin))))
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, CUBINS[0], cubin)}
    return write_artifact(replace(manifest, kernels=(first, second)), blobs, path).path


@pytest.mark.parametrize(
    ("cubin", "what"),
    [
        (b"", "is cut short or malformed"),
        (b"MIT License" * 100, "is not a cubin"),
        (CUBINS[1][:-64], "is cut short or malformed"),
        (make_cubin("other", **GOOD), f"holds no kernel {NAME}"),
        (make_cubin(NAME, **GOOD | {"arch": 90}), "is of sm_90, not sm_120"),
        (make_cubin(NAME, **GOOD | {"parameters": SIZES[:-1]}), "takes parameters of 8, 8, 4, 4, 8 bytes, but"),
        (make_cubin(NAME, **GOOD | {"parameters": (8, 8, 8, 4, 8, 8)}), "takes parameters of 8, 8, 8, 4, 8, 8 bytes"),
        (make_cubin(NAME, **GOOD | {"parameters": ()}), "takes parameters of no bytes, but a signature has 8, 8"),
        (make_cubin(NAME, **GOOD | {"threads": 256}), "is for blocks of 256 threads, not 128"),
        (make_cubin(NAME, **GOOD | {"registers": 167}), "takes 167 registers and 0 bytes of local memory, not 168"),
        (make_cubin(NAME, **GOOD | {"local": 8}), "takes 168 registers and 8 bytes of local memory, not 168 and 0"),
    ],
)  # fmt: skip
def test_a_cubin_is_what_the_manifest_says(cubin: bytes, what: str, tmp_path: Path) -> None:
    path = with_cubin(cubin, tmp_path / "a.tar.zst")
    (problem,) = examine(path).problems
    assert (problem.where, problem.what[: len(what)]) == (f"blobs/{factory.sha256(cubin)}", what)
    with pytest.raises(VerificationError, match="is not a sound artifact"):
        list(open_artifact(path, lazy=True).iter_blobs())


def test_a_cubin_that_two_binaries_share_is_what_both_say(tmp_path: Path) -> None:
    manifest = factory.make_manifest()
    first, second = manifest.kernels
    (binary,) = second.binaries
    other = replace(binary, metadata={**binary.metadata, "num_warps": 8})
    manifest = replace(manifest, kernels=(first, replace(second, binaries=(other,))))
    path = write_artifact(manifest, factory.make_blobs(), tmp_path / "a.tar.zst").path
    assert [problem.what for problem in examine(path).problems] == ["is for blocks of 128 threads, not 256"]


def test_a_kernel_that_says_no_number_of_threads(tmp_path: Path) -> None:
    path = with_cubin(make_cubin(NAME, **GOOD | {"threads": None}), tmp_path / "a.tar.zst")
    assert examine(path).problems == []


# ---- Launch keys ----


def problems_of(value: Any) -> dict[str, str]:
    """Return where and what is wrong in a manifest, nothing if it is sound."""
    try:
        load_manifest(dump(value))
    except VerificationError as error:
        return {problem.where: problem.what for problem in error.problems}
    return {}


TYPES, CONSTANTS = "has other types than the signature", "has another value of argument"
ATTRIBUTES, OPTIONS = "has another divisibility of argument", "has other options than the specialization"
NO_KEY = "is not as Triton writes it"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("'i32', ''", "'i32', 1", ""),
        ("'i32', ''", "'i64', ''", TYPES),
        ("'*bf16', 'D'", "'*fp16', 'D'", TYPES),
        ("('*fp32', 'i32'), ('D', '')", "('*fp32', 'i64'), ('D', '')", TYPES),
        ("('i32', ''), ", "", TYPES),
        ("'silu')", "'silu'), ('constexpr', 1)", TYPES),
        ("'constexpr', 128", "'constexpr', 64", CONSTANTS),
        ("'constexpr', 128", "'constexpr', 128.0", CONSTANTS),
        ("'constexpr', None", "'constexpr', False", CONSTANTS),
        ("'silu'", "'si' 'lu'", CONSTANTS),
        ("'silu'", '"silu"', CONSTANTS),
        ("'silu'", "torch.silu", ""),  # a text that does not say what the value is
        ("'silu'", "<function silu at 0x7f>", ""),
        ("'*bf16', 'D'", "'*bf16', ''", ATTRIBUTES),
        ("'i32', ''", "'i32', 'D'", ATTRIBUTES),
        ("'num_warps': 4", "'num_warps': 8", OPTIONS),
        (", 'maxnreg': None", "", OPTIONS),
        ("'debug': False", "'debug': True", OPTIONS),
        (", 'debug': False", "", ""),
        ("'instrumentation_mode': ''}", "'instrumentation_mode': 'x'}", OPTIONS),
        ("}", "", NO_KEY),
        ("[(", "((", NO_KEY),
        (", ('i32'", ",('i32'", NO_KEY),
        ("('i32'", "((('i32'", NO_KEY),
        ("'silu'", "'silu", NO_KEY),
        (KEY, "", NO_KEY),
        (KEY, "[]{}", TYPES),
        (KEY, "x" * 20_000, "is longer than 16384 characters"),
    ],
)  # fmt: skip
def test_a_launch_key_says_what_was_compiled(old: str, new: str, what: str) -> None:
    value = plain()
    row = value["kernels"][1]["binaries"][0]
    assert row[0].count(old) == 1
    row[0] = row[0].replace(old, new)
    found = problems_of(value)
    assert list(found) == (["kernels[1].binaries[0][0]"] if what else [])
    assert "".join(found.values()).startswith(what)


@pytest.mark.parametrize(("stages", "problems"), [(128, set()), (64, {OPTIONS})])
def test_an_option_that_is_a_constexpr_too_is_an_argument_of_the_key(stages: int, problems: set[str]) -> None:
    """Such a kernel is compiled with the option, and its launch key has it once."""
    value = plain()
    parts = value["parts"]
    parts["signature"] = [
        {"num_stages" if name == "D" else name: kind for name, kind in signature.items()}
        for signature in parts["signature"]
    ]
    for options in parts["options"]:
        options["num_stages"] = stages
    assert set(problems_of(value).values()) == problems


@pytest.mark.parametrize("constant", ["it's", 'a "word"', "a), (b", "]{", "\\", "\n", -1.5, 0.25, True, -(2**63), ""])
def test_any_constant_is_found_in_the_key(constant: Any) -> None:
    value = plain()
    value["parts"]["constants"][0][-1][1] = constant
    for kernel in value["kernels"]:
        for row in kernel["binaries"]:
            row[0] = row[0].replace("'silu'", repr(constant))
    assert problems_of(value) == {}
    row[0] = row[0].replace(repr(constant), "'other'")
    assert list(problems_of(value)) == ["kernels[1].binaries[0][0]"]


@pytest.mark.parametrize("constants", [[], [[[3], 128]], [[[3], 128], [[3], 128], [[4], 64], [[5], None]]])
def test_each_constexpr_has_one_value(constants: Any) -> None:
    value = plain()
    value["parts"]["constants"][0] = constants
    assert set(problems_of(value).values()) == {
        "is of a specialization that has no value for just the constexprs of its signature"
    }


def test_many_unusual_keys_end_early() -> None:
    value, odd = plain(), "<" + "()" * 4000 + ">"
    kernel = value["kernels"][0]
    rows = [row for row in kernel["binaries"] if row[0] == OTHER] * 1500
    kernel["binaries"] = [[row[0].replace("'silu'", f"<{n}{odd}"), *row[1:]] for n, row in enumerate(rows)]
    value["blobs"] = value["blobs"][:1] + value["blobs"][2:] + value["blobs"][1:2]
    for row in kernel["binaries"]:
        row[-1] = 1
    value["kernels"][1]["binaries"][0][-1] = 2
    start = time.process_time()
    found = problems_of(value)
    assert set(found.values()) == {NO_KEY, "there are more than 1000 problems"} or set(found.values()) == {NO_KEY}
    assert time.process_time() - start < 5


# ---- Metadata, resources and types ----


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda made: made.pop("name"), ".name"),
        (lambda made: made.update(name="a b"), ".name"),
        (lambda made: made.update(name=["a"]), ".name"),
        (lambda made: made.update(shared=1 << 20), ".shared"),
        (lambda made: made.update(num_warps=0), ".num_warps"),
        (lambda made: made.update(num_warps=4.0), ".num_warps"),
        (lambda made: made.update(num_warps=True), ".num_warps"),
        (lambda made: made.update(num_ctas=17), ".num_ctas"),
        (lambda made: made.pop("launch_pdl"), ".launch_pdl"),
        (lambda made: made.update(launch_cooperative_grid=0), ".launch_cooperative_grid"),
        (lambda made: made.update(global_scratch_size=-1), ".global_scratch_size"),
        (lambda made: made.update(more={"a": 1}), ".more"),
        (lambda made: made.update({"a b": 1}), ""),
        (lambda made: made.update({"class": 1}), ""),
        (lambda made: made.update(_fields=1), ""),
        (lambda made: made["target"].update(arch=90), ".target"),
        (lambda made: made["target"].update(more=1), ".target"),
    ],
)
def test_metadata_are_what_launching_needs(change: Callable[[Any], object], where: str) -> None:
    value = plain()
    change(value["parts"]["metadata"][0])
    assert list(problems_of(value)) == [f"parts.metadata[0]{where}"]


def test_resources_agree_with_metadata() -> None:
    value = plain()
    value["parts"]["resources"][0]["shared"] = 1
    assert set(problems_of(value).values()) == {"shared is not that of the metadata"}


def test_types_are_those_of_triton() -> None:
    value = plain()
    value["parts"]["signature"][0]["T"] = "int"
    assert problems_of(value) == {"parts.signature[0].T": "int is no type of Triton's"}


# ---- Choices ----


@pytest.mark.parametrize(
    ("place", "bad"),
    [
        ("num_warps", [0, 3, 64, -4, 2**63 - 1]),
        ("num_stages", [-1, 17, 2**63 - 1]),
        ("num_ctas", [0, 17]),
        ("maxnreg", [0, 256, -1]),
        ("kwargs[0][0]", ["", "a b", "1a", "lambda", "ä", "x" * 300]),
        ("kwargs[0][1]", [2**31, -(2**31) - 1, "x" * 65]),
    ],
)
def test_choices_are_what_triton_can_launch(place: str, bad: list[Any]) -> None:
    for wrong in bad:
        value = plain()
        config = value["kernels"][1]["choices"][0]["config"]
        value["kernels"][1]["binaries"][0][0:1] = [KEY]
        if place.startswith("kwargs"):
            config["kwargs"][0][int(place[-2])] = wrong
        else:
            config[place] = wrong
        assert f"kernels[1].choices[0].config.{place}" in problems_of(value), wrong


@pytest.mark.parametrize("name", ["k", "T", "BT", "num_warps", "h"])
def test_choices_set_constexprs_of_the_kernel(name: str) -> None:
    value = plain()
    value["kernels"][1]["choices"][0]["config"]["kwargs"][0][0] = name
    what = "is no constexpr of every binary of the kernel"
    assert problems_of(value) == {"kernels[1].choices[0].config.kwargs[0][0]": what}


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0, False), (0.0, -0.0), (True, 1.0)])
def test_keys_that_triton_takes_for_equal_are_one(one: Any, other: Any) -> None:
    value = plain()
    for choice, item in zip(value["kernels"][0]["choices"], (one, other), strict=True):
        choice["key"] = [7, item, "x"]
    assert problems_of(value) == {"kernels[0].choices[1].key": "is the same as that of kernels[0].choices[0]"}


@pytest.mark.parametrize(("one", "other"), [(1, "1"), (None, "None"), (1, 1.5), (2**53 + 1, float(2**53)), (0, None)])
def test_keys_that_differ(one: Any, other: Any) -> None:
    value = plain()
    for choice, item in zip(value["kernels"][0]["choices"], (one, other), strict=True):
        choice["key"] = [7, item, "x"]
    assert problems_of(value) == {}


MODULUS = (1 << 61) - 1
"""Integers that differ by it have one hash."""


def colliding(count: int) -> list[list[int]]:
    """Return autotune keys that all have one hash."""
    return [[7 + MODULUS * step for step in steps] for steps in islice(product(range(4), repeat=9), count)]


@pytest.mark.parametrize("count", [4000, 80_000])
def test_keys_of_one_hash_cost_no_time(count: int) -> None:
    keys = colliding(count)
    assert len({hash(tuple(key)) for key in keys}) == 1
    value = plain()
    choice = value["kernels"][1]["choices"][0]
    choice["config"]["kwargs"] = []
    value["kernels"][1]["choices"] = [{**choice, "key": key} for key in keys]
    data = dump(value)
    start = time.process_time()
    if count > 4096:
        with pytest.raises(VerificationError) as caught:
            load_manifest(data)
        assert [str(problem) for problem in caught.value.problems] == ["kernels[1].choices: are more than 4096"]
    else:
        load_manifest(data)
    assert time.process_time() - start < 1


def test_numbers_and_constants_of_one_hash_cost_no_time() -> None:
    value = plain()
    rows = value["kernels"][0]["binaries"]
    value["kernels"][0]["binaries"] = [[f"{n}", *[7 + MODULUS * (n % 4)] * 8, 1] for n in range(20_000)]
    value["parts"]["constants"][0] = [[[3 + MODULUS], 7 + MODULUS * (n % 4)] for n in range(20_000)]
    start = time.process_time()
    assert problems_of(value)
    assert time.process_time() - start < 3
    assert rows


# ---- Modules ----


@pytest.mark.parametrize("module", ["os", "vllm.model_executor", "flab", "triton.language", "", "torch._inductor.x"])
def test_kernels_are_of_the_package_of_the_provider(module: str) -> None:
    value = plain()
    value["kernels"][1]["module"] = module
    assert problems_of(value) == {"kernels[1].module": "is not in the package fla of the provider"}


def test_a_provider_that_is_not_known_is_refused() -> None:
    value = plain()
    value["provider"]["name"] = "nobody"
    value["identifier"] = value["identifier"].replace("fla", "nobody")
    assert problems_of(value) == {"provider.name": "'nobody' is no known provider"}


# ---- Limits ----


def test_an_identifier_is_short_enough_for_a_file() -> None:
    value = plain()
    value["provider"]["version"] = "1" * 300
    value["identifier"] = value["identifier"].replace("0.6.0", "1" * 300)
    assert list(problems_of(value)) == ["identifier"]


def test_blobs_are_few_and_small() -> None:
    value = plain()
    value["blobs"][1]["size"] = (4 << 20) + 1
    assert list(problems_of(value)) == ["blobs[1].size"]
    value = plain()
    value["blobs"] += [{"sha256": f"{n:064x}", "size": 4 << 20} for n in range(1 << 15)]
    assert {"are more than 32768", "are larger than 536870912 bytes together"} & {*problems_of(value).values()}


def test_an_item_of_free_json_has_few_values() -> None:
    value = plain()
    value["parts"]["metadata"][0]["tensordesc_meta"] = [1] * 2000
    assert problems_of(value) == {"parts.metadata[0]": "has more than 1024 values"}

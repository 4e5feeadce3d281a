"""Reading capture files and the files that processes write: what is wrong is named with its path."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gdn_aot.capture.form import FORM, load
from gdn_aot.capture.merge import merge_folder
from gdn_aot.errors import UsageError, VerificationError


def launch(number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "target": "sm_90",
        "key": f"key {number}",
        "specialization": {
            "signature": {"x": "*fp32", "N": "constexpr"},
            "constants": [[[1], 16]],
            "attributes": [[[0], [["tt.divisibility", 16]]]],
            "options": {"num_warps": 4},
        },
        "tuning": {
            "key": [16, True, "torch.float32"],
            "config": {"kwargs": [["N", 16]], "num_warps": 4, "num_stages": 2, "num_ctas": 1, "maxnreg": None},
            "positional": 1,
            "keywords": ["N"],
        },
        **more,
    }


def plain() -> dict[str, Any]:
    return {
        "format": 1,
        "tool": "gdn-aot 0",
        "triton": "3.6.0",
        "processes": 2,
        "packages": [{"distribution": "fla-core", "version": "0.6.0"}],
        "kernels": [
            {
                "module": "fla.ops",
                "qualname": "kernel",
                "source_sha256": "a" * 64,
                "cache_key": "b" * 64,
                "launches": [launch(processes=1), launch(1, processes=2, tuning=None)],
            }
        ],
        "left_out": [{"what": "m:k", "reason": "no"}],
    }


def dump(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def test_what_is_written_is_read() -> None:
    capture = FORM.decode(dump(plain()))
    assert FORM.encode(capture) == dump(plain())
    assert capture.launches == 2


FIRST = "kernels[0].launches[0]"


def of(capture: Any, part: str) -> Any:
    """Return a part of the first launch."""
    return capture["kernels"][0]["launches"][0][part]


BROKEN: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "missing": (lambda p: p.pop("kernels"), "kernels", "missing"),
    "unknown": (lambda p: p.update(extra=1), "extra", f"unknown key; known are {', '.join(plain())}"),
    "type": (lambda p: p["kernels"][0].update(module=1), "kernels[0].module", "expected str, got int"),
    "deep": (
        lambda p: of(p, "tuning")["config"].update(num_warps="4"),
        f"{FIRST}.tuning.config.num_warps", "expected int, got str",
    ),
    "signature": (
        lambda p: of(p, "specialization").update(signature={"x": 1}),
        f"{FIRST}.specialization.signature.x", "expected str or list of them, got int",
    ),
    "argument": (
        lambda p: of(p, "specialization").update(constants=[[[2], 0]]),
        f"{FIRST}.specialization.constants[0][0]", "expected an argument from 0, below 2",
    ),
    "digest": (
        lambda p: p["kernels"][0].update(cache_key="x"), "kernels[0].cache_key", "'x' does not match ^[0-9a-f]{64}$",
    ),
    "twice": (lambda p: p["kernels"].append(p["kernels"][0]), "kernels[1]", "occurs twice"),
    "constant": (
        lambda p: of(p, "specialization").update(constants=[[[1], {"eval": 1}]]),
        f"{FIRST}.specialization.constants[0][1]", "expected a value, {constexpr: value}, {dtype: str} or {float: str}",
    ),
    "large": (
        lambda p: of(p, "specialization")["options"].update(x=1 << 64),
        f"{FIRST}.specialization.options", "holds an integer of more than 64 bits",
    ),
    "positional": (lambda p: of(p, "tuning").update(positional=3), f"{FIRST}.tuning.positional", "expected 0 to 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named_with_its_path(name: str) -> None:
    change, where, what = BROKEN[name]
    value = plain()
    change(value)
    with pytest.raises(VerificationError) as caught:
        FORM.decode(dump(value))
    assert {problem.where: problem.what for problem in caught.value.problems}[where] == what


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_a_truncated_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / "capture.json"
    path.write_bytes(dump(plain())[:length])
    with pytest.raises(VerificationError) as caught:
        load(path)
    assert str(path) in caught.value.message
    assert "is not JSON" in caught.value.problems[0].what


@pytest.mark.parametrize("data", [b"", b"not JSON", b"[]", b'{"format": 1}', dump({**plain(), "kernels": [1] * 1002})])
def test_the_hint_is_to_record_again(data: bytes) -> None:
    with pytest.raises(VerificationError) as caught:
        FORM.decode(data)
    assert caught.value.hint == "record again: gdn-aot capture -o FILE -- CMD"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the capture"):
        load(tmp_path / "none.json")


def test_the_digest_is_of_what_is_built() -> None:
    first, other = plain(), plain()
    other["processes"], other["kernels"][0]["launches"][0]["processes"] = 9, 9
    digests = [FORM.decode(dump(value)).digest() for value in (first, other)]
    assert digests[0] == digests[1]
    other["kernels"][0]["launches"].pop()
    assert FORM.decode(dump(other)).digest() != digests[0]


HEADER = {"format": 1, "tool": "gdn-aot 0", "triton": "3.6.0"}
KERNEL = {key: plain()["kernels"][0][key] for key in ("module", "qualname", "source_sha256", "cache_key")}


def write(path: Path, *lines: Any, end: bytes = b"") -> None:
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + end)


def test_merging_counts_processes_and_keeps_what_a_killed_one_had(tmp_path: Path) -> None:
    one = {"launch": {"kernel": 0, **launch()}}
    write(tmp_path / "1.jsonl", HEADER, {"kernel": KERNEL, "number": 0}, one, {"launch": {"kernel": 0, **launch(1)}})
    write(tmp_path / "2.jsonl", HEADER, {"kernel": KERNEL, "number": 0}, one, end=b'{"launch": {"kern')
    write(tmp_path / "3.jsonl", HEADER, {"left_out": ["m:k", "no"]}, {"launch": {"kernel": 5, **launch()}})
    (tmp_path / "4.jsonl").write_bytes(b"")
    merged = merge_folder(tmp_path)
    (kernel,) = merged.capture.kernels
    assert [row.processes for row in kernel.launches] == [2, 1]
    assert merged.capture.processes == 2
    assert [item.what for item in merged.capture.left_out] == ["m:k"]
    assert merged.notes == [
        "2: 1 damaged lines are left out",
        "3: 1 damaged lines are left out",
        "4.jsonl is left out: it has no header",
    ]


def test_a_launch_stays_with_its_kernel_when_the_line_of_another_is_damaged(tmp_path: Path) -> None:
    """As a full disk leaves it: half a line, and the next one after it."""
    other = {**KERNEL, "qualname": "other"}
    write(tmp_path / "1.jsonl", HEADER, end=b'{"kernel": {"module": "m", "qual\n')
    with (tmp_path / "1.jsonl").open("ab") as file:
        for line in ({"launch": {"kernel": 0, **launch()}}, {"kernel": other, "number": 1}):
            file.write(json.dumps(line).encode() + b"\n\n")
        file.write(json.dumps({"launch": {"kernel": 1, **launch(1)}}).encode() + b"\n")
    merged = merge_folder(tmp_path)
    assert [(kernel.qualname, len(kernel.launches)) for kernel in merged.capture.kernels] == [("other", 1)]
    assert merged.notes == ["1: 2 damaged lines are left out"]


def test_processes_with_another_triton_are_left_out(tmp_path: Path) -> None:
    lines = ({"kernel": KERNEL, "number": 0}, {"launch": {"kernel": 0, **launch()}})
    write(tmp_path / "1.jsonl", {**HEADER, "triton": "3.8.0"}, *lines, {"launch": {"kernel": 0, **launch(1)}})
    write(tmp_path / "2.jsonl", HEADER, *lines)
    capture = merge_folder(tmp_path).capture
    assert (capture.triton, capture.launches) == ("3.8.0", 2)
    assert capture.left_out[0].what == "process with Triton 3.6.0"

"""``gdn-aot tune --submit`` on the simulated card, and what ``gdn-aot verify`` says of the record that it makes."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import simulated
from commands import refused
from helpers import ROOT, SUPPORT, Done, gdn_aot
from msgspec.structs import replace
from tuning_records import plain, written

from gdn_aot.compiling.cache import BuildCache
from gdn_aot.machine import card
from gdn_aot.measuring import client, contribution
from gdn_aot.records import tuning as r

MODEL, TP = "qwen3.5-0.8b", 8
TUNE = ("tune", "--model", MODEL, "--tp", TP, "--workload", "gated-norm", "--json")
PLACE = "artifacts/tuning/sm_90/fla-core-0.6.0.json"
FLA = [one for one in sorted((ROOT / "artifacts/tuning").rglob("fla-core-0.6.0.json")) if "proxy" not in one.parts]
Change = Callable[[Any], object]


@contextlib.contextmanager
def simulated_card(**options: Any) -> Iterator[None]:
    """Put the simulated card in the place of this machine's."""
    made = partial(client.Method, card="simulated:Card", options={"target": "sm_90", **options})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))
        patch.setattr(card, "probe", lambda: simulated.INFO)
        patch.setattr(client, "Method", made)
        yield


@pytest.fixture(scope="module")
def tuned(session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The record of a small model's gated norm, made for a contribution, and what the command said."""
    file = tmp_path_factory.mktemp("of somebody") / "record.json"
    with simulated_card():
        return file, gdn_aot(*TUNE, "--submit", file, home=session_home)


@pytest.fixture
def record(tuned: tuple[Path, Done], tmp_path: Path) -> Path:
    """Return a copy of it."""
    return shutil.copyfile(tuned[0], tmp_path / "record.json")


def test_from_the_card_to_a_pull_request(tuned: tuple[Path, Done], session_home: Path) -> None:
    file, done = tuned
    assert done.json["record"] == str(file)
    assert done.json["missing"] == 0
    said = done.json["submission"]
    assert (said["ok"], said["problems"], said["size"]) == (True, [], file.stat().st_size)
    assert said["record"]["device"] == {"name": simulated.INFO.name, "driver": simulated.INFO.driver}
    assert said["record"]["unasked"] == ""
    assert said["record"]["other_traffic"] == 0
    (mine,) = (one for one in said["record"]["models"] if (one["model"], one["tp"]) == (MODEL, TP))
    assert mine["missing"] == mine["keys"] - done.json["keys"] > 0, "one workload of the model"
    for line in (
        f"  install -D -m 644 '{file}' {PLACE}",
        f"  git add {PLACE}",
        "  gh pr create --fill",
        "complete: no model",
    ):
        assert line in done.err.splitlines()
    data = file.read_bytes()
    assert r.FORM.dump(r.FORM.parse(data)) == data
    for private in (str(file.parent), str(session_home), os.uname().nodename):
        assert private.encode() not in data
    verified = gdn_aot("verify", file, home=session_home).out
    assert verified.splitlines()[0].endswith(f"ok, {len(data)} bytes, sha256 {said['sha256']}")
    assert f"{MODEL} tp {TP} lacks {mine['missing']} of {mine['keys']} keys" in verified


def test_going_on_keeps_it_and_takes_paths_out(record: Path, session_home: Path) -> None:
    before = record.read_bytes()
    with simulated_card(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(r, "load", _with_note(r.load, "see /home/jane/.triton/x.ptx"))
        done = gdn_aot(*TUNE, "--submit", record, "--resume", home=session_home)
    assert done.json["submission"]["ok"]
    document = plain(r.FORM.parse(record.read_bytes()))
    notes = {choice.pop("note") for kernel in document["kernels"] for choice in kernel["choices"]}
    assert notes == {"see x.ptx"}
    expected = plain(r.FORM.parse(before))
    for kernel in expected["kernels"]:
        for choice in kernel["choices"]:
            del choice["note"]
    assert document == expected


def test_a_file_that_is_no_record_stays(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text("{}")
    with simulated_card():
        error = refused(*TUNE[:-1], "--submit", file, home=tmp_path, code=2, kind="usage")
    assert "is refused" in error["message"]
    assert file.read_text() == "{}"


def _with_note(load: Callable[..., r.TuningRecord | None], note: str) -> Callable[..., r.TuningRecord | None]:
    """Return what reads a record with another note at each choice."""

    def read(path: Path, **more: Any) -> r.TuningRecord | None:
        found = load(path, **more)
        return found and replace(
            found,
            kernels=tuple(
                replace(kernel, choices=tuple(replace(choice, note=note) for choice in kernel.choices))
                for kernel in found.kernels
            ),
        )

    return read


@pytest.mark.parametrize(
    ("options", "name"),
    [(("--prepare", "--arch", "sm_90"), "--prepare"), (("--tokens", "64"), "--tokens"), (("--rounds", "3"), "--rounds"),
     (("--dtype", "fp16"), "--dtype"), (("--max-batch", "8"), "--max-batch"), (("-o", "x"), "--output"),
     (("--weights", "64=1"), "--weights"), (("--bound", "2"), "--bound")],
)  # fmt: skip
def test_what_would_make_another_kind_of_record(options: tuple[str, ...], name: str, tmp_path: Path) -> None:
    words = ("tune", "--model", MODEL, "--submit", tmp_path / "record.json", *options)
    error = refused(*words, home=tmp_path, code=2, kind="usage")
    assert f"without {name}" in error["message"]
    assert not (tmp_path / "record.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("tune", "--model", MODEL, "--submit", tmp_path / "file/record.json")
    refused(*words, home=tmp_path, code=9, kind="not-writable")


def _choice(document: Any) -> Any:
    return document["kernels"][0]["choices"][0]


def _without_a_candidate(document: Any) -> None:
    """Leave one of the provider's candidates out, of which no score depends."""
    (kernel,) = document["kernels"]
    rows = [row["us"] for choice in kernel["choices"] for row in choice["times"]]
    needed = {choice[name] for choice in kernel["choices"] for name in ("chosen", "reference")}
    needed |= {us.index(min(us)) for us in rows}
    out = next(index for index in reversed(range(len(kernel["candidates"]))) if index not in needed)
    kernel["offered"] -= 1
    for choice in kernel["choices"]:
        for name in ("chosen", "reference"):
            choice[name] -= choice[name] > out
        for values in (choice["resources"], *(row[of] for row in choice["times"] for of in ("us", "noise"))):
            del values[out]
    del kernel["candidates"][out]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["kernels"][0].update(kernel="fla.x:y_kernel"), "launches fla.x:y_kernel"),
        (lambda it: _choice(it)["key"].__setitem__(slice(0, 2), [4096, 4097]), "has the key (4096, 4097, "),
        (lambda it: it["kernels"][0]["candidates"][0].update(num_warps=7), "num_warps=7 num_stages=3 is no candidate"),
        (lambda it: it["kernels"][0].update(digest="0" * 64), "is not that of the kernel in fla (fla-core 0.6.0)"),
        (_without_a_candidate, "is neither timed nor rejected"),
        (lambda it: it.update(target="sm_100"), "12.8.93 is not the assembler"),
        (lambda it: it["device"].update(name="NVIDIA L4"), "NVIDIA L4 is sm_89, not sm_90"),
        (lambda it: _choice(it).update(score=2.0), "is 2.0, and the times come to"),
        (lambda it: it["method"].update(rounds=1), "1 are fewer than 15"),
        (lambda it: it.update(triton="3.8.0"), "12.8.93 is not the assembler of Triton 3.8.0"),
        (lambda it: it["provider"].update(version="0.5.9"), "0.5.9 is not known to this release"),
        (lambda it: it.update(format=2), "2 is not a known format version"),
        (lambda it: it.update(more=1), "unknown key"),
        (lambda it: _choice(it)["times"][0].update(us=[]), "0 times for 9 candidates"),
        (lambda it: _choice(it).update(note="in /root/x/y"), "names a path of a machine"),
    ],
)  # fmt: skip
def test_what_verify_refuses(change: Change, said: str, record: Path, session_home: Path) -> None:
    document = plain(r.load(record))
    change(document)
    record.write_bytes(written(document))
    done = gdn_aot("verify", record, "--json", home=session_home, code=5)
    assert done.json["ok"] is False
    assert [one for one in done.json["problems"] if said in one["what"]], done.json["problems"]
    assert gdn_aot("verify", record, home=session_home, code=5).err.count("\nHint: ") == 1


def test_bytes_that_are_not_as_they_were_written(record: Path, session_home: Path) -> None:
    for content in (record.read_bytes() + b"\n", record.read_bytes()[:-9], record.read_bytes().replace(b" ", b"  ", 1)):
        record.write_bytes(content)
        assert gdn_aot("verify", record, "--json", home=session_home, code=5).json["error"]["code"] == "verification"
    refused("verify", record, "--provenance", "a/b", home=session_home, code=2, kind="usage")


def test_a_provider_that_is_not_installed(session_home: Path) -> None:
    said = gdn_aot("verify", ROOT / "artifacts/tuning/sm_90/vllm-0.24.0.json", home=session_home).out
    assert "not compared with the provider's: vllm 0.24.0 is not installed here" in said


@pytest.mark.parametrize("path", FLA, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_the_records_of_the_repository_are_of_the_provider(path: Path, session_home: Path) -> None:
    found = r.load(path)
    assert found is not None
    made = contribution.examine(found, BuildCache(session_home / "build"))
    assert (made.problems, made.unasked) == ([], "")
    assert made.models

"""Tuning records: what is read, what is refused and why; how they are merged and written."""

import copy
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import jsonschema
import pytest
import tuning_records as records
from helpers import ROOT
from msgspec.structs import replace
from tuning_records import choice, config, full, kernel, plain, record, times, written

from gdn_aot.errors import NotWritableError, UsageError
from gdn_aot.records import tuning as r
from gdn_aot.records.merging import merge


def test_what_is_written_is_read_and_written_again() -> None:
    data = r.FORM.dump(full())
    found = r.FORM.parse(data)
    assert r.FORM.dump(found) == data
    assert {item.kernel: item for item in found.kernels} == {item.kernel: item for item in full().kernels}
    assert [item.kernel for item in found.kernels] == ["a.b:c", records.KERNEL]


def test_the_order_of_a_record_does_not_show_in_the_file() -> None:
    made = full()
    turned = replace(
        made,
        kernels=tuple(
            replace(item, choices=tuple(replace(one, times=one.times[::-1]) for one in reversed(item.choices)))
            for item in reversed(made.kernels)
        ),
        objective=replace(made.objective, weights=dict(reversed(made.objective.weights.items()))),
    )
    assert r.FORM.dump(turned) == r.FORM.dump(made)
    unsorted = plain()
    unsorted["kernels"].reverse()
    unsorted["objective"]["weights"] = dict(reversed(unsorted["objective"]["weights"].items()))
    with pytest.raises(UsageError, match=r"objective.weights\[1\]: is not in order; and 1 more"):
        r.FORM.parse(written(unsorted))


def test_each_candidate_and_each_row_is_a_line() -> None:
    row = r.Times(tokens=64, us=(9.12, 0.33), noise=(0.0, 0.1))
    text = r.FORM.dump(record(kernel([config(32), config(64)], choice(row, note='a "[{" in a note')))).decode()
    lines = [line.strip() for line in text.splitlines()]
    assert '{"tokens": 64, "us": [9.12, 0.33], "noise": [0.0, 0.1]}' in lines
    assert '{"kwargs": [["BK", 64]], "num_warps": 4, "num_stages": 2, "num_ctas": 1, "maxnreg": null}' in lines
    assert '"score": 1.0,' in lines
    assert r.FORM.parse(text.encode()).kernels[0].choices[0].note == 'a "[{" in a note'


def test_the_schema_accepts_what_is_written() -> None:
    jsonschema.Draft202012Validator.check_schema(r.FORM.schema())
    jsonschema.validate(plain(), r.FORM.schema())
    jsonschema.validate(plain(record()), r.FORM.schema())


def test_the_example_of_the_how_to_is_a_record() -> None:
    example = (ROOT / "docs/how-to/tune.md").read_text().partition("```json\n")[2].partition("```")[0]
    assert r.FORM.parse(example.encode()).kernels[0].choices[0].chosen == 1


def _set(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        if to is ...:
            del document[path[-1]]
        else:
            document[path[-1]] = to

    return change


_K = ("kernels", 1)
_C = (*_K, "choices", 0)
"""The choice that has everything."""


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every object member and list item of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in [(*path, key), *_paths(item, (*path, key))]]


def test_a_record_is_refused_or_means_what_it_says() -> None:
    """Every member in turn is left out, or becomes something of other types: for each member a few of them."""
    original = plain()
    for number, path in enumerate(_paths(original)):
        for value in (..., *(None, True, -1, 1.5, "text", [], {}, [None], {"x": 1})[number % 5 :: 5]):
            changed = copy.deepcopy(original)
            _set(*path, to=value)(changed)
            try:
                found = r.FORM.parse(written(changed))
            except UsageError:
                continue
            assert plain(found) == changed


def test_unknown_members_are_refused() -> None:
    original = plain()
    for path in [(), *_paths(original)]:
        changed = copy.deepcopy(original)
        place = changed
        for step in path:
            place = place[step]
        if isinstance(place, dict):
            place["extra"] = 1
            with pytest.raises(UsageError):
                r.FORM.parse(written(changed))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("format", to=2), "format: 2 is not a known format version, only 1 is"),
        (_set("format", to="1"), "format: expected 1, got '1'"),
        (_set("format", to=...), "is not written as gdn-aot writes it"),
        (_set("provider", to=...), "provider: missing"),
        (_set("providr", to=1), "providr: unknown key; did you mean provider?"),
        (_set("device", "driver", to=580), "device.driver: expected str, got int"),
        (_set("objective", "weights", "many", to=1.0), "objective.weights: expected `int`, got `str`"),
        (_set("objective", "weights", "64", to=-1.0), "objective.weights['64']: expected at least 0, got -1.0"),
        (_set("objective", "bound", to=0.9), "objective.bound: expected at least 1, got 0.9"),
        (_set("objective", "weights", to={"64": 0.0}), "objective: the weights have no finite sum above zero"),
        (_set(*_K, "kernel", to="chunk_o"), "kernels[1].kernel: 'chunk_o' is not module:qualname"),
        (_set("kernels", 0, "kernel", to=records.KERNEL), "kernels[1]: is in the list twice"),
        (_set(*_K, "offered", to=4), "kernels[1].offered: 4 of 3 candidates"),
        (_set(*_K, "offered", to=-1), "kernels[1].offered: expected at least 0, got -1"),
        (_set(*_K, "candidates", 1, "kwargs", to=[["BK", 32]]), "kernels[1].candidates[1]: is in the list twice"),
        (
            _set(*_K, "candidates", 0, "kwargs", to=[["B", 1], ["B", 2]]),
            "candidates[0].kwargs[1]: is in the list twice",
        ),
        (_set(*_K, "candidates", 0, "kwargs", 0, 1, to=None), "kwargs[0][1]: expected a value, got null"),
        (_set(*_K, "candidates", 2, to=...), ": 3 times for 2 candidates"),
        (_set(*_K, "choices", 1, "key", to=list(records.KEY)), "kernels[1].choices[1]: is in the list twice"),
        (_set(*_C, "key", 0, to=[1]), "kernels[1].choices[0].key[0]: expected "),
        (_set(*_C, "chosen", to=3), "kernels[1].choices[0].chosen: there is no candidate 3, only 3 from 0"),
        (_set(*_C, "chosen", to=-1), "kernels[1].choices[0].chosen: expected at least 0, got -1"),
        (_set(*_C, "chosen", to=2), "chosen: candidate 2 was rejected: a worker died of SIGSEGV"),
        (_set(*_C, "reference", to=9), "kernels[1].choices[0].reference: there is no candidate 9"),
        (_set(*_C, "rejected", 0, "candidate", to=7), "choices[0].rejected[0].candidate: there is no candidate 7"),
        (_set(*_C, "times", to=[]), "kernels[1].choices[0].times: expected list of at least 1, got list of 0"),
        (_set(*_C, "times", 1, "tokens", to=64), "kernels[1].choices[0].times[1]: is in the list twice"),
        (_set(*_C, "times", 0, "tokens", to=0), "times[0].tokens: expected at least 1, got 0"),
        (_set(*_C, "times", 0, "us", to=[1.0]), "kernels[1].choices[0].times[0].us: 1 times for 3 candidates"),
        (_set(*_C, "times", 0, "us", 1, to=None), "us[1]: is null: the chosen candidate has no time at 64 tokens"),
        (_set(*_C, "times", 0, "us", 0, to=None), "noise[0]: a time and its noise are null together"),
        (_set(*_C, "times", 0, "us", 0, to=0.0), "us[0]: expected more than 0, got 0.0"),
        (_set(*_C, "times", 0, "noise", 0, to=-0.5), "noise[0]: expected at least 0, got -0.5"),
        (_set(*_C, "resources", 0, to=[1, 2]), "choices[0].resources[0]: expected list of 4, got list of 2"),
        (_set(*_C, "resources", to=[None]), "choices[0].resources: 1 entries for 3 candidates"),
    ],
)
def test_a_wrong_record_is_refused_with_path_and_reason(
    tmp_path: Path, change: Callable[[Any], None], reason: str
) -> None:
    document = plain()
    assert document["kernels"][1]["choices"][0]["key"] == list(records.KEY)
    change(document)
    file = tmp_path / "fla-core-0.6.0.json"
    file.write_bytes(written(document))
    with pytest.raises(UsageError) as caught:
        r.load(file)
    assert caught.value.message.startswith(f"tuning record {file} is refused: ")
    assert reason in "\n".join([caught.value.message, *map(str, caught.value.problems)])
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "\n" not in caught.value.hint


def test_every_problem_is_named_at_once() -> None:
    document = plain()
    document["triton"], document["device"]["driver"], document["kernels"][1]["offered"] = 3.6, None, "two"
    with pytest.raises(UsageError, match="; and 2 more") as caught:
        r.FORM.parse(written(document))
    assert {problem.where for problem in caught.value.problems} == {"triton", "device.driver", "kernels[1].offered"}


_DATA = r.FORM.dump(full())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xef\xbb\xbf{}", b"\xff", b"[" * 100000, b'{"a": 1, "a": 2}',
        _DATA + b"\n", _DATA.replace(b'"tool"', b'"tool": "other", "tool"'), _DATA.replace(b"1.1}", b"Infinity}"),
        _DATA.replace(b"1.1}", b"1e999}"), _DATA.replace(b'"bound": 1.1', b'"bound": 1.10'),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(data: bytes) -> None:
    assert data != _DATA
    with pytest.raises(UsageError, match="tuning record is refused: "):
        r.FORM.parse(data)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"target": "sm_120"}, "target: 'sm_90' is not 'sm_120'"),
        ({"distribution": "vllm"}, "provider.distribution: 'fla-core' is not 'vllm'"),
        ({"version": "0.5.2"}, "provider.version: '0.6.0' is not '0.5.2'"),
    ],
)
def test_a_record_of_something_else_is_refused(tmp_path: Path, wanted: dict[str, str], reason: str) -> None:
    path = records.write(tmp_path, full())
    assert r.load(path, target="sm_90", distribution="fla-core", version="0.6.0") is not None
    with pytest.raises(UsageError) as caught:
        r.load(path, **wanted)
    assert reason in caught.value.message


def test_no_file_is_no_record_and_a_directory_is_refused(tmp_path: Path) -> None:
    assert r.load(tmp_path / "none.json") is None
    with pytest.raises(UsageError, match="cannot be read: is not a regular file"):
        r.load(tmp_path)


def test_the_table_has_the_choices_and_where_they_were_measured() -> None:
    made = full()
    found = r.table(made)
    assert set(found) == {(records.KERNEL, records.KEY), (records.KERNEL, (1,))}
    tuned = found[records.KERNEL, records.KEY]
    assert (tuned.config, tuned.provenance, tuned.wide) == (config(64), "measured", False)
    assert tuned.note == "on NVIDIA H100 80GB HBM3, driver 580.159.04: lowest score"
    assert "Triton" not in r.table(made, "3.6.0")[records.KERNEL, (1,)].note
    assert "580.159.04, Triton 3.6.0: " in r.table(made, "3.8.0")[records.KERNEL, (1,)].note
    assert r.table(None) == {}


def test_choices_beyond_the_providers_are_extras() -> None:
    candidates = [config(32), config(64), config(128)]
    rows = [choice(times(64, 3.0, 2.0, 1.0), key=(key,), chosen=chosen) for key, chosen in enumerate((0, 2, 2, 1))]
    found = r.table(record(kernel(candidates, *rows, offered=1)))
    assert [item.wide for item in found.values()] == [False, True, True, True]
    assert r.extras(found) == {records.KERNEL: [config(128), config(64)]}
    assert r.extras(r.table(full())) == {}


def test_merging_replaces_old_keys_and_keeps_the_others() -> None:
    candidates = [config(32), config(64)]
    old = record(
        kernel(candidates, choice(times(64, 1.0, 2.0), key=(1,)), choice(times(64, 1.0, 2.0), key=(2,))),
        kernel(candidates, choice(times(64, 1.0, 2.0)), name="m:old"),
    )
    new = record(
        kernel(candidates, choice(times(64, 2.0, 1.0), key=(2,), chosen=1), choice(times(64, 1.0, 2.0), key=(3,))),
        kernel(candidates, choice(times(64, 1.0, 2.0)), name="m:new"),
        tool="gdn-aot 0.2.0",
    )
    merged = merge(old, new)
    assert [item.kernel for item in merged.kernels] == [records.KERNEL, "m:new", "m:old"]
    assert {one.key: one.chosen for one in merged.kernels[0].choices} == {(1,): 0, (2,): 1, (3,): 0}
    assert merged.tool == "gdn-aot 0.2.0"
    assert merge(None, new) == new
    assert merge(merged, new) == merged
    assert r.FORM.parse(r.FORM.dump(merged)) == merged


def test_merging_unites_candidates_with_the_providers_first() -> None:
    a, b, c, wide = config(16), config(32), config(64), config(256)
    old_choice = choice(
        times(64, 3.0, 2.0, 1.0),
        key=(1,),
        chosen=2,
        reference=1,
        resources=(None, r.Footprint(registers=1, shared=2, local=3, size=4), None),
    )
    new_choice = choice(
        times(64, 1.0, 5.0, None), key=(2,), rejected=(r.Rejected(candidate=2, tokens=None, reason="spills"),)
    )
    merged = merge(
        record(kernel([a, b, wide], old_choice, offered=2)), record(kernel([b, c, a], new_choice, offered=2))
    )
    (found,) = merged.kernels
    assert (found.candidates, found.offered) == ((a, b, c, wide), 3)
    first, second = found.choices
    assert (first.chosen, first.reference, first.times[0].us) == (3, 1, (3.0, 2.0, None, 1.0))
    assert first.resources == (None, r.Footprint(registers=1, shared=2, local=3, size=4), None, None)
    assert (second.chosen, second.reference, second.times[0].us) == (1, 1, (None, 1.0, 5.0, None))
    assert second.rejected[0].candidate == 0
    assert r.FORM.parse(r.FORM.dump(merged)) == merged


def test_merging_keeps_what_source_was_measured() -> None:
    """Measurements of two sources are never mixed; where one record does not say its source, nor does the whole."""
    bound, other, unbound = (record(kernel([config(32)], digest=digest)) for digest in ("a" * 64, "b" * 64, ""))
    assert plain(bound)["kernels"][0]["digest"] == "a" * 64
    assert merge(bound, bound) == bound
    assert merge(unbound, bound) == unbound
    assert merge(bound, unbound) == unbound
    with pytest.raises(UsageError, match=f"{records.KERNEL} has another source there"):
        merge(bound, other)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target": "sm_80"}, "its target is sm_90, this is sm_80"),
        ({"provider": replace(records.FLA, version="0.5.2")}, "its provider is fla (fla-core 0.6.0), this is fla"),
        ({"triton": "3.8.0"}, "its triton is 3.6.0, this is 3.8.0"),
        ({"ptxas": "12.9"}, "its ptxas is 12.8.93, this is 12.9"),
        ({"device": replace(records.H100, name="NVIDIA H200")}, "its device.name is NVIDIA H100 80GB HBM3, this is"),
        ({"device": replace(records.H100, driver="590")}, "its device.driver is 580.159.04, this is 590"),
        ({"objective": r.Objective(weights={64: 1.0}, bound=1.1)}, "its objective is "),
    ],
)
def test_what_was_not_measured_alike_is_never_mixed(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        merge(full(), replace(full(), **change))
    assert reason in caught.value.message
    assert "\n" not in caught.value.hint


def test_saving_makes_the_directory(tmp_path: Path) -> None:
    path = records.write(tmp_path / "new", full())
    assert path == tmp_path / "new/sm_90/fla-core-0.6.0.json"
    assert path.read_bytes() == r.FORM.dump(full())
    assert r.load(path) == r.FORM.parse(r.FORM.dump(full()))


@pytest.mark.parametrize("where", ["write", "sync", "rename"])
def test_a_full_disk_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = records.write(tmp_path, full())
    before = path.read_bytes()

    def full_disk(*_args: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_after_some(file: int, _mode: str) -> IO[bytes]:
        os.write(file, before[:100])
        os.close(file)
        return Path("/dev/full").open("wb", buffering=0)

    if where == "write":
        monkeypatch.setattr(os, "fdopen", full_after_some)
    else:
        monkeypatch.setattr(os, "fsync" if where == "sync" else "replace", full_disk)
    with pytest.raises(NotWritableError, match=r"cannot write the tuning record .*No space left on device") as caught:
        r.save(record(), path)
    assert caught.value.exit_code == 9
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]

"""The page as a file: what is in it, that it holds what records hold, and that nothing of a file becomes markup."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factory
import pytest
import tuning_records
from builds import Built
from commands import refused
from helpers import gdn_aot
from msgspec.structs import replace
from pages import HOSTILE, PLACES, PROXIES, RECORDS, Page, digest

from gdn_aot.artifact.archive import write_artifact
from gdn_aot.records import numerics, tuning
from gdn_aot.reporting.html import e, escape
from gdn_aot.reporting.keys import key_text, why


def rows_of(page: Page, kind: str) -> list[dict[str, Any]]:
    return [group for group in page.data["groups"] if group["kind"] == kind]


@pytest.mark.parametrize("made", ["one", "several", "compared", "compared_records"])
def test_it_is_one_sound_file_that_may_load_nothing(made: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(made))
    assert page.text.startswith('<!doctype html>\n<html lang="en">')
    for _, attributes, _ in page.elements:
        assert not attributes.keys() & {"src", "srcset", "action", "data", "style"}
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, attributes, _ in page.elements if (value := attributes.get("href"))]
    assert set(targets) <= set(ids)
    (own,), (library,), (style,) = page.script(None), page.script("text/plain"), page.texts("style")
    assert page.policy == {
        "default-src": ["'none'"],
        "script-src": [digest(own), digest(library)],
        "style-src": [digest(style)],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }


def test_the_same_inputs_give_the_same_bytes(one: Path, report: Callable[..., Path], tuned: Built) -> None:
    assert report(tuned.path, *PLACES).read_bytes() == one.read_bytes()


def test_it_says_what_the_manifest_says(several: Path, sm_90: Built, decode: Built, tuned: Built) -> None:
    page = Page(several)
    cells = set(page.texts("td")) | set(page.texts("th")) | set(page.texts("dd"))
    name = sm_90.manifest.identifier
    assert page.texts("h2")[2:5] == [f"{name} (1)", decode.manifest.identifier, f"{name} (2)"]
    for built in (sm_90, decode, tuned):
        manifest = built.manifest
        assert {built.artifact.sha256, *(row.name for row in manifest.models)} <= cells
        assert {kernel.qualname for kernel in manifest.kernels} <= cells
    assert len(rows_of(page, "resources")) == 3
    group = rows_of(page, "resources")[0]
    counted = sum(row[-1] for row in group["rows"])
    assert counted == sum(len(kernel.binaries) for kernel in sm_90.manifest.kernels)


def test_every_time_of_the_record_is_in_it(one: Path, tuned: Built) -> None:
    page, record = Page(one), tuning.load(RECORDS / "tuning" / "sm_90" / "fla-core-0.6.0.json")
    assert record is not None
    texts, timings = page.data["texts"], page.data["timings"]
    measured = {
        (kernel.kernel, key_text(kernel.kernel, choice.key)): (kernel, choice)
        for kernel in record.kernels
        for choice in kernel.choices
    }
    (group,) = rows_of(page, "choices")
    (packed,) = (kernel for kernel in tuned.manifest.kernels if kernel.choices)
    assert len(group["rows"]) == len(packed.choices) > 1
    seen = 0
    for row, shipped in zip(group["rows"], packed.choices, strict=True):
        assert [texts[row[0]], texts[row[1]], texts[row[4]]] == [
            key_text(packed.name, shipped.key),
            str(shipped.config),
            why(packed.name, shipped.key, None, shipped.note),
        ]
        if shipped.provenance != "measured":
            continue
        timing = timings[row[5]]
        kernel, choice = measured[texts[timing["of"]], texts[row[0]]]
        found = {texts[line[0]]: line for line in timing["rows"]}
        for index, config in enumerate(kernel.candidates):
            us = [times.us[index] for times in choice.times]
            if any(value is not None for value in us):
                assert found[str(config)][3] == pytest.approx(us, rel=5e-4)
        assert row[6] == [pytest.approx(1000 * part, abs=0.6) for part in choice.regret.values()]
        assert found[texts[row[1]]][1] & 1, "the record's choice"
        seen += 1
    assert seen


@pytest.mark.parametrize(("place", "way", "error"), [(0, "from one key to another of sm_90", "0.7 % median"),
                                                     (1, "from sm_90 to sm_86", "3.6 % median")])  # fmt: skip
def test_a_transferred_choice_has_an_expected_error_and_no_regret(
    report: Callable[..., Path], moved: tuple[Built, Built], place: int, way: str, error: str
) -> None:
    """The times are of another key, or another target: what they say is not said of this key."""
    built = moved[place]
    page = Page(report(built.path, "--tuning", built.arguments[-1]))
    texts, timings = page.data["texts"], page.data["timings"]
    counts = Counter(choice.provenance for kernel in built.manifest.kernels for choice in kernel.choices)
    rows = [row for group in rows_of(page, "choices") for row in group["rows"] if row[2] == 3]
    assert len(rows) == counts["transferred"] > 0
    for row in rows:
        assert row[6] is None
        assert row[7], "its times are said to be of another"
        assert texts[row[8]].startswith(error)
        assert place or texts[timings[row[5]]["key"]] != texts[row[0]]
    (first,) = page.texts("table")[1:2]
    assert f"transferred: fla: {way}" in first
    assert "these" not in first
    assert counts.keys() > {"transferred"} or "regret not known" in " ".join(page.texts("summary"))


def test_a_transferred_choice_shows_the_times_it_is_from(report: Callable[..., Path], sm_90: Built) -> None:
    """Default choices have the times of their own key, if the target's record has it, and no others."""
    page = Page(report(sm_90.path, *PLACES))
    groups = rows_of(page, "choices")
    assert {row[2] for group in groups for row in group["rows"]} == {4}
    texts = page.data["texts"]
    timed = [(row, page.data["timings"][row[5]]) for group in groups for row in group["rows"] if row[5] is not None]
    assert timed
    assert all(texts[row[0]] == texts[timing["key"]] for row, timing in timed)


def test_without_records_it_says_so(report: Callable[..., Path], tuned: Built) -> None:
    page = Page(report(tuned.path))  # run in a folder without records
    assert page.data["timings"] == []
    assert "regret not known" in " ".join(page.texts("summary"))
    (said,) = (text for text in page.texts("p") if "checks of this target" in text)
    assert (
        said == "Record of checks of this target and version: no directory of records was found. Pass --numerics DIR."
    )
    assert page.texts("p")[1] == (
        f"No directory of records was found, so times and regret of {tuned.manifest.identifier} are missing: "
        "pass --tuning DIR."
    )


def test_a_place_without_records_is_named_on_the_page_and_to_whoever_asked(tmp_path: Path, tuned: Built) -> None:
    (tmp_path / "none").mkdir()
    places = ("--tuning", tmp_path / "none", "--numerics", tmp_path / "none")
    done = gdn_aot("report", tuned.path, "-o", tmp_path / "page.html", *places, home=tmp_path)
    said = Page(tmp_path / "page.html").texts("p")
    assert said[1] == done.err.strip()
    assert f"No tuning record was found below {tmp_path / 'none'}" in done.err
    assert f"none was found below {tmp_path / 'none'}" in " ".join(said[2:])


def test_missing_default_workloads_are_named_first(several: Path, decode: Built) -> None:
    said, _ = [text for text in Page(several).texts("p") if "this artifact lacks" in text]
    assert said.startswith("Default workloads that this artifact lacks: transformers-prefill, ")
    assert not set(decode.manifest.workloads) & set(said.partition(": ")[2].split(", "))


def test_what_artifacts_have_alike_is_there_once(several: Path, sm_90: Built, tuned: Built) -> None:
    page = Page(several)
    sections = {attributes["id"]: "".join(inner) for tag, attributes, inner in page.elements
                if tag == "section" and str(attributes.get("id")).startswith("artifact-")}  # fmt: skip
    assert sm_90.manifest.models == tuned.manifest.models
    assert "qwen3.5-9b" in sections["artifact-0-1"]
    assert sections["artifact-2-1"] == f"Models and shapesThe same as for {sm_90.manifest.identifier} (1)."


def test_kernels_can_be_linked_to(several: Path, tuned: Built) -> None:
    page = Page(several)
    ids = [attributes["id"] for tag, attributes, _ in page.elements if attributes.get("class") == "kernel"]
    (packed,) = (kernel for kernel in tuned.manifest.kernels if kernel.choices)
    assert f"kernel-2-{packed.qualname}" in ids
    assert len(set(ids)) == len(ids)


def test_checks_are_those_of_the_record(several: Path) -> None:
    page = Page(several)
    record = numerics.load(RECORDS / "numerics" / "sm_80" / "fla-core-0.6.0.json")
    assert record is not None
    group = rows_of(page, "numerics")[-1]
    texts = page.data["texts"]
    assert [(texts[row[2]], row[3], row[4]) for row in group["rows"]] == [
        (worst.result, worst.error, worst.limit) for check in record.checks for worst in check.worst
    ]


def test_nothing_of_a_file_becomes_markup(hostile: Path) -> None:
    page = Page(hostile)
    assert len([tag for tag, _, _ in page.elements if tag == "script"]) == 3
    assert not [tag for tag, _, _ in page.elements if tag in ("img", "b", "iframe", "svg")]
    clean = HOSTILE.replace("\u2028", "\N{REPLACEMENT CHARACTER}")
    assert clean in page.texts("dd")
    assert HOSTILE in page.data["texts"]


def test_elements_escape_what_is_not_markup() -> None:
    assert e("p", "<", e("b", '"'), None, ["&", 1], class_="'", open=True, hidden=False) == (
        '<p class="&#x27;" open>&lt;<b>&quot;</b>&amp;1</p>'
    )
    assert escape("a\x00\x1b\u202e\n") == "a\ufffd\ufffd\ufffd\n"


def test_records_compared(compared_records: Path) -> None:
    page, (one, two) = Page(compared_records), (tuning.load(path) for path in PROXIES)
    assert one is not None
    assert two is not None
    sides = [
        {
            (kernel.kernel, key_text(kernel.kernel, choice.key)): (kernel, choice)
            for kernel in record.kernels
            for choice in kernel.choices
        }
        for record in (one, two)
    ]
    texts, seen, words = page.data["texts"], set(), set()
    for group in rows_of(page, "compare"):
        for row in group["rows"]:
            place = (texts[group["of"]], texts[row[0]])
            seen.add(place)
            words.add(row[3])
            ratios = dict(zip(row[5], row[6], strict=True))
            for tokens, ratio in ratios.items():
                before, after = (
                    next(times.us[choice.chosen] for times in choice.times if times.tokens == tokens)
                    for _, choice in (side[place] for side in sides)
                )
                assert before is not None
                assert after is not None
                assert ratio == pytest.approx(1000 * (after / before - 1), abs=0.6)
            if not ratios:  # one of them lacks the key
                assert row[4] is None
                continue
            mean = sum(share * (1 + ratios[tokens] / 1000) for tokens, share in one.objective.shares(row[5]).items())
            assert row[4] == pytest.approx(1000 * (mean - 1), abs=1.1)
            assert row[3] != 0 or row[4] < 0, "faster"
            assert row[3] != 1 or row[4] > 0, "slower"
    assert seen == sides[0].keys() | sides[1].keys()
    assert {0, 1, 2} <= words


def test_artifacts_compared(compared: Path, sm_90: Built, tuned: Built) -> None:
    page = Page(compared)
    texts = page.data["texts"]
    (packed,) = (kernel for kernel in tuned.manifest.kernels if kernel.choices)
    groups = {texts[group["of"]]: group["rows"] for group in rows_of(page, "compare")}
    assert groups.keys() == {kernel.name for kernel in sm_90.manifest.kernels if kernel.choices}
    before = {key_text(packed.name, one.key): str(one.config) for one in sm_90.kernel(packed.qualname).choices}
    after = {key_text(packed.name, one.key): str(one.config) for one in packed.choices}
    rows = {texts[row[0]]: row for row in groups.pop(packed.name)}
    assert rows.keys() == before.keys() | after.keys()
    for key, row in rows.items():
        assert [before.get(key), after.get(key)] == [None if number is None else texts[number] for number in row[1:3]]
        assert (row[3] == 3) == (before.get(key) == after.get(key))
    assert any(row[3] == 0 for row in rows.values()), "tuning made something faster than the provider's first"
    assert {row[3] for others in groups.values() for row in others} == {5}
    assert "What changed from A to B" in page.texts("h2")
    summary = next(text for text in page.texts("table") if text.startswith("Keys by kernel"))
    assert "Only in A" in summary
    assert "No common times" not in summary, "no kernel has one"


def test_another_release_may_have_a_kernel_in_another_module(tmp_path: Path, report: Callable[..., Path]) -> None:
    full = tuning_records.full()
    moved = tuple(replace(kernel, kernel=f"moved.{kernel.kernel}") for kernel in full.kernels)
    paths = [tuning_records.write(tmp_path / name, replace(full, kernels=kernels))
             for name, kernels in (("one", full.kernels), ("two", moved))]  # fmt: skip
    (group,) = rows_of(Page(report(*paths, "--compare")), "compare")
    assert {row[3] for row in group["rows"]} == {2}


def test_what_is_refused(tmp_path: Path, tuned: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*arguments: object, code: int = 2, kind: str = "usage") -> str:
        found = refused(
            "report", *arguments, "-o", tmp_path / "page.html", home=tmp_path / "home", code=code, kind=kind
        )
        assert not (tmp_path / "page.html").exists()
        message: str = found["message"]
        return message

    record = PROXIES[0]
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "broken.zst").write_bytes(tuned.path.read_bytes()[:-1])
    assert "cannot be read" in error(tmp_path / "missing")
    assert "cannot be read" in error(tmp_path)
    assert "is refused" in error(tmp_path / "broken.json")
    assert "not a sound artifact" in error(tmp_path / "broken.zst", code=5, kind="verification")
    (tmp_path / "README.md").write_text("# Words\n")
    assert "README.md is neither an artifact nor a record" in error(tmp_path / "README.md")
    assert "is given twice" in error(record, record)
    assert "--compare takes two files, and 1 were named" in error(record, "--compare")
    assert "only two artifacts, or two tuning records" in error(record, tuned.path, "--compare")
    assert "is not a directory" in error(record, "--numerics", tmp_path / "none")
    assert "unknown card" in error(tuned.path, "--card", "nothing")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "vl_convert", None)
        from gdn_aot.reporting import page

        page._plotting.cache_clear()
        found = refused("report", record, home=tmp_path / "home", code=2, kind="usage")
        assert found["hint"] == "pip install 'gdn-aot[report]'"


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, tuned: Built) -> None:
    (tmp_path / "file").write_text("as it was")
    refused("report", tuned.path, "-o", tmp_path / "file" / "x.html", home=tmp_path, code=9, kind="not-writable")
    assert (tmp_path / "file").read_text() == "as it was"
    copy = tmp_path / tuned.path.name
    copy.write_bytes(tuned.path.read_bytes())
    assert "is one of the files" in refused("report", copy, "-o", copy, home=tmp_path, code=2, kind="usage")["message"]
    assert copy.read_bytes() == tuned.path.read_bytes()
    done = gdn_aot("report", copy, home=tmp_path)
    assert done.out == "report.html\n"
    assert (tmp_path / "report.html").is_file()


def test_times_that_no_card_takes(tmp_path: Path, report: Callable[..., Path]) -> None:
    """They are refused nowhere, and no reason to fail."""
    extreme = tuning_records.choice(
        tuning_records.times(64, 1e-300, 1e300, 1e-300), tuning_records.times(512, 1e-308, 1e308, 1.7e308), chosen=1
    )
    configs = [tuning_records.config(32), tuning_records.config(64), tuning_records.config(128)]
    records = [
        tuning_records.record(tuning_records.kernel(configs, one)) for one in (extreme, replace(extreme, chosen=0))
    ]
    paths = [tuning_records.write(tmp_path / str(place), one) for place, one in enumerate(records)]
    assert len(rows_of(Page(report(*paths)), "choices")) == 2
    assert len(rows_of(Page(report(*paths, "--compare")), "compare")) == 1
    assert len(rows_of(Page(report(*paths[::-1], "--compare")), "compare")) == 1


@pytest.mark.parametrize("distribution", ["../../../../x", "a\0b", "9" * 3000])
def test_a_distribution_is_no_path(distribution: str, tmp_path: Path, report: Callable[..., Path]) -> None:
    manifest = factory.make_manifest()
    manifest = replace(manifest, provider=replace(manifest.provider, distribution=distribution))
    artifact = write_artifact(manifest, factory.make_blobs(), tmp_path / "odd.tar.zst").path
    assert "none was found below" in " ".join(Page(report(artifact, *PLACES)).texts("p"))

"""The card: metadata that the Hub accepts, one row for each artifact, and nothing of a manifest that means anything."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from making import TARGETS, indexed

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import Written
from gdn_aot.registry import card
from gdn_aot.registry.card import render
from gdn_aot.registry.layout import Entry, EntryModel, Provenances, make_index

NAME = "hf://org/name"


@pytest.fixture(scope="module")
def entry(sm_120: Written) -> Entry:
    return indexed(sm_120)


def other(entry: Entry, **changes: Any) -> Entry:
    changed = msgspec.structs.replace(entry, **changes)
    identifier = names.make_identifier(changed.provider, changed.version, changed.triton, changed.target)
    return msgspec.structs.replace(changed, identifier=identifier)


def text(*entries: Entry, name: str = NAME) -> str:
    return render(make_index(entries), name).decode()


def metadata(content: str) -> dict[str, Any]:
    _, front, body = content.split("---\n", 2)
    assert body.startswith("\n# ")
    loaded = yaml.safe_load(front)
    assert isinstance(loaded, dict)
    return loaded


def rows(content: str, title: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its two head lines."""
    section = content.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {len(cells[0])}
    return cells[2:]


def test_metadata_is_what_the_hub_reads(entry: Entry) -> None:
    content = text(entry, other(entry, target="sm_90"), other(entry, target="sm_100", triton="3.8.0"))
    assert metadata(content) == {
        "library_name": "gdn-aot",
        "license": "mit",
        "tags": ["triton", "gated-deltanet", "kernel-cache", "fla", "sm_90", "sm_100", "sm_120"],
    }
    data = ModelCard(content).data
    assert (data.library_name, data.license, data.tags[-1]) == ("gdn-aot", "mit", "sm_120")


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["Apache-2.0"], {"license": "apache-2.0"}),
        (["MIT", "MIT"], {"license": "mit"}),
        (["MIT", "Apache-2.0"], {"license": "other", "license_name": "apache-2.0-and-mit"}),
        (["MIT AND (Apache-2.0 OR BSD-2-Clause)"], {"license": "other"}),
        (["LicenseRef-Own"], {"license": "other", "license_name": "licenseref-own"}),
        ([""], {"license": "other", "license_name": "unknown"}),
        (["x\nlibrary_name: evil"], {"license": "other", "license_name": "x-library-name-evil"}),
    ],
)
def test_licenses(entry: Entry, licenses: list[str], expected: dict[str, str]) -> None:
    entries = [other(entry, license=text, version=f"0.{number}.0") for number, text in enumerate(licenses)]
    content = text(*entries)
    found = metadata(content)
    assert {**found, **expected} == found
    assert found["library_name"] == "gdn-aot"
    assert len(rows(content, "Licences")) == len(set(licenses))


def test_rows(entry: Entry) -> None:
    measured = other(entry, target="sm_90", choices=Provenances(measured=7, transferred=0, default=0))
    moved = other(
        entry,
        choices=Provenances(measured=0, proxy=4, transferred=5, default=2),
        numerics=m.Numerics(status="checked", detail="by cubin on NVIDIA H100"),
        size=5_250_000,
    )
    content = text(moved, measured)
    assert [row[0] for row in rows(content, "Artifacts")] == ["sm_90", "sm_120"]
    assert rows(content, "Artifacts")[1][1:] == [
        *("fla", "fla-core 0.6.0", "3.6.0", "12.9.86", "1", "inference", "32768", "5.25"),
        "`fla0.6.0-triton3.6.0-sm_120`",
    ]
    built = "gdn-aot 0.1.0 at `cccccccccccc`"
    assert rows(content, "Provenance") == [
        [f"`{moved.identifier}`", "2", "3", "0", "4", "5", "2", "1", "checked: by cubin on NVIDIA H100", built],
        [f"`{measured.identifier}`", "2", "3", "7", "0", "0", "0", "1", "not run", built],
    ]
    assert rows(content, "Licences") == [["fla-core", "0.6.0", "MIT"]]
    assert f"gdn-aot fetch --repo {NAME} --arch sm_90\n" in content


def test_models(entry: Entry) -> None:
    def models(*names: str, tp: Sequence[int] = (1, 2)) -> tuple[EntryModel, ...]:
        return tuple(EntryModel(name=name, tp=size, dtype="bf16") for name in names for size in tp)

    more = other(entry, target="sm_90", models=models("both", "one"))
    less = other(entry, models=models("both"))
    assert rows(text(more, less), "Models") == [
        ["both", "bf16", "1, 2", "all"],
        ["one", "bf16", "1, 2", f"`{more.identifier}`"],
    ]


def test_dirty_builds_have_a_banner(entry: Entry) -> None:
    dirty = other(entry, target="sm_90", dirty=True)
    assert "**Warning:**" not in text(entry)
    content = text(entry, dirty)
    banner = next(line for line in content.splitlines() if line.startswith("> **Warning:**"))
    assert f"`{dirty.identifier}`" in banner
    assert entry.identifier not in banner
    assert rows(content, "Provenance")[1][-1].endswith(", dirty")


def test_no_path_of_the_machine(entry: Entry) -> None:
    assert "/home/me" not in text(entry, name="/home/me/registry")


def test_same_bytes_in_any_order(entry: Entry) -> None:
    entries = [other(entry, target=target, provider=provider) for target in TARGETS for provider in ("fla", "vllm")]
    assert text(*entries) == text(*reversed(entries))


def test_an_empty_registry(entry: Entry) -> None:
    assert metadata(text())["tags"] == ["triton", "gated-deltanet", "kernel-cache"]


HOSTILE = [
    "x\n---\nlicense: evil\n---\n",
    "a | b | c",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![](http://evil.example/pixel.png)",
    "http://evil.example www.evil.example a@evil.example",
    "`code` *bold* _it_ ~~no~~ $x$ \\| \\",
    '": {[!!python/object:os.system "x"]}',
    "&lt;b&gt; &#60;b>",
    "@everyone #1 :tada:",
    "\x1b[31mred\x07 \u202egnp",
    "x" * 10_000,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_means_nothing(entry: Entry, hostile: str) -> None:
    models = (EntryModel(name=hostile, tp=1, dtype=hostile),)
    numerics = m.Numerics(status=hostile, detail=hostile)
    fields = {"distribution": hostile, "license": hostile, "ptxas": hostile, "tool": hostile}
    plain = text(entry)
    content = text(msgspec.structs.replace(entry, models=models, numerics=numerics, **fields))
    found = metadata(content)
    assert set(found) <= {"library_name", "license", "license_name", "tags"}
    assert found["tags"] == metadata(plain)["tags"]
    assert found["license"] == "other"
    assert re.findall("(?m)^#.*", content) == re.findall("(?m)^#.*", plain)
    body = content.split("---\n", 2)[2]
    for title in ("Artifacts", "Models", "Provenance", "Licences"):
        assert len(rows(content, title)) == 1
    for sign in "<>[]!@~$\\\x1b\x07\u202e":
        assert body.count(sign) == plain.split("---\n", 2)[2].count(sign)
    assert len(re.findall(r"(?i)https?://|www\.", body)) == len(re.findall(r"(?i)https?://|www\.", plain))
    assert len(content) < len(plain) + 20_000


@given(st.text(max_size=60))
def test_any_text_is_one_cell(hostile: str) -> None:
    cell = card._text(hostile)
    assert cell.strip()
    assert not re.search(r"[|<>\[\]`*\\\n\r]", cell)
    assert not re.search(r"&(?!#\d+;)", cell)


@given(st.text(max_size=40))
def test_any_text_is_one_yaml_scalar(hostile: str) -> None:
    loaded = yaml.safe_load(f"tags:\n- {card._quoted(hostile)}\nlast: 1\n")
    assert loaded["last"] == 1
    assert [type(item) for item in loaded["tags"]] == [str]
    assert loaded["tags"] == [hostile]

"""What no workload covers is said in the same words by ``inspect`` and the documents."""

import re

from builds import Built
from helpers import ROOT, gdn_aot

from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.providers import uncovered


def test_the_document_has_the_same_list() -> None:
    text = (ROOT / "docs/reference/callers.md").read_text().partition("## Covered by no workload")[2]
    rows = [tuple(part.strip() for part in row.split("|")[1:-1]) for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)]
    assert tuple(rows[2:]) == uncovered("fla")
    assert uncovered("vllm") == ()


def test_the_document_names_every_workload() -> None:
    text = (ROOT / "docs/reference/callers.md").read_text()
    fla = PROVIDERS["fla"]
    for name in (*fla.workloads, *fla.training, *fla.training_on_request, "short-conv", "small-chunks", "kda-gate"):
        assert re.search(rf"\b{name}\b", text), name
    assert not set(fla.inference) & {*fla.training, *fla.training_on_request}


def test_inspect_lists_what_is_not_there(decode: Built) -> None:
    out = gdn_aot("inspect", decode.path, home=decode.home).out
    fla = PROVIDERS["fla"]
    on_request = [name for name in fla.on_request if "gdn" in fla.families_of([name])]
    assert "kda-gate" not in on_request, "that is for other models"
    assert f"built if --workload names them: {', '.join(on_request)}" in out
    document = gdn_aot("inspect", decode.path, "--json", home=decode.home).json
    assert document["on_request"] == list(on_request)
    assert document["uncovered"] == [list(call) for call in uncovered("fla")]
    for call, _ in uncovered("fla"):
        assert f"  {call}" in out

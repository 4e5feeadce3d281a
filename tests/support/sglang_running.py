"""Processes that run a layer of SGLang: one that an artifact serves, and one in Triton's interpreter."""

from pathlib import Path
from typing import Any

from helpers import ROOT, SUPPORT, python
from served import served

_SERVE = """
logging.disable(logging.WARNING)
from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.sglang import workloads as provider, layer as sglang_layer
from gdn_aot.providers.sglang.steps import Deployment, Group, Step
shape = find_model(sys.argv[3]).shape(8)
named = {"radix": True, "slots": int(sys.argv[2]), "scratch": 33, "merged": sys.argv[4] == "merged"}
for drafts, kind, query in ((0, "extend", 70), (0, "decode", 1), (3, "verify", 4)):
    deployment = Deployment(state="bfloat16", drafts=drafts)
    step = Step(kind=kind, groups=(Group(2, 64, query, tracked=True),), deployment=deployment, **named)
    sglang_layer.apply(shape, step, sglang_layer.inputs(shape, step, EMPTY))
"""


def serve(artifact: Path, folder: Path, slots: int, model: str, *, merged: bool = False) -> dict[str, Any]:
    """Make steps of a model at TP 8 on a pool of so many slots; returns what Triton compiled, timed and missed."""
    return served(_SERVE, artifact, slots, model, "merged" if merged else "apart", folder=folder)


_WARM = """
from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.sglang import workloads as provider
shape = find_model(sys.argv[2]).shape(int(sys.argv[3]))
for make in provider.WORKLOADS.values():
    for call in make().warm(shape, 300):
        make().run(shape, call)
"""


def warm(artifact: Path, folder: Path, model: str, tp: int) -> dict[str, Any]:
    """Make the calls that warm a process up; returns what Triton compiled, timed and missed."""
    return served(_WARM, artifact, model, tp, folder=folder)


def interpret(family: str, folder: Path) -> list[dict[str, Any]]:
    """Compare the layers of a family with float64, each row with a wrong state beside the right one."""
    program = (ROOT / "tests/providers/sglang_interpreted.py").read_text()
    interpreted = {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    found: list[dict[str, Any]] = python(program, SUPPORT, family, home=folder, extra=interpreted)
    return found


def check(rows: list[dict[str, Any]]) -> None:
    """Every row agrees with float64, and a wrong state is noticed."""
    for row in rows:
        assert row["wrong"] is None, row
        assert row["compared"] >= 3
        assert "state" in row["with another state"], "a wrong state is noticed"

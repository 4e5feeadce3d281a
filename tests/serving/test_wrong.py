"""Real kernels of FLA from a store whose index is wrong; every kind of fault is in ``triton_versions``."""

from pathlib import Path
from typing import Any

import storing
import wrong

FIRST = "gdn_aot.install(); become(); import logging; said = []\n"
FIRST += "logging.getLogger('gdn_aot').addHandler(handler := logging.Handler(logging.WARNING))\n"
FIRST += "handler.emit = lambda record: said.append(record.getMessage())\n"


def test_a_wrong_artifact(serve: Any, tmp_path: Path) -> None:
    """Each fault costs its key and is said once."""
    serve("install(); become(); done()")
    storing.rewrite(storing.place_of(tmp_path / "home"), wrong.spoil)
    got = serve(FIRST + "decode(); prefill(); prefill(); done(said=said)")
    assert (len(got["launched"]), got["launched"].count(wrong.NORM)) == (15, 4)
    for expected in wrong.SAID:
        found = [said for said in got["said"] if f":{expected.kernel}: " in said and expected.what in said]
        assert len(found) == 1, (expected, got["said"])
    assert wrong.NORM in got["compiled"]

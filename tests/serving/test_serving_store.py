"""The loader and its store: one that cannot be written, and one that is changed under a serving process."""

from pathlib import Path
from typing import Any

import pytest
import storing
from storing import check_store

from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import remove

DECODE = "fused_recurrent_gated_delta_rule_fwd_kernel"
UNPRIVILEGED = """
import os
import storing
privilege = storing.no_privilege()
privilege.__enter__()
try:
    open(os.environ["GDN_AOT_HOME"] + "/store/probe", "w")
except PermissionError:
    pass
else:
    raise SystemExit("the store can be written all the same")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The home of the processes that serve."""
    return tmp_path / "home"


def test_a_read_only_store_serves(serve: Any, place: Path) -> None:
    serve("install(); become(); done()")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    with storing.read_only(place / "store"):
        got = serve(f"{UNPRIVILEGED}\ngdn_aot.install(strict=True); become(); decode(); prefill(); done()")
        assert (got["compiled"], got["benchmarked"]) == ([], 0)
        got = serve(f"{UNPRIVILEGED}\ninstall(strict=True); become(); decode(); done()")
        assert (got["compiled"], got["benchmarked"]) == ([], 0)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_a_read_only_store_that_lacks_the_artifact(serve: Any, place: Path) -> None:
    """It is unpacked in memory."""
    serve("install(); become(); done()")
    remove(Store(str(place)), ["*"])
    with storing.read_only(place / "store"):
        got = serve(f"{UNPRIVILEGED}\ninstall(strict=True); become(); decode(); done()")
    assert got["compiled"] == []
    assert Store(str(place)).artifacts() == []


@pytest.mark.parametrize("change", ["shutil.rmtree(store.root)", "prune(store, keep=0)"])
def test_what_was_opened_outlives_the_store(serve: Any, place: Path, change: str) -> None:
    """A process serves what it found when it was started, whatever becomes of the store."""
    got = serve(f"""
import shutil
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import prune
store = Store({str(place)!r})
install(); become(); decode()
{change}
prefill(); done()
""")
    assert (got["compiled"], got["benchmarked"]) == ([], 0)
    assert Store(str(place)).artifacts() == []


def test_a_file_whose_copy_in_the_store_is_damaged(serve: Any, place: Path) -> None:
    """It is unpacked again."""
    serve("install(); become(); done()")
    storing.place_of(place).joinpath("pack").write_bytes(b"")
    got = serve("install(strict=True); become(); decode(); done()")
    assert got["compiled"] == []
    assert len(check_store(place)) == 1

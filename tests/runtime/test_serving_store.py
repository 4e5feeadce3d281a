"""The loader and its store: one that cannot be written, and one that is changed under a serving process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import storing
from registry.checking import check_store

from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import prune, remove

DECODE = "fused_recurrent_gated_delta_rule_fwd_kernel"
UNPRIVILEGED = """
import os, storing
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


def test_what_was_opened_outlives_the_store(serve: Any, place: Path) -> None:
    got = serve(f"""
import shutil
install(); become(); decode()
shutil.rmtree({str(place / "store")!r})
prefill(); done()
""")
    assert (got["compiled"], got["benchmarked"]) == ([], 0)
    assert not (place / "store").exists()


def test_what_vanished_before_it_was_opened_is_compiled(serve: Any, place: Path) -> None:
    got = serve(f"""
import shutil
install(); become()
shutil.rmtree({str(place / "store/packs")!r})
decode(); done()
""")
    assert got["compiled"] == [DECODE]
    (miss,) = got["report"]["misses"]
    assert "no pack has blob" in miss["reason"]
    assert not (place / "store/packs").exists()


def test_pruned_and_packed_anew_under_a_serving_process(serve: Any, place: Path, tmp_path: Path) -> None:
    """Another build shares the pack; when it goes, the rest of the pack is written anew."""
    got = serve(f"""
import storing
from pathlib import Path
from gdn_aot.store.pack_writer import write_pack
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import prune
install(); become()
place = Path({str(place)!r})
everything = storing.contents(place)
before = storing.packs(place)
everything["00" * 32] = b"nobody needs this"
write_pack(str(place / "store/packs"), everything)
before[0].unlink()
decode()
middle = storing.packs(place)
removed = prune(Store(str(place))).blobs
prefill()
done(changed=len({{*before, *middle, *storing.packs(place)}}), removed=removed)
""")
    assert (got["compiled"], got["benchmarked"]) == ([], 0)
    assert got["removed"] == 1
    assert got["changed"] == 2
    assert len(check_store(place)) == 1
    shutil.rmtree(tmp_path / "triton", ignore_errors=True)
    assert prune(Store(str(place))).freed == 0

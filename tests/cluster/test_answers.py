"""What nodes answer, without a cluster: the build cache here takes nothing that is not what was asked for."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gdn_aot.catalogue.providers import get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.compiling.cluster import RayCompiling
from gdn_aot.compiling.executor import Answer, CompileTask, Order
from gdn_aot.errors import NotWritableError

CUBIN = b"\x7fELF"
RECORD = {
    "cubin": hashlib.sha256(CUBIN).hexdigest(),
    "metadata": {"shared": 1, "num_warps": 4},
    "registers": 8,
    "local": 0,
}
GOOD = {"task": 0, "object": "a" * 64, "reused": False, "seconds": 1.5, "record": RECORD, "cubin": CUBIN, "text": "ptx"}


def _answers(tmp_path: Path, *messages: object) -> tuple[BuildCache, list[Answer]]:
    """Have a node answer this to as many tasks, numbers 7 and up, with keys 0000... and up."""
    cache = BuildCache(tmp_path / "cache")
    order = Order(
        provider=get_provider("fla"), target=get_target("sm_90"), compiler={}, cache=cache, jobs=1, timeout=1.0
    )
    tasks = tuple(
        CompileTask(number=7 + at, module="m", qualname="k", specialization={}, key=str(at) * 64, ptx=True)
        for at in range(len(messages))
    )
    executor = SimpleNamespace(
        expect=lambda *_: None, cpus=lambda: (1, 1), batches=2, next=lambda: (tasks, list(messages))
    )
    compiling = RayCompiling(cast("Any", executor), order)
    return cache, sorted((compiling.receive() for _ in tasks), key=lambda answer: answer.number)


def test_what_a_node_made_is_here(tmp_path: Path) -> None:
    rejected, failed = {"task": 0, "rejected": "too large", "seconds": 0.5}, {"task": 1, "failed": "it crashed"}
    cache, (first, second, third) = _answers(tmp_path, rejected, failed, {**GOOD, "task": 2, "event": "compiled"})
    assert (first.rejected, first.seconds, second.failed) == ("too large", 0.5, "it crashed")
    assert (third.number, third.object, third.seconds) == (9, "a" * 64, 1.5)
    outcomes = [cache.launch(str(at) * 64) for at in range(3)]
    assert [outcome and outcome.rejected for outcome in outcomes] == ["too large", None, None]
    assert outcomes[1] is None
    made = cache.object("a" * 64)
    assert made is not None
    assert (cache.cubin(made.cubin), cache.ptx(made.cubin)) == (CUBIN, "ptx")


@pytest.mark.parametrize(
    "bad",
    [
        {**GOOD, "object": "../../../../outside"},
        {**GOOD, "object": 3},
        {**GOOD, "cubin": b"another"},
        {**GOOD, "cubin": None},
        {**GOOD, "record": None},
        {**GOOD, "record": {**RECORD, "cubin": "/etc/x"}},
        {**GOOD, "text": 1},
        {"task": 0, "object": "a" * 64},
        {"task": -1, "failed": "x"},
        {"task": 5, "failed": "x"},
        {"task": "0", "failed": "x"},
        {"task": 0},
        {},
        None,
    ],
)
def test_what_is_no_answer_is_a_failure_and_writes_nothing(tmp_path: Path, bad: object) -> None:
    if isinstance(bad, dict) and str(bad.get("object")).startswith(".."):
        bad["object"] = str(tmp_path / "outside")
    cache, (first, second) = _answers(tmp_path, bad, {"task": 1, "failed": "it crashed"})
    assert first.number == 7
    assert "the node" in (first.failed or "")
    assert first.object is None
    assert second.failed == "it crashed"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cache.launch("0" * 64) is None


def test_a_node_that_cannot_write_ends_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotWritableError, match="on a node: no space"):
        _answers(tmp_path, {"task": 0, "not_writable": "no space"})

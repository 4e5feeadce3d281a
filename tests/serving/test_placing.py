"""Files of artifacts put in an engine's cache: for the sources that they were made from, whole, over nobody else's."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from factory import sha256

from gdn_aot.serving.placing import KEPT, WRITTEN, place
from gdn_aot.store.index_records import PlacedRecord

NAME = "vllm-model_executor-models-new-Model.json"
SOURCE = b"class Model: ..."


def info(digest: str, **more: object) -> bytes:
    """Return a file as vLLM writes it."""
    return json.dumps({"hash": digest, "modelinfo": {"architecture": "Model", **more}}, indent=2).encode()


OURS = info("of these sources")


class Engine:
    """An engine that is installed, with a cache."""

    def __init__(self, folder: Path) -> None:
        self.cache, self.source = folder / "cache", folder / "site/vllm/model.py"
        self.package = str(folder / "site/vllm/__init__.py")
        self.file = self.cache / "modelinfos" / NAME
        self.source.parent.mkdir(parents=True)
        self.source.write_bytes(SOURCE)

    def place(self, **changed: Any) -> str:
        """Place the file; return what became of it."""
        record = PlacedRecord("vllm-model-info", NAME, [("vllm/model.py", sha256(SOURCE))], sha256(OURS))
        record = record._replace(**changed)
        return place([record], {sha256(OURS): OURS}.__getitem__, str(self.cache), self.package)[record.name]

    def there(self, content: bytes) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(content)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


def test_it_is_written_once(engine: Engine) -> None:
    assert engine.place() == WRITTEN
    assert engine.file.read_bytes() == OURS
    before = engine.file.stat()
    assert engine.place() == KEPT
    after = engine.file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [file.name for file in engine.file.parent.iterdir()] == [NAME]


def test_what_the_engine_made_of_the_same_source_stays(engine: Engine) -> None:
    own = info("of these sources", more=True)
    engine.there(own)
    assert engine.place() == KEPT
    assert engine.file.read_bytes() == own


@pytest.mark.parametrize(
    "content",
    [info("of others"), b"", b"{", b"[]", b'{"hash": null}', b'{"hash": "of these sources"}', b"x" * (1 << 20)],
)
def test_what_the_engine_would_replace_is_replaced(engine: Engine, content: bytes) -> None:
    engine.there(content)
    assert engine.place() == WRITTEN
    assert engine.file.read_bytes() == OURS


@pytest.mark.parametrize("changed", [SOURCE + b"\n", None])
def test_other_sources(engine: Engine, changed: bytes | None) -> None:
    """Neither is anything written, nor is what is there touched."""
    if changed is None:
        engine.source.unlink()
    else:
        engine.source.write_bytes(changed)
    assert engine.place() == "vllm/model.py is not the one that it was made from"
    assert not engine.cache.exists()
    newer = info("of newer sources")
    engine.there(newer)
    assert engine.place() == "vllm/model.py is not the one that it was made from"
    assert engine.file.read_bytes() == newer


@pytest.mark.parametrize(
    "changed", [{"kind": "vllm-code"}, {"name": "../x.json"}, {"name": "/x.json"}, {"sources": []}], ids=str
)
def test_what_is_not_known(engine: Engine, changed: dict[str, Any]) -> None:
    assert engine.place(**changed) not in {WRITTEN, KEPT}
    assert not engine.cache.exists()


def test_many_at_once(engine: Engine) -> None:
    """Whoever reads sees nothing or all of it."""
    seen, done = set(), []
    writers = [threading.Thread(target=lambda: done.append(engine.place())) for _ in range(16)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if engine.file.exists():
            seen.add(engine.file.read_bytes())
    for writer in writers:
        writer.join()
    assert seen <= {OURS}
    assert {*done} <= {WRITTEN, KEPT}
    assert len(done) == 16
    assert [file.name for file in engine.file.parent.iterdir()] == [NAME]


def test_a_cache_that_is_none(engine: Engine) -> None:
    engine.cache.touch()
    with pytest.raises(OSError, match="cache"):
        engine.place()

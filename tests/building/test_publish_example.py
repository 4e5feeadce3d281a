"""``examples/publish/publish.sh`` does what it says, with a real build."""

import re
from pathlib import Path

from builds import Built
from registries import listed

from examples import EXAMPLES, shell, tools
from gdn_aot.registry.open import open_registry

__all__ = ["tools"]


def test_publish(sm_120: Built, tools: Path, tmp_path: Path) -> None:
    """In a home that has what was compiled before; twice, the second time with the keys that are there."""
    script, work = EXAMPLES / "publish/publish.sh", tmp_path / "work"
    known = {"GDN_AOT_HOME": str(sm_120.home), "CALLS": "100"}
    said = shell(f"{script} ../registry qwen3.5-9b sm_120", tools, work, known)
    assert ", 0 misses, " in said
    assert re.search(r"-sm_120: would install; \d+ bytes; signed by [0-9a-f]+", said)
    (entry,) = listed(open_registry(str(tmp_path / "registry")))
    assert entry.endswith("-sm_120")
    again = shell(f"{script} ../registry qwen3.5-9b sm_120", tools, work, known)
    assert re.search(r"^unchanged +fla\S+-sm_120 ", again, re.MULTILINE)

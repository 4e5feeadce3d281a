import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, run

from gdn_aot._files import parse_toml

START = """
import json, sys
from vllm.plugins import load_general_plugins
def loaded():
    kernels = [name for name in sys.modules if "flash_linear_attention" in name or ".fla." in name]
    return ["gdn_aot.serving.loader" in sys.modules, kernels]
"""


def entry_points(folder: Path) -> Path:
    """Return a directory in which gdn-aot is installed as far as entry points go."""
    metadata = folder / "site/gdn_aot-0.0.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gdn-aot\nVersion: 0.0.0\n")
    groups = parse_toml((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return metadata.parent


@pytest.fixture
def vllm(tmp_path: Path) -> Any:
    """Run code with gdn-aot installed as far as entry points go; return (what it printed last, stderr)."""
    site = entry_points(tmp_path)

    def vllm(code: str, first: str | Path = "", **extra: str) -> tuple[Any, str]:
        settings = {"VLLM_TARGET_DEVICE": "cuda", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
        settings["VLLM_CACHE_ROOT"] = str(tmp_path / "cache")
        path = os.pathsep.join([*filter(None, [str(first)]), str(ROOT), str(site)])
        done = run(
            [os.environ["GDN_AOT_TEST_VLLM"], "-c", START + code],
            tmp_path / "home",
            {**settings, **extra, "PYTHONPATH": path},
            tmp_path,
        )
        assert done.code == 0, done.err[-3000:]
        return json.loads(done.out.splitlines()[-1]), done.err

    return vllm

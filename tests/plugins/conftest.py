import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import ABSENT, ROOT, run

from gdn_aot._files import parse_toml

VLLM_START = """
import json, sys
import vllm.logger
if hasattr(vllm.logger, "configure_logging"):  # from 0.31.0 on; all processes but the first do so before their plugins
    from vllm.config.logging import LoggingConfig
    vllm.logger.configure_logging(LoggingConfig())
from vllm.plugins import load_general_plugins
def loaded():
    kernels = [name for name in sys.modules if "flash_linear_attention" in name or ".fla." in name]
    return ["gdn_aot.serving.loader" in sys.modules, kernels]
"""
SGLANG_START = """
import json, sys
from sglang.srt.plugins import load_plugins
def loaded():
    kernels = [name for name in sys.modules if name.startswith("sglang.") and ".fla." in name]
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


def play(folder: Path, python: str, code: str, *path: str | Path, exits: int = 0, **extra: str) -> tuple[Any, str]:
    """Run code by an engine's Python; return (what it printed last, stderr)."""
    places = os.pathsep.join(map(str, filter(None, path)))
    done = run([python, "-c", code], folder / "home", {**extra, "PYTHONPATH": places}, folder)
    assert done.code == exits, done.err[-3000:]
    lines = done.out.splitlines()
    return json.loads(lines[-1]) if lines else None, done.err


@pytest.fixture
def vllm(tmp_path: Path) -> Any:
    """Run code with vLLM, and gdn-aot installed as far as entry points go; return (what it printed last, stderr)."""
    site = entry_points(tmp_path)

    def vllm(code: str, first: str | Path = "", **extra: str) -> tuple[Any, str]:
        settings = {"VLLM_TARGET_DEVICE": "cuda", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
        settings["VLLM_CACHE_ROOT"] = str(tmp_path / "cache")
        python = os.environ["GDN_AOT_TEST_VLLM"]
        return play(tmp_path, python, VLLM_START + code, first, ROOT, site, **{**settings, **extra})

    return vllm


@pytest.fixture
def sglang(tmp_path: Path) -> Any:
    """Run code with SGLang, likewise."""
    site = entry_points(tmp_path)

    def sglang(code: str, *, exits: int = 0, **extra: str) -> tuple[Any, str]:
        python = os.environ["GDN_AOT_TEST_SGLANG"]
        return play(tmp_path, python, SGLANG_START + code, site, ABSENT, ROOT, exits=exits, **extra)

    return sglang

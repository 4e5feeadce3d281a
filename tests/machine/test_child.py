"""Child processes and the process that forks them."""

import os
from pathlib import Path

import pytest

from gdn_aot.machine.child import Child
from gdn_aot.machine.environment import child_environment

_PROGRAM = """
import sys
ahead = "torch" in sys.modules
from gdn_aot.machine.child import serve

class Server:
    def __init__(self, channel, first):
        channel.send({"event": "made", "ahead": ahead, "asked": first["asked"]})

def main():
    serve(Server)
"""


@pytest.mark.parametrize("asked_cuda", [False, True])
def test_nothing_is_imported_ahead_if_that_keeps_children_from_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asked_cuda: bool
) -> None:
    """PyTorch refuses CUDA in a process that was forked from one in which it has asked the driver for something."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("from torch import cuda\n")
    (tmp_path / "torch/cuda.py").write_text(f"def _is_in_bad_fork(): return {asked_cuda}\n")
    (tmp_path / "answering.py").write_text(_PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    for number in range(2):
        with Child("answering") as child:
            child.send({"asked": number})
            assert child.receive() == {"event": "made", "ahead": not asked_cuda, "asked": number}


@pytest.mark.parametrize("keep", [False, True])
def test_settings_that_change_keys_stay_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, *, keep: bool
) -> None:
    settings = {"TRITON_DEBUG": "1", "FLA_USE_FAST_OPS": "1", "SGLANG_GDN_CHUNK_H_NUM_WARPS": "8"}
    for name, value in {**settings, "LD_PRELOAD": "", "TRITON_PTXAS_PATH": "ptxas"}.items():
        monkeypatch.setenv(name, value)
    found = child_environment("/scratch", {"SGLANG_PLUGINS": "gdn_aot"}, keep_settings=keep)
    assert {name: found[name] for name in settings if name in found} == (settings if keep else {})
    assert (found["TRITON_PTXAS_PATH"], found["SGLANG_PLUGINS"]) == ("ptxas", "gdn_aot")
    assert "LD_PRELOAD" not in found

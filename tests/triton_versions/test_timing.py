"""How long the installed Triton compiled is told, and whoever listened before is told too."""

from pathlib import Path

from helpers import SUPPORT, python

CODE = f"""
import json, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(SUPPORT)!r}]
import triton
from gdn_aot.triton_internals import timing
told, others = [], []
triton.knobs.compilation.listener = lambda **said: others.append(said["cache_hit"])
assert sys.modules[timing.KNOBS] is triton.knobs
timing.time_compiles(lambda *one: told.append(one))
import launching
driver = launching.start("sm_90")
import torch
x = torch.zeros(64)
from kernels import tuned
def launch(n):
    tuned.fn[(1,)](x, None, y=x, n=n, WIDE=True, BLOCK=64, num_warps=1)
launch(64)
launch(64)
kernel = tuned
while not hasattr(kernel, "device_caches"):
    kernel = kernel.fn
kernel.device_caches.clear()
launch(64)
print(json.dumps([told, others]))
"""


def test_what_is_compiled_is_told_once_and_what_was_cached_is_not(tmp_path: Path) -> None:
    told, others = python(CODE, home=tmp_path, extra={"TRITON_CACHE_DIR": str(tmp_path / "triton")})
    ((module, name, seconds),) = told
    assert module.endswith("kernels")
    assert name
    assert 0.001 < seconds < 600
    assert others == [False, True]

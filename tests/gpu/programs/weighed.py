"""What the kernels of an older target, chosen as a build chooses them, take of this device as PTX."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu import calls

from gdn_aot.building.pipeline import Job
from gdn_aot.catalogue.models import select_shapes
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.measuring import check
from gdn_aot.measuring.card import Cuda
from gdn_aot.store.index_records import BinaryRecord
from gdn_aot.tracing.wanted import Wanted

ROOT = Path(__file__).parents[3]
PLACE = "GDN_AOT_TEST_WEIGHED"
"""Environment variable: the file that the checking process writes."""


class Weighed(Cuda):
    """The device, which notes what loading and launching took of it beside PyTorch's own memory."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: dict[str, dict[str, int]] = {}

    def _left(self) -> int:
        self.synchronize()
        return int(self._torch.cuda.mem_get_info()[0]) + int(self._torch.cuda.memory_reserved())

    def _note(self, kernel: str, what: str, before: int) -> None:
        taken = self._taken.setdefault(kernel, {"loaded": 0, "launched": 0})
        taken[what] += before - self._left()
        Path(os.environ[PLACE]).write_text(json.dumps(self._taken))

    def load(self, jit: Any, record: BinaryRecord, code: bytes) -> Any:
        """Load a binary as `Cuda` does, and launch it so; both are weighed."""
        name, before = jit.__name__, self._left()
        launch = super().load(jit, record, code)
        self._note(name, "loaded", before)

        def weighed(grid: tuple[int, int, int], arguments: Mapping[str, Any]) -> None:
            before = self._left()
            launch(grid, arguments)
            self._note(name, "launched", before)

        return weighed


def silent(_done: int, _total: int, _text: str) -> None:
    pass


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Check one model for ``options["arch"]`` and return what its launches took, in bytes, by kernel and in all."""
    folder = Path(tempfile.mkdtemp(prefix="weighed-"))
    os.environ[PLACE] = str(folder / "weighed.json")
    wanted = Wanted(
        provider=get_provider("fla"),
        shapes=select_shapes(["qwen3.5-9b"], [1]).shapes,
        fp16_fallback=True,
        limits=Limits(max_tokens=2048, max_batch=2),
        workloads=("transformers-prefill", "transformers-decode", "gated-norm"),
    )
    job = Job(
        wanted=wanted,
        cache=BuildCache(folder / "cache"),
        output=folder,
        jobs=os.cpu_count() or 1,
        timeout=300,
        tuning_root=ROOT / "artifacts" / "tuning",
        keep_going=True,
        ptx=True,
    )
    task = check.CheckTask(job=job, output=folder, card="gpu.programs.weighed:Weighed")
    target = get_target(options["arch"])
    built = check.prepare(task, target, silent)
    results = check.run(task, built, native=False, progress=silent)
    local = max(made.local for made in built.run.kept(built.choices).values())
    kernels = json.loads((folder / "weighed.json").read_text())
    return {
        "kernels": kernels,
        "taken": sum(part for taken in kernels.values() for part in taken.values()),
        "calls": results.made,
        "failures": results.failures,
        "local": local,
    }


if __name__ == "__main__":
    calls.finish(main)

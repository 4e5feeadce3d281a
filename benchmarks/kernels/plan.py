"""What is measured, and all of it that needs no card: the prompts' launches, compiled candidates, FLA's binaries."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.building import pipeline
from gdn_aot.catalogue.models import distinct, select_shapes
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.machine import installed
from gdn_aot.measuring import plan
from gdn_aot.measuring.client import CARD, Method
from gdn_aot.records import objective
from kernels import calls
from kernels.worker import ask

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.targets import Target

SILENCE = 60.0


class Noting(BuildCache):
    """A build cache that knows which of its files were asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.used: set[Path] = set()

    def _path(self, kind: str, key: str) -> Path:
        path = super()._path(kind, key)
        self.used.add(path)
        return path


@dataclass(frozen=True, kw_only=True)
class Group:
    """Shapes that kernels cannot tell apart; the first is measured."""

    shape: ModelShape
    names: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Name of a directory for the first shape."""
        return f"{self.shape.name}-tp{self.shape.tp}"


def groups(wanted: Iterable[str]) -> list[Group]:
    """Read ``model:tp`` and put shapes with the same kernels together."""
    found: dict[ModelShape, list[str]] = {}
    for text in wanted:
        model, _, tp = text.partition(":")
        (shape,) = select_shapes([model], [int(tp or 1)]).shapes
        alike = next((one for one in found if len(distinct([one, shape])) == 1), shape)
        found.setdefault(alike, []).append(f"{shape.name} tp {shape.tp}")
    return [Group(shape=shape, names=tuple(names)) for shape, names in found.items()]


class Preparation:
    """Prepares one shape after another in a build cache."""

    def __init__(self, options: argparse.Namespace, target: Target) -> None:
        self.cache = Noting(options.cache_dir.absolute())
        self.target = target
        self.limits = Limits(max_tokens=max(options.tokens), max_batch=1)
        self._options = options

    def method(self) -> Method:
        """Return how to measure."""
        dry = {"card": "kernels.dry:Card", "options": {"target": self.target.name}}
        return Method(
            provider=calls.PROVIDER,
            workloads=(calls.WORKLOAD,),
            limits=self.limits,
            tokens=self._options.tokens,
            gate_tokens=(),
            rounds=self._options.rounds,
            search_seconds=self._options.search_seconds,
            silence=SILENCE,
            **(dry if self._options.dry else {"card": CARD, "options": {}}),
        )

    def prompts(self, group: Group) -> list[calls.Prompt]:
        """Return what the call of one shape launches at each length."""
        spec = {
            "target": self.target.name,
            "shape": asdict(group.shape),
            "limits": asdict(self.limits),
            "tokens": self._options.tokens,
        }
        return calls.prompts(ask("trace", **spec))

    def compile(self, group: Group, prompts: list[calls.Prompt]) -> plan.Prepared:
        """Compile every candidate of the launches of one shape."""
        options, provider = self._options, get_provider(calls.PROVIDER)
        job = pipeline.Job(
            provider=provider,
            shapes=(group.shape,),
            fp16_fallback=False,
            limits=self.limits,
            workloads=(calls.WORKLOAD,),
            cache=self.cache,
            tuning_root=None,
            jobs=options.jobs,
            timeout=300.0,
            all_candidates=True,
            keep_going=True,
            output=self.cache.root,
        )
        pipeline.check_environment(job, [self.target])
        installed.require(provider.name)
        task = plan.Task(
            job=job,
            target=self.target,
            method=self.method(),
            objective=objective.DEFAULT,
            wide=options.search == "wide",
            budget=None,
            resume=False,
            path=self.cache.root / "none.json",
        )
        shown = [0]

        def progress(done: int, total: int, text: str) -> None:
            if done >= shown[0] + 50 or not total:
                shown[0] = done
                print(f"  {text} {done}/{total}", file=sys.stderr, flush=True)

        return plan.prepare(task, progress, lambda trace: calls.narrow(trace, prompts))

    def artifact(self, group: Group) -> Path:
        """Return an artifact of one shape with the binaries of all of FLA's own candidates, built unless it is there.

        Raises:
            RuntimeError: It cannot be built.
        """
        from cold_start.session import command

        folder = self.cache.root / "artifacts" / group.folder
        if found := sorted(folder.glob("*.tar.zst"), key=lambda path: path.stat().st_mtime):
            return found[-1]
        shape, options = group.shape, self._options
        arguments = ["--arch", self.target.name, "--model", shape.name, "--tp", str(shape.tp)]
        arguments += ["--workload", calls.WORKLOAD, "--candidates", "all", "--max-batch", "1"]
        arguments += ["--max-tokens", str(self.limits.max_tokens), "--jobs", str(options.jobs), "--keep-going"]
        arguments += ["--cache-dir", str(self.cache.root), "--output", str(folder), "--json"]
        done = command(sys.executable, "-m", "gdn_aot", "build", *arguments, env={}, seconds=6 * 3600)
        if not done["ok"]:
            raise RuntimeError(f"building the artifact: {done['error']}\n{done['stderr']}")
        return Path(json.loads(done["stdout"])["artifacts"][0]["path"])


def seed(artifact: Path, into: Path) -> dict[str, Any]:
    """Write an artifact into a Triton cache, without the choices that it holds.

    Raises:
        RuntimeError: It cannot be written.
    """
    from cold_start.session import command

    done = command(sys.executable, "-m", "gdn_aot", "seed", str(artifact), "--into", str(into), "--json", env={})
    if not done["ok"]:
        raise RuntimeError(f"seeding: {done['error']}\n{done['stderr']}")
    removed = 0
    for path in into.rglob("*.autotune.json"):
        path.unlink()
        removed += 1
    document: dict[str, Any] = json.loads(done["stdout"])
    return {"binaries": document["binaries"], "choices_removed": removed}

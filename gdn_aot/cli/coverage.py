"""``gdn-aot coverage``."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out
from gdn_aot.cli._progress import Progress
from gdn_aot.errors import NothingSelectedError

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.catalogue.models import ModelShape

_SHOWN = 20
_MISSED = 5
"""Exit status when traffic would miss: the artifact fails its verification."""


@click.command("coverage", epilog=_options.other_checks("coverage"))
@click.argument("file", type=_options.path)
@_options.many("--model", "NAME", "Model of the catalogue; repeatable, or all.")
@click.option("--tp", metavar="N,...", help="Tensor-parallel sizes.  [default: the artifact's]")
@_options.many("--workload", "GLOB", "Only these call patterns; repeatable.")
@_options.default(
    "--calls",
    1000,
    "Random calls; for an artifact of an engine, as many again of that engine.",
    type=click.IntRange(min=1),
)
@_options.default("--seed", 0, "Seed of the traffic.")
@_options.as_json
def command(
    file: Path, *, model: tuple[str, ...], tp: str | None, workload: tuple[str, ...], as_json: bool, **traffic: int
) -> None:
    """Replay random traffic against an artifact; exit 5 if any launch would miss. Needs no GPU.

    The traffic is of the provider's usual call patterns, and of those on request that the artifact has.
    """
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.building.coverage import built_shapes, check_versions, cover
    from gdn_aot.catalogue.models import parse_tp
    from gdn_aot.catalogue.providers import get_provider
    from gdn_aot.cli._job import select_workloads
    from gdn_aot.machine.installed import require_toolchain

    start = time.monotonic()
    require_toolchain("coverage")
    manifest = open_artifact(file).manifest
    check_versions(manifest)
    provider = get_provider(manifest.provider.name)
    workloads = select_workloads(provider, manifest.mode, workload, ())
    if not workload:
        requested = {*provider.on_request, *provider.training_on_request}.intersection(manifest.workloads)
        workloads += tuple(sorted(requested))
    shapes = _selected(built_shapes(manifest), model, parse_tp(tp) if tp else None)
    with Progress("coverage") as progress:
        result = cover(manifest, shapes, workloads, progress.update, engine=not workload, **traffic)
    result["seconds"] = round(time.monotonic() - start, 3)
    if as_json:
        emit_json(result)
    else:
        out(
            f"{result['calls']} calls, {result['launches']} launches, {result['hits']} hits, "
            f"{len(result['misses'])} misses, {len(result['not_covered'])} listed as not covered"
        )
        for miss in result["misses"][:_SHOWN]:
            key = miss["autotune_key"] or miss["launch_key"]
            out(f"  miss: {miss['kernel']}: {miss['reason']} ({miss['count']} times), first in {miss['call']}")
            out(f"        {key}")
        for refusal in result["refused"]:
            note(f"refused by the provider {refusal['count']} times: {refusal['reason']}")
    if result["misses"]:
        click.get_current_context().exit(_MISSED)


def _selected(
    built: tuple[ModelShape, ...], models: tuple[str, ...], sizes: tuple[int, ...] | None
) -> tuple[ModelShape, ...]:
    """Return the shapes to replay: those of the artifact, or of the models asked for, at the sizes asked for.

    A model of the catalogue is replayed even if the artifact was not built for it: its misses are what was asked for.

    Raises:
        NothingSelectedError: None is left.
        UsageError: A model is neither in the artifact nor in the catalogue.
    """
    from gdn_aot.catalogue.models import all_models, select_shapes

    names = list(chain.from_iterable(name.split(",") for name in models))
    own = {shape.name for shape in built} - {model.name for model in all_models()}
    chosen = [shape for shape in built if not names or shape.name in own.intersection(names)]
    if catalogue := [name for name in names if name not in own]:
        every = sizes or tuple(dict.fromkeys(shape.tp for shape in built))
        chosen += select_shapes(catalogue, every, dtypes=list(dict.fromkeys(shape.dtype for shape in built))).shapes
    left = tuple(dict.fromkeys(shape for shape in chosen if sizes is None or shape.tp in sizes))
    if not left:
        raise NothingSelectedError(
            f"the artifact has no such shape; it has {', '.join(f'{shape.name} tp {shape.tp}' for shape in built)}",
            hint="choose --model and --tp from those",
        )
    return left

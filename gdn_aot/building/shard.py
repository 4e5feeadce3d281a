"""What a shard says of itself, so that merging can tell whether shards belong together."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from gdn_aot._files import file_sha256
from gdn_aot.artifact.shard import Checked, Inputs, Shard
from gdn_aot.catalogue.targets import all_targets
from gdn_aot.records import numerics as results
from gdn_aot.records import tuning as record
from gdn_aot.tracing import sources

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.building.pipeline import Job
    from gdn_aot.building.split import Part
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Choices
    from gdn_aot.tracing.records import Trace


def describe(
    job: Job, target: Target, part: Part, whole: Trace, trace: Trace, choices: Choices, manifest: Manifest
) -> Shard:
    """Return what the manifest of a shard has besides that of an artifact.

    Args:
        job: What is built.
        target: For which target.
        part: Which part of it.
        whole: The first trace, undivided.
        trace: The part of the trace that was chosen for.
        choices: What was chosen.
        manifest: The manifest without it.
    """
    found = results.verdict(job.numerics_root, job.provider, target, trace)
    return Shard(
        number=part.number,
        of=part.of,
        keys=len(trace.tunings),
        all_keys=len(whole.tunings),
        candidates="all" if job.all_candidates else "chosen",
        inputs=_inputs(job, target, whole),
        checked=None if found.final else _checked(found, results.digests(trace, choices)),
        spare=_spare(trace, choices, manifest),
    )


def _checked(found: results.Verdict, packed: set[str]) -> Checked:
    good = packed & found.good
    return Checked(where=found.where, packed=tuple(sorted(packed)), good=tuple(sorted(good)))


def _inputs(job: Job, target: Target, whole: Trace) -> Inputs:
    distribution, version = job.provider.distribution, whole.provider_version
    tuning, numerics = job.tuning_root, job.numerics_root
    records = [record.record_path(tuning, other.name, distribution, version) for other in all_targets() if tuning]
    checked = results.record_path(numerics, target.name, distribution, version) if numerics else None
    return Inputs(
        code=sources.code_digest(job.provider),
        trace=trace_digest(whole),
        tuning=_files_digest(records, tuning),
        numerics=file_sha256(checked) if checked is not None and checked.is_file() else "",
    )


def trace_digest(trace: Trace) -> str:
    """Return the SHA-256 of everything in a trace but the time that it took."""
    plain = json.loads(trace.to_json())
    del plain["seconds"]
    return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def _files_digest(paths: Iterable[Path], root: Path | None) -> str:
    """Return one digest of the files that are there, with their paths below ``root``."""
    found = [(str(path.relative_to(root)), file_sha256(path)) for path in paths if root and path.is_file()]
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def _spare(trace: Trace, choices: Choices, manifest: Manifest) -> tuple[tuple[int, int], ...]:
    """Return the places of the binaries that neither a choice nor a plain launch leads to."""
    caused = set(trace.plain).union(*(chosen.launches for chosen in choices.chosen))
    named = {(trace.kernels[trace.launches[index].kernel].name, trace.launches[index].key) for index in caused}
    return tuple(
        (outer, inner)
        for outer, kernel in enumerate(manifest.kernels)
        for inner, binary in enumerate(kernel.binaries)
        if (f"{kernel.module}:{kernel.qualname}", binary.launch_key) not in named
    )

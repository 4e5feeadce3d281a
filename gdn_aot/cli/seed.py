"""``gdn-aot seed``."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gdn_aot._files import is_folder, is_there
from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out, out_path
from gdn_aot.errors import NoArtifactError, NotWritableError, Problem, UsageError
from gdn_aot.serving.placing import KEPT, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.store.stored import StoredArtifact

_SUMS = ("binaries", "choices", "written", "kept")


@click.command("seed")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path())
@click.option(
    "--into", required=True, type=_options.path, metavar="DIR",
    help="The cache, for TRITON_CACHE_DIR. Created if it does not exist.",
)  # fmt: skip
@click.option(
    "--vllm-cache", type=_options.path, metavar="DIR",
    help="Also write vLLM's inspections of model classes here, for VLLM_CACHE_ROOT.",
)  # fmt: skip
@_options.quiet
@_options.as_json
def command(files: tuple[str, ...], *, into: Path, vllm_cache: Path | None, quiet: bool, as_json: bool) -> None:
    """Write artifacts into a Triton cache, for processes that do not import gdn_aot. Needs no GPU.

    FILE is an artifact file, or the directory of an installed artifact as gdn-aot fetch prints it; or several of these,
    a line for each. Without FILE, writes every artifact of the store that fits the installed provider and Triton.
    Refuses artifacts that a known publisher has revoked, and with GDN_AOT_TRUST=signed unsigned ones. The signature of
    a file is beside it, as NAME.sig.json.

    Such processes find every binary and every autotuning choice in the cache if they have the same Triton, provider and
    TRITON_* and FLA_* variables as here. Keeps the content of DIR; seeding again repairs broken entries.

    With --vllm-cache vLLM need not start a process to inspect the model, if its sources are those of the build.

    \b
    Example:
      gdn-aot seed gdn-aot-fla0.6.0-triton3.6.0-sm_90.tar.zst --into /cache/triton
      gdn-aot seed "$(gdn-aot fetch --arch sm_90 --quiet)" --into /cache/triton
      gdn-aot seed --into /cache/triton
      gdn-aot seed --into /cache/triton --vllm-cache ~/.cache/vllm
      TRITON_CACHE_DIR=/cache/triton python serve.py
    """  # noqa: D301 - \b is click's
    from gdn_aot.building.seed import seed
    from gdn_aot.machine.installed import require_toolchain

    require_toolchain("seed")
    artifacts = [_open(place) for place in (_lines(files) if files else _fitting())]
    documents: list[dict[str, Any]] = []
    for artifact in artifacts:
        start = time.monotonic()
        done = seed(artifact, into)
        placed = _place(artifact, vllm_cache) if vllm_cache else {}
        seconds = round(time.monotonic() - start, 3)
        documents.append({**asdict(done), **({"placed": placed} if vllm_cache else {}), "seconds": seconds})
        if not as_json and not quiet:
            of = f"{artifact.manifest.identifier}: " if len(artifacts) > 1 else ""
            counts = f"{done.binaries} binaries and {done.choices} choices; {done.written} written, {done.kept} kept"
            out(f"{click.format_filename(done.path)}: {of}{counts}")
            if vllm_cache:
                counts = f"{len(placed)} files of vLLM; {_count(placed, WRITTEN)} written, {_count(placed, KEPT)} kept"
                out(f"{click.format_filename(vllm_cache)}: {of}{counts}")
        for name, what in () if quiet else placed.items():
            if what not in {WRITTEN, KEPT}:
                note(f"Warning: {name} is left out: {what}")
        for row in () if quiet else done.skipped:
            what = f"{row['binaries']} binaries and {row['choices']} choices left out"
            note(f"Warning: {row['kernel']}: {what}: {row['reason']}")
    if as_json:
        emit_json(documents[0] if len(documents) == 1 else _together(artifacts, documents))
    elif quiet:
        out_path(documents[0]["path"])


def _lines(files: Sequence[str]) -> list[str]:
    """Return the places that arguments name: what ``fetch --quiet`` printed is one argument with a line for each.

    Raises:
        UsageError: They name none, as where ``fetch`` failed.
    """
    lines = [line for file in files for line in ([file] if is_there(file) else file.splitlines())]
    places = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not places:
        raise UsageError("FILE is empty", hint="gdn-aot fetch --quiet prints nothing if it fails: see its message")
    return places


def _fitting() -> Iterator[str]:
    """Yield the artifacts of the store that fit, of each identifier the build that the loader prefers.

    Raises:
        NoArtifactError: There are none.
        UnreadableError: Whether one fits cannot be seen.
    """
    from gdn_aot.serving.find import unfit_index
    from gdn_aot.store import upkeep
    from gdn_aot.store.store import Store, default_home

    store = Store(default_home())
    rejected = []
    found = False
    artifacts = upkeep.ls(store)
    if error := upkeep.unreadable(store, artifacts):
        raise error
    for artifact in artifacts:
        reason = artifact.problem or unfit_index(store.open_index(artifact.place))
        if reason:
            rejected.append(Problem(artifact.identifier, reason))
        elif artifact.preferred:
            found = True
            yield artifact.place
    if not found:
        raise NoArtifactError(
            f"the store {store.root} has no artifact that fits the installed provider and Triton",
            rejected,
            hint="gdn-aot fetch --arch TARGET installs one; or name an artifact file",
        )


def _open(place: str) -> Artifact | StoredArtifact:
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.store.admission import check_admitted
    from gdn_aot.store.store import default_home
    from gdn_aot.store.stored import NamedArtifact
    from gdn_aot.store.whole import open_installed

    if is_folder(place):
        return open_installed(place)
    artifact = open_artifact(place)
    try:
        check_admitted(NamedArtifact(place, artifact.manifest.identifier, artifact.sha256), default_home())
    except OSError as error:
        what = f"cannot read the signature of {place}: {error.strerror or error}"
        raise UsageError(what, hint="let this user read the file beside it that ends with .sig.json") from error
    return artifact


def _place(artifact: Artifact | StoredArtifact, cache: Path) -> dict[str, str]:
    """Put the files of an artifact for an engine where that looks for them; see `gdn_aot.serving.placing.place`.

    Raises:
        NotWritableError: One cannot be written.
    """
    from gdn_aot.serving.placing import place
    from gdn_aot.store.index_writer import placed_records

    engine = importlib.util.find_spec("vllm") if artifact.manifest.placed else None
    if engine is None or engine.origin is None:
        return {}
    try:
        return place(placed_records(artifact.manifest), artifact.read_blob, str(cache), engine.origin)
    except OSError as error:
        raise NotWritableError(f"cannot write into {cache}: {error.strerror or error}") from error


def _count(placed: dict[str, str], what: str) -> int:
    return [*placed.values()].count(what)


def _together(artifacts: Sequence[Artifact | StoredArtifact], documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one document of several: the same keys with sums, and each artifact's own."""
    return {
        "path": documents[0]["path"],
        **{name: sum(document[name] for document in documents) for name in _SUMS},
        "skipped": [row for document in documents for row in document["skipped"]],
        "seconds": round(sum(document["seconds"] for document in documents), 3),
        "artifacts": [
            {"identifier": artifact.manifest.identifier, **document}
            for artifact, document in zip(artifacts, documents, strict=True)
        ],
    }

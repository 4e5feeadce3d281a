"""``gdn-aot seed``."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gdn_aot._files import is_folder, is_there
from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out, out_path
from gdn_aot.errors import NoArtifactError, Problem, UsageError

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
    help="The cache: what TRITON_CACHE_DIR will name. Made if it is not there.",
)  # fmt: skip
@_options.quiet
@_options.as_json
def command(files: tuple[str, ...], *, into: Path, quiet: bool, as_json: bool) -> None:
    """Write artifacts into a Triton cache, for processes that do not import gdn_aot. Needs no GPU.

    FILE is an artifact file, or the directory of an installed one, which gdn-aot fetch prints; or several of them with
    a line for each. Without FILE it is everything in the store that fits the installed provider and Triton. What a
    known publisher has revoked is refused, and with GDN_AOT_TRUST=signed so is what is not signed. The signature of a
    file lies beside it, as NAME.sig.json.

    Such processes find every binary and every autotuning choice in it, with the same Triton, provider and TRITON_* and
    FLA_* variables as here. What is in DIR already stays; seeding again repairs what is broken.

    \b
    Example:
      gdn-aot seed gdn-aot-fla0.6.0-triton3.6.0-sm_90.tar.zst --into /cache/triton
      gdn-aot seed "$(gdn-aot fetch --arch sm_90 --quiet)" --into /cache/triton
      gdn-aot seed --into /cache/triton
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
        seconds = round(time.monotonic() - start, 3)
        documents.append({**asdict(done), "seconds": seconds})
        if not as_json and not quiet:
            of = f"{artifact.manifest.identifier}: " if len(artifacts) > 1 else ""
            counts = f"{done.binaries} binaries and {done.choices} choices; {done.written} written, {done.kept} kept"
            out(f"{click.format_filename(done.path)}: {of}{counts}")
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
        raise UsageError("FILE is empty", hint="gdn-aot fetch --quiet prints nothing where it fails: see what it says")
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
            f"the store {store.root} has no artifact that fits what is installed here",
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

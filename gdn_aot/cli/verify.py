"""``gdn-aot verify``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from gdn_aot._text import printable
from gdn_aot.cli import _options, _record
from gdn_aot.cli._output import conclude, out, problems_json
from gdn_aot.errors import ProvenanceError, SignatureError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.artifact.verify import Examination
    from gdn_aot.trust.provenance import Expected


@click.command("verify", epilog=_options.other_checks("verify"))
@click.argument("file", type=_options.path)
@click.option(
    "--provenance", metavar="OWNER/NAME",
    help="Also check who built it: a workflow of this repository on GitHub. Needs the extra [provenance].",
)  # fmt: skip
@click.option(
    "--workflow", metavar="PATH",
    help="Workflow of that repository, with --provenance.  [default: .github/workflows/artifacts.yml]",
)  # fmt: skip
@_options.many(
    "--ref", "GLOB",
    "Branch or tag of the build, with --provenance; repeatable.  "
    "[default: refs/tags/artifacts-v*, refs/heads/main]",
)  # fmt: skip
@click.option(
    "--bundle", type=_options.path,
    help="Sigstore bundle of the file, with --provenance.  [default: beside it, ending in .sigstore.json]",
)  # fmt: skip
@_options.as_json
def command(
    file: Path,
    *,
    provenance: str | None,
    workflow: str | None,
    ref: tuple[str, ...],
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Check every digest and rule of an artifact; if one fails, exit 5 and name every problem.

    An artifact also fails if a publisher whose keyring is known here has revoked it, or if the signature beside the
    file is wrong. A missing signature is no problem.

    FILE may also be a tuning record: checks whether it may be contributed. If its provider and Triton are installed,
    compares its keys and candidates with theirs.
    """
    from gdn_aot.artifact.verify import examine

    if _record.is_record(file):
        if provenance or workflow or ref or bundle:
            raise UsageError("--provenance is for artifacts, and this is a record", hint="leave it out")
        _record.verify(file, as_json=as_json)
        return
    expected = None if provenance is None else _expected(provenance, workflow, ref)
    if expected is None and (workflow or ref or bundle):
        raise UsageError("--workflow, --ref and --bundle say how to check who built it", hint="add --provenance")
    report = examine(file)
    problems, error, built = report.problems, report.error() if report.problems else None, None
    if expected is not None and error is None:
        try:
            built = _built(report, expected, bundle)
        except ProvenanceError as found:
            problems, error = [*found.problems], found
    if error is None and (refusal := _refusal(report)):
        problems, error = [*refusal.problems], refusal
    document = {
        "ok": error is None,
        "problems": problems_json(problems),
        "path": str(report.path),
        "sha256": report.sha256,
        "size": report.size,
    }
    if code := _host_code(report):
        document["host_code"] = code
    if expected is not None:
        document["provenance"] = built
    conclude(document, error, as_json=as_json)
    if not as_json:
        out(f"{click.format_filename(report.path)}: ok, {report.size} bytes, sha256 {report.sha256}")
        _tell({**(built or {}), **({"host code": code} if code else {})})


def _tell(rows: dict[str, str]) -> None:
    for name, text in rows.items():
        out(printable(f"  {name}: {text}"))


def _host_code(report: Examination) -> str:
    """Return what of a sound file would run on the host of a server, or nothing."""
    from gdn_aot.reporting.facts import host_code

    return host_code(report.manifest) if report.manifest is not None and not report.problems else ""


def _refusal(report: Examination) -> SignatureError | None:
    """Return why nobody should use a file, sound or not, going by the keyrings that are known here."""
    from gdn_aot.store.admission import admit
    from gdn_aot.store.store import default_home
    from gdn_aot.store.stored import NamedArtifact

    if report.manifest is None:
        return None
    with suppress(OSError):
        named = NamedArtifact(str(report.path), report.manifest.identifier, report.sha256)
        (fault,) = admit([named], default_home())
        return fault if isinstance(fault, SignatureError) else None
    return None


def _expected(repository: str, workflow: str | None, refs: tuple[str, ...]) -> Expected:
    from gdn_aot.trust.provenance import REFS, WORKFLOW, Expected

    return Expected(repository=repository, workflow=workflow or WORKFLOW, refs=refs or REFS)


def _built(report: Examination, expected: Expected, bundle: Path | None) -> dict[str, str]:
    """Return who built a file, by the names of the fields."""
    from dataclasses import asdict
    from pathlib import Path

    from gdn_aot.artifact.names import beside
    from gdn_aot.registry.layout import PROVENANCE
    from gdn_aot.trust.provenance import read_bundle, verify_provenance

    place = bundle or Path(beside(str(report.path), PROVENANCE))
    return asdict(verify_provenance(report.sha256, read_bundle(place), expected))

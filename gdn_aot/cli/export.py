"""``gdn-aot export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, note, out_path
from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.providers.fla.configs import ExportedChoice
    from gdn_aot.records.tuning import TuningRecord

_SOURCES = "--artifact FILE, --record FILE, or --arch sm_90 with --tuning DIR"


@click.command("export")
@click.option("--format", "form", type=click.Choice(["fla"]), required=True, help="fla: files for FLA_CONFIG_DIR.")
@click.option("--artifact", type=_options.path, help="Export the choices of an artifact.")
@click.option("--record", type=_options.path, help="Export the choices of a tuning record.")
@click.option("--arch", metavar="SM", help="Export the choices of the record for this target.")
@_options.default("--tuning", Path("artifacts/tuning"), "Directory of tuning records, for --arch.", type=_options.path)
@click.option("-o", "--output", type=_options.path, required=True, help="Directory for the files.")
@_options.as_json
def command(
    form: str,
    artifact: Path | None,
    record: Path | None,
    arch: str | None,
    tuning: Path,
    output: Path,
    *,
    as_json: bool,
) -> None:
    """Write choices as the provider's own configuration files, for processes without gdn-aot."""
    from gdn_aot.providers.fla import configs as fla_configs

    del form  # there is one
    if sum(source is not None for source in (artifact, record, arch)) != 1:
        raise UsageError("exactly one source of choices is needed", hint=_SOURCES)
    if artifact is not None:
        choices, triton = _of_artifact(artifact)
    else:
        choices, triton = _of_record(record, arch, tuning)
    export = fla_configs.prepare(choices, triton)
    for gap in export.not_served:
        note(f"not served by these files: {gap.kernel}: {gap.reason}; {gap.choices} choices left out")
    if not export.files:
        raise NothingSelectedError("no kernel with a choice reads such files")
    fla_configs.write(export, output)
    variables = fla_configs.environment(output.resolve())
    note("use them with " + " ".join(f"{name}={value}" for name, value in variables.items()))
    if as_json:
        emit_json(
            {
                "directory": str(output),
                "files": [
                    {"path": str(output / name), "kernel": name.removesuffix(".json"), "choices": count}
                    for name, count in export.entries.items()
                ],
                "not_served": list(map(asdict, export.not_served)),
                "environment": variables,
            }
        )
    else:
        for name in export.files:
            out_path(output / name)


def _of_artifact(path: Path) -> tuple[list[ExportedChoice], str]:
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.providers.fla.configs import ExportedChoice
    from gdn_aot.triton_internals.autotune_keys import with_alike

    manifest: Manifest = open_artifact(path).manifest
    _check_version(manifest.provider.distribution, manifest.provider.version)
    choices = [
        ExportedChoice(kernel=kernel.name, key=key, config=config)
        for kernel in manifest.kernels
        for key, config in with_alike(
            [(choice.key, choice.config) for choice in kernel.choices],
            [relaxed.row for relaxed in kernel.relaxations],
        )
    ]
    return choices, manifest.triton.version


def _of_record(path: Path | None, arch: str | None, tuning: Path) -> tuple[list[ExportedChoice], str]:
    """Return the choices of a tuning record, given or that of a target, and its version of Triton."""
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.machine import installed
    from gdn_aot.providers.fla.configs import DISTRIBUTION, ExportedChoice
    from gdn_aot.records import tuning as records

    target = get_target(arch).name if arch is not None else None
    version = None
    if path is None:
        assert target is not None  # noqa: S101 - the caller has one of both
        version = installed.require("fla")
        path = records.record_path(tuning, target, DISTRIBUTION, version)
    found: TuningRecord | None = records.load(path, target=target, distribution=DISTRIBUTION, version=version)
    if found is None:
        raise UsageError(
            f"there is no tuning record {path}",
            hint="for a target that nobody measured build an artifact, and export with --artifact",
        )
    _check_version(found.provider.distribution, found.provider.version)
    choices = [
        ExportedChoice(kernel=kernel, key=key, config=tuned.config)
        for (kernel, key), tuned in records.table(found).items()
    ]
    return choices, found.triton


def _check_version(distribution: str, version: str) -> None:
    """Check that choices are for the installed FLA: its source says which kernels read files.

    Raises:
        UsageError: They are for another version, or for another provider.
        ProviderMissingError: FLA is not installed.
    """
    from gdn_aot.machine import installed
    from gdn_aot.providers.fla.configs import DISTRIBUTION

    if distribution != DISTRIBUTION:
        raise UsageError(
            f"these choices are for {distribution}, not for {DISTRIBUTION}", hint="only choices for FLA can be exported"
        )
    found = installed.require("fla")
    if found != version:
        raise UsageError(
            f"these choices are for {DISTRIBUTION} {version}, but {found} is installed, whose keys may differ",
            hint=f"pip install {DISTRIBUTION}=={version}",
        )

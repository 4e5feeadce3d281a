"""An engine that travels packed to a machine without a network: where it is, what would run, what is wrong with it."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import tomllib
from harness import ROOT, command

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.building.pack import license_texts
from gdn_aot.errors import GdnAotError
from gdn_aot.machine import scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gdn_aot.catalogue.providers import ProviderInfo


@dataclass(frozen=True, kw_only=True)
class Places:
    """Files and folders of a run."""

    engine: Path
    """The folder with ``parts/`` and ``model/``."""
    unpacked: Path
    work: Path
    """Caches, specifications and records of the processes."""


def show(case: Any, variables: Mapping[str, str], *commands: Sequence[str]) -> None:
    """Say what a case would run: its ``name``, what it ``says``, its ``seconds``, its variables and command lines."""
    print(f"({case.name}) {case.says}: about {case.seconds} s")
    for name, value in variables.items():
        print(f"    {name}={value}")
    for words in commands:
        print("    " + " ".join(words))


def tell(problems: Sequence[str]) -> None:
    """Say what would keep a run from working."""
    for text in problems:
        print(f"problem: {text}", file=sys.stderr)


def model_problems(engine: Path) -> list[str]:
    """Return what is wrong with the model of an engine."""
    path = engine / "model/config.json"
    return [] if path.is_file() else [f"{path} is missing"]


def unpack(parts: Sequence[Path], folder: Path, top: str = "") -> None:
    """Unpack an archive and compile its Python files, unless that was done on this machine.

    Args:
        parts: A ``.tar.xz``, or the files into which one was split, in order.
        folder: Where to. What is there of an interrupted run is removed.
        top: The folder in the archive whose content it is.
    """
    done = folder / ".ok"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (
        subprocess.Popen(["cat", *map(str, parts)], stdout=subprocess.PIPE) as joined,
        tarfile.open(fileobj=joined.stdout, mode="r|xz") as archive,
    ):
        for member in archive:
            member.name = member.name.removeprefix(top).lstrip("/")
            if member.name:
                archive.extract(member, folder, filter="fully_trusted")
    command(sys.executable, "-m", "compileall", "-q", "-j", "0", folder)
    done.touch()


def declare(folder: Path, name: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Make the metadata by which an engine finds entry points, as installing a package would.

    Args:
        folder: A directory of ``sys.path``.
        name: The distribution.
        groups: Group -> name of an entry point -> what it is.
    """
    place = folder / f"{name.replace('-', '_')}-0.0.0.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in groups.items()]
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.0\n")
    (place / "entry_points.txt").write_text("\n".join(lines))


def declare_ours(folder: Path) -> None:
    """Make the metadata of this package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declare(folder, "gdn-aot", project["entry-points"])


def artifact_problem(path: Path, made_for: tuple[str, str, str]) -> str:
    """Return why an artifact does not fit, or nothing; ``made_for`` are distribution, version and Triton's version."""
    try:
        manifest = open_artifact(path).manifest
    except (GdnAotError, OSError) as error:
        return f"{path}: {error}"
    made = (manifest.provider.distribution, manifest.provider.version, manifest.triton.version)
    says = "{0} {1} and Triton {2}"
    return "" if made == made_for else f"{path} is of {says.format(*made)}, not of {says.format(*made_for)}"


def licence_problem(parts: Iterable[Path], provider: ProviderInfo, version: str) -> str:
    """Return why a build would find no licence of the provider in archives that were not unpacked yet, or nothing."""
    folder, name = Path(scratch.make("licence")), f"{provider.distribution}-{version}.dist-info"
    for path in parts:
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if PurePosixPath(member.name).parts[:1] == (name,):
                        archive.extract(member, folder, filter="data")
        except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
            return f"{path} cannot be read: {error}"
    if not (folder / name / "METADATA").is_file():
        return f"no part of the engine has {name}/METADATA"
    try:
        license_texts(provider, PathDistribution(folder / name))
    except GdnAotError as error:
        return f"{error}: pack its RECORD and its licence too, for a build of what is recorded"
    return ""

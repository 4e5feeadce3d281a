"""Every release of an engine: what the provider traces of it, which kernels it shares with others, what serves it.

    python benchmarks/releases.py trace                              adds a row to benchmarks/results/releases.json
    python benchmarks/releases.py coverage RELEASE FILE ARTIFACT    adds what gdn-aot coverage --json said of a file
    python benchmarks/releases.py page                              docs/reference/vllm-releases.md

Without a GPU. ``--engine sglang`` is for SGLang: sglang_releases.json and docs/reference/sglang-releases.md; its random
steps are what benchmarks/coverage.py replayed.
``trace`` imports the engine that ``PYTHONPATH`` or the environment has: an unpacked wheel is enough, as its compiled
extensions are not loaded. Rows of other releases stay. All of them end with ``page``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, load, machine, save

from gdn_aot.matrix.load import load as load_matrix

TARGET = "sm_90"
_DIGITS = 16
_SHOWN = 8
"""Digits of a commit and of an artifact's digest on the page."""
_VLLM = """# Releases of vLLM

This page says which artifact serves which release of vLLM. `python benchmarks/releases.py` makes it from the wheels of
each release, traced for sm_90 without tensor parallelism (TP 1), with {models}.

- *Triton*: vLLM requires a release of PyTorch, and PyTorch one of Triton.
- *Kernels*: releases with one letter have the same kernels, launch keys and candidates. One artifact serves them all,
  because the loader decides by the source of the kernels ([0028](../adr/0028-fit-by-source.md)).
- *As before*: how many kernels have the source files, texts and globals of the release above. An artifact of a
  neighbouring release serves as many, if Triton is the same.
- *Calls traced*: calls of each model in turn, and how many kinds vLLM itself refuses. Models of 0.17 and 0.18 import
  torchvision, which exists for PyTorch's CPU build in PyTorch's own index alone. A build needs nothing of it: where it
  is not installed, an empty module stands in for it. Both have transformers 4.57.6.
- *Served by*: the artifact for the release. The matrix publishes it.
- *Random steps*: steps replayed against an artifact for these models, and their launches. Every launch found its binary
  unless a miss is named. Behind the artifact are its commit and the start of its SHA-256. Rows without them are older:
  their prompts have two tokens or more, those of the others one or more.

| release | Triton | kernels | as before | calls traced | served by | random steps |
|---|---|---|---|---|---|---|
"""


_SGLANG = """# Releases of SGLang

Made by `python benchmarks/releases.py --engine sglang` from the wheels of each release, traced for sm_90 at TP 1 with
{models}, with PyTorch 2.13.0 for the CPU and the Triton that the release's own PyTorch asks for. Releases with one
letter have the same kernels, with the same launch keys and candidates: one artifact serves them all, since the loader
decides by the source of the kernels ([0028](../adr/0028-fit-by-source.md)). *As before* counts the kernels whose source
files, texts and globals are those of the release above that was traced. *Calls traced* are those of each model in turn.
*Served by* is the artifact for the release: the matrix publishes it, or where it is not in the matrix
`gdn-aot build --provider sglang` makes it where that release is installed. *Random steps* were replayed against
artifacts of the release, 1000 for each model and TP, with Gated Delta Net or Kimi Delta Attention
([coverage.json](../../benchmarks/results/coverage.json) has a row for each): launches, of which all found their binary
where no miss is named (in kinds). Releases without were not replayed.

Releases before 0.5.11 are not here: they load no plugins, and their PyTorch asks for a Triton before 3.6.

| release | Triton | kernels | as before | calls traced | served by | random steps |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Engine:
    """An engine whose releases are listed."""

    name: str
    models: tuple[str, ...]
    file: str
    head: str

    @property
    def out(self) -> Path:
        """Where the rows are kept."""
        return RESULTS / self.file

    @property
    def page(self) -> Path:
        """The page that is made of them."""
        return ROOT / "docs" / "reference" / f"{self.name}-releases.md"


_QWEN = ("qwen3.5-9b", "qwen3-next-80b-a3b")
ENGINES = {
    "vllm": Engine("vllm", (*_QWEN, "olmo-hybrid-7b"), "releases.json", _VLLM),
    "sglang": Engine("sglang", _QWEN, "sglang_releases.json", _SGLANG),
}


def trace(engine: Engine) -> dict[str, Any]:
    """Trace the installed release, or say what it fails with."""
    asked = {"triton": importlib.metadata.version("triton"), "torch": _torch(engine.name)}
    try:
        return {**asked, **_traced(engine)}
    except Exception as error:  # noqa: BLE001 - whatever an old release does
        return {**asked, "failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def _traced(engine: Engine) -> dict[str, Any]:
    import logging

    from gdn_aot.catalogue.models import find_model
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.tracing import stub

    logging.disable(logging.INFO)
    stub.activate(get_target(TARGET))
    from gdn_aot.compiling import worker
    from gdn_aot.providers import load as load_provider

    module = load_provider(engine.name)
    found: dict[str, Any] = {}
    keys, kernels = [], {}
    for name in engine.models:
        request = {
            "provider": engine.name,
            "target": TARGET,
            "ptxas": "",
            "shapes": [vars_of(find_model(name).shape(1))],
            "limits": vars_of(Limits()),
            "workloads": list(module.WORKLOADS),
        }
        made = worker.trace(module, request, lambda *_: None)
        found[name] = {
            "calls": made.calls,
            "refused": len(made.refused),
            "misfits": [reason for _, reason in made.misfits],
            "lacking": dict(made.lacking).get(0, ""),
        }
        for kernel in made.kernels:
            kernels[kernel.name] = _digest(str(kernel))
        keys += sorted(f"{made.kernels[one.kernel].name} {one.key}" for one in made.launches)
        keys += sorted(f"{made.key_of(one)} {[*map(str, one.candidates)]}" for one in made.tunings)
    return {
        "models": found,
        "kernels": dict(sorted(kernels.items())),
        "keys": _digest("\n".join(keys)),
    }


def vars_of(record: Any) -> dict[str, Any]:
    """Return the fields of a record."""
    from dataclasses import asdict

    return asdict(record)


def _torch(distribution: str) -> str:
    asked = importlib.metadata.requires(distribution) or []
    return next(one.partition("==")[2].partition(";")[0].strip() for one in asked if one.startswith("torch=="))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def covered(said: Path, artifact: Path) -> dict[str, Any]:
    """Return what counts of a coverage, and of which artifact it is."""
    from gdn_aot.artifact.verify import open_artifact

    manifest, document = open_artifact(artifact).manifest, json.loads(said.read_text())
    return {
        "artifact": manifest.identifier,
        "commit": manifest.build.commit,
        "sha256": hashlib.sha256(artifact.read_bytes()).hexdigest(),
        **{name: document[name] for name in ("calls", "launches", "hits")},
        **{name: len(document[name]) for name in ("misses", "not_covered")},
        "refused": sum(one["count"] for one in document["refused"]),
    }


def letters(rows: dict[str, Any]) -> dict[str, str]:
    """Return a letter for each release; one for those that have everything in common."""
    known: dict[tuple[str, str, str], str] = {}
    return {
        release: known.setdefault((row["triton"], str(row["kernels"]), row["keys"]), chr(ord("A") + len(known)))
        for release, row in rows.items()
        if "kernels" in row
    }


def page(engine: Engine, document: dict[str, Any]) -> str:
    """Return the page."""
    rows = document["rows"]
    letter = letters(rows)
    newest = {kind: release for release, kind in letter.items()}
    matrix = load_matrix(ROOT / "artifacts" / "matrix.toml")
    published = {one.version for one in matrix.environments if one.provider == engine.name}
    replayed = (load(RESULTS / "coverage.json") or {"rows": {}})["rows"]
    text = engine.head.format(models=", ".join(engine.models))
    before: dict[str, str] = {}
    for release, row in rows.items():
        if "failed" in row:
            text += f"| {release} | {row['triton']} | - | - | not traced: {row['failed']} | - | - |\n"
            continue
        kernels = row["kernels"]
        same = sum(before.get(name) == digest for name, digest in kernels.items())
        calls = "; ".join(_calls(name, one) for name, one in row["models"].items())
        served = newest[letter[release]]
        cells = (
            release,
            row["triton"],
            letter[release],
            f"{same} of {len(kernels)}" if before else "-",
            calls,
            f"{engine.name}{served}-triton{row['triton']}" + ("" if served in published else ", not in the matrix"),
            _steps(row["coverage"]) if "coverage" in row else _replayed(replayed, f"{engine.name}{release}-"),
        )
        text += f"| {' | '.join(cells)} |\n"
        before = kernels
    return text


def _calls(name: str, one: dict[str, Any]) -> str:
    if one["lacking"]:
        return f"{name}: {one['lacking']}"
    if one["misfits"]:
        return f"{name}: refused, {one['misfits'][0]}"
    return f"{one['calls']}" + (f" ({one['refused']} kinds)" if one["refused"] else "")


def _replayed(artifacts: dict[str, Any], release: str) -> str:
    """Return what the rows of a release's artifacts have in all."""
    cells = []
    for identifier, rows in artifacts.items():
        if identifier.startswith(release):
            count = {name: sum(row[name] for row in rows.values()) for name in ("calls", "launches", "misses")}
            missed = f", {count['misses']} misses" if count["misses"] else ""
            cells.append(f"{count['calls']}: {count['launches']}{missed} with {identifier}")
    return "; ".join(cells) or "-"


def _steps(found: dict[str, Any]) -> str:
    of = f" with {found['artifact']}"
    if "sha256" in found:
        of += f" ({(found['commit'] or '')[:_SHOWN] or 'no commit'}, {found['sha256'][:_SHOWN]})"
    misses = f", {found['misses']} misses" if found["misses"] else ""
    refused = f", {found['refused']} refused by vLLM" if found["refused"] else ""
    return f"{found['calls']}: {found['launches']}{misses}{refused}{of}"


def _order(release: str) -> list[int]:
    return [int(part) for part in release.replace("post", "").split(".")]


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, default="vllm")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("trace")
    replayed = commands.add_parser("coverage")
    replayed.add_argument("release")
    replayed.add_argument("file", type=Path)
    replayed.add_argument("artifact", type=Path)
    commands.add_parser("page")
    asked = parser.parse_args()
    engine = ENGINES[asked.engine]
    document = load(engine.out) or {"machine": {}, "rows": {}}
    rows = document["rows"]
    if asked.command == "trace":
        release = importlib.metadata.version(engine.name)
        kept = {name: one for name, one in rows.get(release, {}).items() if name == "coverage"}
        rows[release] = {**trace(engine), **kept}
        document["machine"] = machine("torch")
    elif asked.command == "coverage":
        rows[asked.release]["coverage"] = covered(asked.file, asked.artifact)
    document["rows"] = dict(sorted(rows.items(), key=lambda item: _order(item[0])))
    save(engine.out, document)
    engine.page.write_text(page(engine, document))


if __name__ == "__main__":
    main()

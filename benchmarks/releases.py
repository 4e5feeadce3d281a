"""Every release of vLLM: what the provider traces of it, which kernels it shares with others, what serves it. No GPU.

    python benchmarks/releases.py trace                              adds a row to benchmarks/results/releases.json
    python benchmarks/releases.py coverage RELEASE FILE ARTIFACT    adds what gdn-aot coverage --json said there
    python benchmarks/releases.py page                              docs/reference/vllm-releases.md

``trace`` imports the vLLM that ``PYTHONPATH`` or the environment has: an unpacked wheel is enough, as its compiled
extensions are not loaded. Rows of other releases stay. All of them end with ``page``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, load, machine, save

OUT = RESULTS / "releases.json"
PAGE = ROOT / "docs" / "reference" / "vllm-releases.md"
MODELS = ("qwen3.5-9b", "qwen3-next-80b-a3b", "olmo-hybrid-7b")
TARGET = "sm_90"
_DIGITS = 16
_HEAD = """# Releases of vLLM

This page says which artifact serves which release of vLLM. `python benchmarks/releases.py` makes it from the wheels of
each release, traced for sm_90 without tensor parallelism (TP 1), with {models}.

- *Triton*: vLLM requires a release of PyTorch, and PyTorch one of Triton.
- *Kernels*: releases with one letter have the same kernels, launch keys and candidates. One artifact serves them all,
  because the loader decides by the source of the kernels ([0028](../adr/0028-fit-by-source.md)).
- *As before*: how many kernels have the source files, texts and globals of the release above. An artifact of a
  neighbouring release serves as many, if Triton is the same.
- *Calls traced*: calls of each model in turn, and how many kinds vLLM itself refuses. 0.17 and 0.18 import torchvision,
  which the CPU build of PyTorch lacks: we traced them with an empty module instead, and transformers 4.57.6.
- *Served by*: the artifact for the release. The matrix publishes these artifacts except 0.17.1 and 0.18.1.
- *Random steps*: steps replayed against an artifact for these models, and their launches. Every launch found its binary
  unless a miss is named.

| release | Triton | kernels | as before | calls traced | served by | random steps |
|---|---|---|---|---|---|---|
"""


def trace() -> dict[str, Any]:
    """Trace the installed release."""
    import logging

    from gdn_aot.catalogue.models import find_model
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.tracing import stub

    logging.disable(logging.INFO)
    stub.activate(get_target(TARGET))
    from gdn_aot.compiling import worker
    from gdn_aot.providers import load as load_provider

    module = load_provider("vllm")
    found: dict[str, Any] = {}
    keys, kernels = [], {}
    for name in MODELS:
        request = {
            "provider": "vllm",
            "target": TARGET,
            "ptxas": "",
            "shapes": [vars_of(find_model(name).shape(1))],
            "limits": vars_of(Limits()),
            "workloads": list(module.WORKLOADS),
        }
        made = worker.trace(module, request)
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
        "triton": importlib.metadata.version("triton"),
        "torch": _torch(),
        "models": found,
        "kernels": dict(sorted(kernels.items())),
        "keys": _digest("\n".join(keys)),
    }


def vars_of(record: Any) -> dict[str, Any]:
    """Return the fields of a record."""
    from dataclasses import asdict

    return asdict(record)


def _torch() -> str:
    asked = importlib.metadata.requires("vllm") or []
    return next(one.partition("==")[2].partition(";")[0].strip() for one in asked if one.startswith("torch=="))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def covered(said: Path, artifact: str) -> dict[str, Any]:
    """Return what counts of a coverage."""
    document = json.loads(said.read_text())
    counts = {name: len(document[name]) for name in ("misses", "not_covered")}
    refused = sum(one["count"] for one in document["refused"])
    return {"artifact": artifact, **{name: document[name] for name in ("calls", "launches", "hits")}, **counts} | {
        "refused": refused
    }


def letters(rows: dict[str, Any]) -> dict[str, str]:
    """Return a letter for each release; one for those that have everything in common."""
    known: dict[tuple[str, str, str], str] = {}
    return {
        release: known.setdefault((row["triton"], str(row["kernels"]), row["keys"]), chr(ord("A") + len(known)))
        for release, row in rows.items()
    }


def page(document: dict[str, Any]) -> str:
    """Return the page."""
    rows = document["rows"]
    letter = letters(rows)
    newest = {kind: release for release, kind in letter.items()}
    text = _HEAD.format(models=", ".join(MODELS))
    before: dict[str, str] = {}
    for release, row in rows.items():
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
            f"vllm{served}-triton{row['triton']}",
            _steps(row.get("coverage")),
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


def _steps(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    of = f" with {found['artifact']}"
    misses = f", {found['misses']} misses" if found["misses"] else ""
    refused = f", {found['refused']} refused by vLLM" if found["refused"] else ""
    return f"{found['calls']}: {found['launches']}{misses}{refused}{of}"


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("trace")
    replayed = commands.add_parser("coverage")
    replayed.add_argument("release")
    replayed.add_argument("file", type=Path)
    replayed.add_argument("artifact")
    commands.add_parser("page")
    asked = parser.parse_args()
    document = load(OUT) or {"machine": {}, "rows": {}}
    rows = document["rows"]
    if asked.command == "trace":
        release = importlib.metadata.version("vllm")
        rows[release] = {**trace(), **{name: one for name, one in rows.get(release, {}).items() if name == "coverage"}}
        document["machine"] = machine("torch")
    elif asked.command == "coverage":
        rows[asked.release]["coverage"] = covered(asked.file, asked.artifact)
    document["rows"] = dict(sorted(rows.items(), key=lambda item: tuple(map(int, item[0].split(".")))))
    save(OUT, document)
    PAGE.write_text(page(document))


if __name__ == "__main__":
    main()

"""What was built and published, as Markdown: printed, and added to the summary of the job, ``$GITHUB_STEP_SUMMARY``.

    python .github/scripts/summary.py dist [--expect N]
    python .github/scripts/summary.py --published published.json

``dist`` holds artifacts and, beside each, what ``gdn-aot build --json`` and ``gdn-aot coverage --json`` said of it, as
``IDENTIFIER.build.json`` and ``IDENTIFIER.coverage.json``. An artifact without them, or with launches that miss, ends
it with 1, and so does another number of artifacts than was expected.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COLUMNS = (
    "artifact", "KiB", "kernels", "binaries", "measured", "proxy", "captured", "transferred", "default",
    "not covered", "launches", "misses", "seconds", "sha256",
)  # fmt: skip


class Incomplete(Exception):  # noqa: N818 - what is there is not all that there should be
    """A report is not there, is of another file, or says that something is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One artifact with its reports; see the keys of ``gdn-aot build --json`` and ``coverage --json``."""

    identifier: str
    built: dict[str, Any]
    coverage: dict[str, Any]

    def cells(self) -> tuple[str, ...]:
        """Return its row of the table."""
        made, provenance = self.built, self.built["provenance"]
        counts = (made["size"] // 1024, made["kernels"], made["binaries"])
        origins = tuple(provenance[name] for name in ("measured", "proxy", "captured", "transferred", "default"))
        proof = (self.coverage["launches"], len(self.coverage["misses"]))
        numbers = (*counts, *origins, len(made["not_covered"]), *proof, round(sum(made["seconds"].values())))
        return (f"`{self.identifier}`", *(f"{number:,}" for number in numbers), f"`{made['sha256'][:16]}`")


def read(path: Path) -> Artifact:
    """Return an artifact with its reports.

    Raises:
        Incomplete: They are not there, or do not agree with it.
    """
    identifier = path.name.removeprefix("gdn-aot-").removesuffix(".tar.zst")
    built = _load(path.with_name(f"{identifier}.build.json"))["artifacts"]
    coverage = _load(path.with_name(f"{identifier}.coverage.json"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if [(row["identifier"], row["sha256"]) for row in built] != [(identifier, digest)]:
        raise Incomplete(f"{path.name} is not the file that its build reported")
    if not coverage["launches"]:
        raise Incomplete(f"{path.name}: coverage replayed no launch")
    if coverage["misses"]:
        raise Incomplete(f"{path.name}: {len(coverage['misses'])} launches would miss")
    return Artifact(identifier=identifier, built=built[0], coverage=coverage)


def read_all(folder: Path, expected: int | None) -> list[Artifact]:
    """Return the artifacts of a folder.

    Raises:
        Incomplete: There are none, or another number than ``expected``; or see `read`.
    """
    artifacts = [read(path) for path in sorted(folder.glob("*.tar.zst"))]
    if not artifacts or expected not in (None, len(artifacts)):
        raise Incomplete(f"{len(artifacts)} artifacts are in {folder}, expected {expected or 'some'}")
    return artifacts


def describe(artifacts: list[Artifact]) -> str:
    """Return a table of artifacts, what is not covered, and the sum of their sizes."""
    rows = [_COLUMNS, ("---", *("---:" for _ in _COLUMNS[2:]), "---"), *(item.cells() for item in artifacts)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    gaps = [
        f"- `{item.identifier}`: `{gap['kernel']}`: {_plain(gap['reason'])}"
        for item in artifacts
        for gap in item.built["not_covered"]
    ]
    total = sum(item.built["size"] for item in artifacts)
    lines += ["", f"{len(artifacts)} artifacts, {total / 2**20:,.1f} MiB."]
    if gaps:
        lines += ["", "<details><summary>Not covered</summary>", "", *gaps, "", "</details>"]
    return "\n".join(["### Artifacts", "", *lines, ""])


def describe_publication(document: dict[str, Any]) -> str:
    """Return what ``gdn-aot publish --json`` did."""
    made = [f"- `{item['identifier']}`: {item['action']}" for item in document["artifacts"]]
    where = f"`{document['repo']}`, commit `{document['commit']}`, tag `{document['tag']}`"
    return "\n".join(["### Published", "", where, "", *made, ""])


def _plain(text: str) -> str:
    """Return a compiler's words on one line, with nothing that Markdown or HTML reads."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")[:300]


def _load(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Incomplete(f"{path}: {error}") from error
    return found


def _show(text: str) -> None:
    print(text)
    if place := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(place).open("a") as file:
            file.write(f"{text}\n")


def main(argv: list[str] | None = None) -> int:
    """Show the summary; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--expect", type=int)
    parser.add_argument("--published", type=Path)
    options = parser.parse_args(argv)
    try:
        if options.folder is not None:
            _show(describe(read_all(options.folder, options.expect)))
        if options.published is not None:
            _show(describe_publication(_load(options.published)))
    except Incomplete as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

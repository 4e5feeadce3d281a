"""Where things are in a registry, and its index: what artifacts there are, without opening any.

The same entries give the same bytes of ``index.json``; ``docs/reference/registry.md`` says what it holds.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from gdn_aot.artifact.manifest import Mode, Numerics
from gdn_aot.artifact.names import MAX_FILE, MAX_IDENTIFIER, SIGNATURE, SUFFIX, make_identifier
from gdn_aot.codec import Commit, Count, Digest, Form, Record, TargetName
from gdn_aot.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.registry.select import Candidate

MAJOR = 1
"""Version of layout and artifact format together."""
BRANCH = f"v{MAJOR}"
"""The moving branch that has the files."""
DEFAULT_REPO = "hf://gdn-aot/kernels"
MAIN = "main"
"""The branch of a repository that a browser shows: the card and an index that points to `BRANCH`."""
INDEX = "index.json"
INDEX_SIGNATURE = "index.sig.json"
"""What the publisher signed of the index."""
CARD = "README.md"
REPORT = "report.html"
"""The page of ``gdn-aot report`` about what was published, if there is one. Nothing reads it but people."""
PROVENANCE = ".sigstore.json"
"""In place of `SUFFIX`: end of the name of the file beside it that says who built it, if there is one."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
MAX_INDEX = 32 << 20
"""Bytes of an index: some 7,000 entries with 50 models each."""

FileSize = Annotated[int, Meta(ge=1, le=MAX_FILE)]
"""Bytes of an artifact file."""


class EntryModel(Record, kw_only=True):
    """One model that an artifact was built for."""

    name: str
    tp: Annotated[int, Meta(ge=1, le=1 << 32)]
    """Tensor-parallel size."""
    dtype: str


class Provenances(Record, kw_only=True, omit_defaults=True):
    """How many choices come from where. What a capture brings is for one deployment and is not published."""

    measured: Count
    proxy: Count = 0
    """Left out where it is 0."""
    transferred: Count
    default: Count


class Entry(Record, kw_only=True):
    """One artifact of a registry: what its manifest says, as far as choosing needs it."""

    identifier: str
    sha256: Digest
    """Of the ``.tar.zst`` file."""
    size: FileSize
    target: TargetName
    provider: str
    """Its name, for example ``fla``."""
    distribution: str
    """What pip calls the provider."""
    version: str
    """Of that distribution."""
    license: str
    """SPDX expression of the provider."""
    triton: str
    ptxas: str
    models: tuple[EntryModel, ...]
    """In the order of the manifest."""
    mode: Mode
    max_tokens: Count
    kernels: Count
    """Kernels with at least one binary."""
    binaries: Count
    choices: Provenances
    numerics: Numerics
    not_covered: Count
    """Kernels, or workloads, with autotune keys that the artifact lacks."""
    tool: str
    commit: Commit | None
    dirty: bool
    """Built from a checkout with changes that no commit has."""


class RegistryIndex(Record, kw_only=True):
    """``index.json``."""

    format: int = 1
    tree: Annotated[str, Meta(pattern=r"^v[1-9][0-9]{0,5}(?![\s\S])")] | None
    """The branch that has the files, whose own index counts; None where they are in the same revision."""
    entries: tuple[Entry, ...]
    """Sorted by identifier, each once."""

    def find(self, identifier: str) -> Entry | None:
        """Return the entry of an identifier."""
        return next((entry for entry in self.entries if entry.identifier == identifier), None)


def artifact_path(identifier: str) -> str:
    """Return where an artifact's file is in the repository."""
    return f"targets/{identifier}{SUFFIX}"


def entry_path(identifier: str) -> str:
    """Return where an artifact's `Entry` is in the repository, as a file of its own."""
    return f"targets/{identifier}.json"


def signature_path(identifier: str) -> str:
    """Return where the statement that a publisher signed of an artifact is in the repository."""
    return f"targets/{identifier}{SIGNATURE}"


def provenance_path(identifier: str) -> str:
    """Return where the Sigstore bundle of an artifact is in the repository, if it has one."""
    return f"targets/{identifier}{PROVENANCE}"


def keyring_path(version: int) -> str:
    """Return where a version of the repository's keyring is in it."""
    return f"keyrings/{version}.json"


def entry_of(artifact: Artifact) -> Entry:
    """Return the entry of a verified artifact."""
    manifest = artifact.manifest
    provenance = [choice.provenance for kernel in manifest.kernels for choice in kernel.choices]
    return Entry(
        identifier=manifest.identifier,
        sha256=artifact.sha256,
        size=artifact.size,
        target=manifest.target.name,
        provider=manifest.provider.name,
        distribution=manifest.provider.distribution,
        version=manifest.provider.version,
        license=manifest.provider.license,
        triton=manifest.triton.version,
        ptxas=manifest.triton.ptxas,
        models=tuple(EntryModel(name=model.name, tp=model.tp, dtype=model.dtype) for model in manifest.models),
        mode=manifest.mode,
        max_tokens=manifest.max_tokens,
        kernels=sum(bool(kernel.binaries) for kernel in manifest.kernels),
        binaries=sum(len(kernel.binaries) for kernel in manifest.kernels),
        choices=count_choices(provenance),
        numerics=manifest.numerics,
        not_covered=len({gap.kernel for gap in manifest.not_covered}),
        tool=manifest.build.tool,
        commit=manifest.build.commit,
        dirty=manifest.build.dirty,
    )


def count_choices(provenances: Iterable[str]) -> Provenances:
    """Return how many choices come from where."""
    found = list(provenances)
    return Provenances(**{name: found.count(name) for name in Provenances.__struct_fields__})


def make_index(entries: Iterable[Entry], *, tree: str | None = None) -> RegistryIndex:
    """Return an index of entries in any order."""
    return RegistryIndex(tree=tree, entries=tuple(sorted(entries, key=lambda entry: entry.identifier)))


def _check_index(index: RegistryIndex) -> Iterator[Problem]:
    yield from check_order("entries", (entry.identifier for entry in index.entries))
    for number, entry in enumerate(index.entries):
        yield from _check_entry(entry, f"entries[{number}]")


def check_order(where: str, identifiers: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each identifier of a list that is not after the one before."""
    for number, (left, right) in enumerate(pairwise(identifiers), start=1):
        if left >= right:
            yield Problem(f"{where}[{number}].identifier", "is listed twice" if left == right else "is out of order")


def check_identifier(artifact: Candidate, where: str) -> Iterator[Problem]:
    """Yield a problem if an identifier is not that of the provider, versions and target beside it, or no file name."""
    expected = make_identifier(artifact.provider, artifact.version, artifact.triton, artifact.target)
    if artifact.identifier != expected or not _IDENTIFIER.fullmatch(expected) or len(expected) > MAX_IDENTIFIER:
        what = "is not what the fields below give, or is no file name: too long, or with characters that none may have"
        yield Problem(f"{where}.identifier".removeprefix("."), what)


def _check_entry(entry: Entry, where: str = "") -> Iterator[Problem]:
    yield from check_identifier(entry, where)
    for place, text in _texts(msgspec.to_builtins(entry), where):
        if not text.isprintable():  # commands show them on terminals
            yield Problem(place, f"has characters that cannot be printed: {text[:80]!a}")


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Yield (path, text) for every text in JSON."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{number}]")


def _lines(compact: bytes) -> bytes:
    return msgspec.json.format(compact, indent=1) + b"\n"


INDEX_FORM = Form(RegistryIndex, "the registry index", format=1, limit=MAX_INDEX, layout=_lines, check=_check_index)
ENTRY_FORM = Form(Entry, "the entry", format=1, limit=MAX_INDEX, layout=_lines, check=_check_entry)
"""A file at `entry_path`; what is refused here no index may have."""

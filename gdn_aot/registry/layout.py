"""Where things are in a registry, and its index: what artifacts there are, without opening any.

``index.json`` is ASCII and sorted, so the same entries give the same bytes; ``resources/registry.schema.json`` says
the same as a schema, and ``docs/reference/registry.md`` in words.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import msgspec

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.reader import COMMIT, DIGEST, IDENTIFIER, JsonObject, ProblemList, check_format, load_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.artifact.verify import Artifact

MAJOR = 1
"""Version of layout and artifact format together; names the branch that has the files."""
FORMAT = 1
"""Version of ``index.json``."""
DEFAULT_REPO = "hf://gdn-aot/kernels"
MAIN = "main"
"""The branch that a browser shows: the card and an index that points to `branch_name`."""
INDEX = "index.json"
CARD = "README.md"
TARGETS = "targets"
MAX_INDEX = 32 << 20
"""Bytes of an index: some 7,000 entries with 50 models each."""
MAX_FILE = 128 << 20
"""Bytes of an artifact file, as `gdn_aot.artifact.container.MAX_FILE`, which would import zstandard."""

_TEXTS = ("provider", "distribution", "version", "license", "triton", "ptxas", "tool")
"""Fields that no other rule holds to a few characters. Commands show them on terminals."""
_TREE = re.compile(r"v[1-9][0-9]{0,5}")
_PROVENANCES: tuple[m.Provenance, ...] = ("measured", "transferred", "default")
"""Those that `Provenances` counts. What a capture brings is for one deployment and is not published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryModel:
    """One model that an artifact was built for."""

    name: str
    tp: int
    """Tensor-parallel size."""
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenances:
    """How many choices come from where."""

    measured: int
    transferred: int
    default: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One artifact of a registry: what its manifest says, as far as choosing needs it."""

    identifier: str
    sha256: str
    """Of the ``.tar.zst`` file."""
    size: int
    """Its bytes."""
    target: str
    """``sm_<major><minor>``."""
    provider: str
    """Its name, for example ``fla``."""
    distribution: str
    """What pip calls the provider."""
    version: str
    """Of that distribution."""
    license: str
    """SPDX expression of the provider."""
    triton: str
    """Version."""
    ptxas: str
    """Version."""
    models: tuple[EntryModel, ...]
    """In the order of the manifest."""
    mode: m.Mode
    max_tokens: int
    kernels: int
    """Kernels with at least one binary."""
    binaries: int
    choices: Provenances
    numerics: m.Numerics
    not_covered: int
    """Kernels, or workloads, with autotune keys that the artifact lacks."""
    tool: str
    commit: str | None
    dirty: bool
    """Built from a checkout with changes that no commit has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryIndex:
    """``index.json``."""

    format: int = FORMAT
    tree: str | None
    """The branch that has the files, whose own index counts; None where they are in the same revision."""
    entries: tuple[Entry, ...]
    """Sorted by identifier, each once."""

    def find(self, identifier: str) -> Entry | None:
        """Return the entry of an identifier."""
        return next((entry for entry in self.entries if entry.identifier == identifier), None)


def branch_name(major: int = MAJOR) -> str:
    """Return the moving branch that has the files: ``v1``."""
    return f"v{major}"


def artifact_path(identifier: str) -> str:
    """Return where an artifact's file is in the repository."""
    return f"{TARGETS}/{identifier}.tar.zst"


def entry_path(identifier: str) -> str:
    """Return where an artifact's `Entry` is in the repository, as a file of its own."""
    return f"{TARGETS}/{identifier}.json"


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
        choices=Provenances(**{name: provenance.count(name) for name in _PROVENANCES}),
        numerics=manifest.numerics,
        not_covered=len({gap.kernel for gap in manifest.not_covered}),
        tool=manifest.build.tool,
        commit=manifest.build.commit,
        dirty=manifest.build.dirty,
    )


def make_index(entries: Sequence[Entry], *, tree: str | None = None) -> RegistryIndex:
    """Return an index of entries in any order."""
    return RegistryIndex(tree=tree, entries=tuple(sorted(entries, key=lambda entry: entry.identifier)))


def to_bytes(index: RegistryIndex) -> bytes:
    """Return the bytes of ``index.json``: ASCII, indented, keys in the order of the fields."""
    return _dump(asdict(index))


def entry_bytes(entry: Entry) -> bytes:
    """Return the bytes of an entry's own file."""
    return _dump(asdict(entry))


def _dump(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, indent=1, default=msgspec.to_builtins)
    return text.encode("ascii") + b"\n"


def parse_index(data: bytes) -> RegistryIndex:
    """Parse an index and check that it makes sense.

    Raises:
        UnknownFormatError: It is of another format version; nothing else was looked at.
        VerificationError: Something is missing, unknown, of the wrong type or contradicts the rest. It carries every
            problem with its path.
    """
    problems = ProblemList()
    raw = load_json(data, INDEX, MAX_INDEX, problems)
    problems.raise_any("the index of the registry cannot be read")
    check_format(raw, "registry index", FORMAT, problems)
    problems.raise_any("the index of the registry cannot be read")
    index = _index(JsonObject(raw, "", RegistryIndex, problems))
    problems.raise_any("the index of the registry is malformed")
    for where, what in _check(index):
        problems.add(where, what)
    problems.raise_any("the index of the registry contradicts itself")
    return index


def _index(o: JsonObject) -> RegistryIndex:
    return RegistryIndex(
        format=o.integer("format"),
        tree=o.optional("tree", o.text),
        entries=o.children("entries", Entry, _entry),
    )


def _entry(o: JsonObject) -> Entry:
    return Entry(
        identifier=o.text("identifier"),
        sha256=o.text("sha256"),
        size=o.integer("size"),
        target=o.text("target"),
        provider=o.text("provider"),
        distribution=o.text("distribution"),
        version=o.text("version"),
        license=o.text("license"),
        triton=o.text("triton"),
        ptxas=o.text("ptxas"),
        models=o.children("models", EntryModel, _model),
        mode=o.one_of("mode", get_args(m.Mode)),
        max_tokens=o.integer("max_tokens"),
        kernels=o.integer("kernels"),
        binaries=o.integer("binaries"),
        choices=o.child("choices", Provenances, _provenances),
        numerics=o.child("numerics", m.Numerics, _numerics),
        not_covered=o.integer("not_covered"),
        tool=o.text("tool"),
        commit=o.optional("commit", o.text),
        dirty=o.boolean("dirty"),
    )


def _model(o: JsonObject) -> EntryModel:
    return EntryModel(name=o.text("name"), tp=o.integer("tp"), dtype=o.text("dtype"))


def _provenances(o: JsonObject) -> Provenances:
    return Provenances(
        measured=o.integer("measured"), transferred=o.integer("transferred"), default=o.integer("default")
    )


def _numerics(o: JsonObject) -> m.Numerics:
    return m.Numerics(status=o.text("status"), detail=o.text("detail"))


def _check(index: RegistryIndex) -> Iterator[tuple[str, str]]:
    """Yield (path, problem) for what is well-formed and makes no sense."""
    if index.tree is not None and not _TREE.fullmatch(index.tree):
        yield "tree", "expected null or a branch such as v1"
    for number, (left, right) in enumerate(pairwise(index.entries), start=1):
        if left.identifier == right.identifier:
            yield f"entries[{number}].identifier", "is listed twice"
        elif left.identifier > right.identifier:
            yield f"entries[{number}].identifier", "is out of order"
    for number, entry in enumerate(index.entries):
        for field, what in check_entry(entry):
            yield f"entries[{number}].{field}", what


def check_entry(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield (field, problem) for what no entry of a registry may have."""
    expected = names.make_identifier(entry.provider, entry.version, entry.triton, entry.target)
    if entry.identifier != expected or not IDENTIFIER.fullmatch(entry.identifier):
        yield "identifier", "is not what the fields below give, or has characters that a file name must not have"
    if not DIGEST.fullmatch(entry.sha256):
        yield "sha256", "expected 64 lower-case hexadecimal digits"
    if not 0 < entry.size <= MAX_FILE:
        yield "size", f"expected 1 to {MAX_FILE} bytes"
    if not re.fullmatch(r"sm_[0-9]{2,4}", entry.target):
        yield "target", "expected sm_ and digits"
    if entry.commit is not None and not COMMIT.fullmatch(entry.commit):
        yield "commit", "expected null or 40 lower-case hexadecimal digits"
    counts = {name: getattr(entry, name) for name in ("max_tokens", "kernels", "binaries", "not_covered")}
    counts |= {f"choices.{name}": getattr(entry.choices, name) for name in _PROVENANCES}
    counts |= {f"models[{number}].tp": model.tp - 1 for number, model in enumerate(entry.models)}
    for name, count in counts.items():
        if count < 0:
            yield name, "is too small"
    texts = {name: getattr(entry, name) for name in _TEXTS}
    texts |= {"numerics.status": entry.numerics.status, "numerics.detail": entry.numerics.detail}
    texts |= {f"models[{number}].name": model.name for number, model in enumerate(entry.models)}
    texts |= {f"models[{number}].dtype": model.dtype for number, model in enumerate(entry.models)}
    for name, text in texts.items():
        if not text.isprintable():
            yield name, f"has characters that cannot be printed: {text[:80]!a}"

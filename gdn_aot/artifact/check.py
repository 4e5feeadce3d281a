"""Whether a well-formed manifest makes sense: the rules that tie its fields to each other."""

from __future__ import annotations

from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gdn_aot._text import shown
from gdn_aot.artifact.check_cache import check_cache
from gdn_aot.artifact.check_kernels import check_choice, check_metadata, is_dotted
from gdn_aot.artifact.cubins import is_known
from gdn_aot.artifact.launch_key import LaunchKeys
from gdn_aot.artifact.manifest import BinaryRow, Parts
from gdn_aot.artifact.names import (
    DEPLOYMENT,
    MAX_CHOICES,
    MAX_HEADER,
    MAX_MODULES,
    MAX_PLACED,
    MAX_PLACED_FILES,
    is_single,
    make_identifier,
)
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.codec import unbounded
from gdn_aot.errors import Problem
from gdn_aot.launches import MAX_ITEMS, comparable, field_problems
from gdn_aot.problems import step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gdn_aot.artifact.manifest import FileKernel, ManifestFile, ManifestHead
    from gdn_aot.launches import Key

MAX_TOTAL = 512 << 20
"""Bytes of all blobs. An artifact for every model has 61 MiB of them on sm_120 and about 280 MiB on sm_70."""
MAX_BLOBS = 1 << 15
"""An artifact for every model has 2,800."""
MAX_EXPANDED = 64 << 20
"""Bytes of all binaries as JSON, each with its own copy of its parts. An artifact for every model has 7 MiB."""
MAX_USERS = 500_000
"""Models and workloads of all binaries. An artifact for every model has 17,000."""

_Text = TypeVar("_Text", str, bytes, tuple[str, str])
_PLACES = {name: place for place, name in enumerate(BinaryRow.__struct_fields__)}


def check_file(file: ManifestFile) -> Iterator[Problem]:
    """Yield what is inconsistent in a manifest, with its path.

    Names and relative paths have their form; kernels are of the provider's own package; kernels, autotune keys (as
    Triton compares them: 1 equals True) and launch keys are unique; choices are what Triton can launch; binaries point
    to parts, models and workloads that are there; the parts and the blobs are exactly those referred to, each once, in
    the order in which they are referred to; a launch key says what its binary was compiled for.
    """
    yield from _check_identity(file)
    yield from _check_package(file)
    yield from _unique("kernels", ((kernel.module, kernel.qualname) for kernel in file.kernels))
    for number, kernel in enumerate(file.kernels):
        yield from _check_kernel(kernel, f"kernels[{number}]")
    yield from _check_placed(file)
    yield from check_cache(file)
    yield from _check_blobs(file)
    wrong = [*_check_numbers(file)]
    yield from wrong
    unsound = [*_check_parts(file)]
    yield from unsound
    if not wrong:
        yield from _check_users(file)
        yield from _check_relaxations(file)
        yield from _check_expanded(file)
        if not unsound:
            yield from _check_binaries(file)


def _check_identity(file: ManifestHead) -> Iterator[Problem]:
    provider, target = file.provider, file.target
    expected = make_identifier(provider.name, provider.version, file.triton.version, target.name, file.workloads)
    if file.identifier != expected:
        yield Problem("identifier", f"is not what the fields below give, {_short(expected)}")
    named = [name for name in file.workloads if name.startswith(DEPLOYMENT)]
    if named != ([DEPLOYMENT + file.deployment.asked.digest] if file.deployment else []):
        yield Problem("deployment", f"is not the one that the workloads name as {DEPLOYMENT}...")
    major, minor = target.capability
    if target.name != f"sm_{major}{minor}" or not 0 <= minor <= 9:  # noqa: PLR2004
        yield Problem("target.capability", f"[{major}, {minor}] is not that of {_short(target.name)}")
    for number, file_ in enumerate(provider.license_files):
        yield from _check_path(file_.path, f"provider.license_files[{number}].path")


def _check_package(file: ManifestFile) -> Iterator[Problem]:
    info = PROVIDERS.get(file.provider.name)
    if info is None:
        yield Problem("provider.name", f"{_short(file.provider.name)} is no known provider")
        return
    for number, kernel in enumerate(file.kernels):
        if kernel.module.partition(".")[0] != info.package:
            yield Problem(f"kernels[{number}].module", f"is not in the package {info.package} of the provider")
        elif not is_dotted(kernel.module):
            yield Problem(f"kernels[{number}].module", "expected the name of a module")
        if not is_dotted(kernel.qualname.replace("<locals>", "locals")):
            yield Problem(f"kernels[{number}].qualname", "expected the name of a function")
    modules = {kernel.module for kernel in file.kernels}
    if len(modules) > MAX_MODULES:
        yield Problem("kernels", f"are of more than {MAX_MODULES} modules")
    told = (file.identifier, file.target, file.provider, file.triton, file.models, file.workloads, sorted(modules))
    if len(msgspec.json.encode(told)) > MAX_HEADER >> 1:
        yield Problem("", f"what identifies it takes more than {MAX_HEADER >> 1} bytes")


def _check_kernel(kernel: FileKernel, where: str) -> Iterator[Problem]:
    if len(kernel.choices) > MAX_CHOICES:
        yield Problem(f"{where}.choices", f"are more than {MAX_CHOICES}")
        return
    for number, source in enumerate(kernel.sources):
        yield from _check_path(source.path, f"{where}.sources[{number}].path")
    yield from _unique(f"{where}.relaxations", (relaxed.argument for relaxed in kernel.relaxations), ".argument")
    yield from _unique(f"{where}.choices", (comparable(choice.key) for choice in kernel.choices), ".key")
    yield from _unique(f"{where}.binaries", (binary.launch_key for binary in kernel.binaries), "[0]")
    for number, choice in enumerate(kernel.choices):
        names = [name for name, _ in choice.config.kwargs]
        if len({*names}) != len(names):
            yield from _unique(f"{where}.choices[{number}].config.kwargs", names, "[0]")
        yield from check_choice(choice.config, f"{where}.choices[{number}].config")


def _check_placed(file: ManifestFile) -> Iterator[Problem]:
    yield from _unique("placed", (placed.name for placed in file.placed), ".name")
    if len(file.placed) > MAX_PLACED_FILES:
        yield Problem("placed", f"are more than {MAX_PLACED_FILES}")
    for number, placed in enumerate(file.placed):
        if not placed.sources:
            yield Problem(f"placed[{number}].sources", "is empty")
        for inner, source in enumerate(placed.sources):
            yield from _check_path(source.path, f"placed[{number}].sources[{inner}].path")


def _check_blobs(file: ManifestFile) -> Iterator[Problem]:
    yield from _unique("blobs", (blob.sha256 for blob in file.blobs), ".sha256")
    there = {blob.sha256: blob.size for blob in file.blobs}
    for number, license_file in enumerate(file.provider.license_files):
        if license_file.blob not in there:
            where = f"provider.license_files[{number}].blob"
            yield Problem(where, f"blob {license_file.blob} is not in the blob table")
    for number, placed in enumerate(file.placed):
        if there.get(placed.blob, MAX_PLACED + 1) > MAX_PLACED:
            what = f"of at most {MAX_PLACED} bytes is in the blob table"
            yield Problem(f"placed[{number}].blob", f"no blob {placed.blob} {what}")
    if sum(blob.size for blob in file.blobs) > MAX_TOTAL:
        yield Problem("blobs", f"are larger than {MAX_TOTAL} bytes together")
    if len(file.blobs) > MAX_BLOBS:
        yield Problem("blobs", f"are more than {MAX_BLOBS}")


def _check_numbers(file: ManifestFile) -> Iterator[Problem]:
    """Yield which numbers of binaries name nothing, and what no binary names or comes to in another order."""
    tables: dict[str, Sequence[object]] = {name: getattr(file.parts, name) for name in Parts.__struct_fields__}
    tables["blob"] = file.blobs
    digests = {blob.sha256: number for number, blob in enumerate(file.blobs)}
    others = [item.blob for item in file.provider.license_files] + [item.blob for item in file.placed]
    rows = [msgspec.structs.astuple(row) for kernel in file.kernels for row in kernel.binaries]
    columns = dict(zip(_PLACES, zip(*rows, strict=True), strict=True)) if rows else {}
    last = [digests[blob] for blob in file.cached_blobs if blob in digests]
    columns["blob"] = (*(digests[blob] for blob in others if blob in digests), *columns.get("blob", ()), *last)
    for name, table in tables.items():
        column = columns.get(name, ())
        if column and not 0 <= min(column) <= max(column) < len(table):
            for where, row in _rows(file, name):
                if getattr(row, name) not in range(len(table)):
                    yield Problem(where, f"expected a number from 0, below {len(table)}")
            continue
        met = [*dict.fromkeys(column)]
        if met != [*range(len(table))]:
            yield _order_fault("blobs" if name == "blob" else f"parts.{name}", met)


def _order_fault(place: str, met: list[int]) -> Problem:
    """Return what is wrong with a table whose entries are met in this order."""
    at = next((at for at, number in enumerate(met) if at != number), len(met))
    return Problem(f"{place}[{at}]", "nothing refers to it" if at not in met else "is referred to after one behind it")


def _check_parts(file: ManifestFile) -> Iterator[Problem]:
    parts = file.parts
    for name in Parts.__struct_fields__:
        part = getattr(parts, name)
        wrong = [
            problem
            for number, value in enumerate(part if name != "constants" or not _all_plain(parts) else ())
            for problem in field_problems(name, value, f"parts.{name}[{number}]")
        ]
        if name == "metadata" and not wrong:
            wrong = [
                problem
                for number, value in enumerate(part)
                for problem in check_metadata(value, file.target, f"parts.metadata[{number}]")
            ]
        if name == "signature" and not wrong:
            wrong = [
                Problem(f"parts.signature[{number}]{step(argument)}", f"{shown(kind, 80)} is no type of Triton's")
                for number, value in enumerate(part)
                for argument, kind in value.items()
                if not is_known(kind)
            ]
        yield from wrong or _unique(f"parts.{name}", map(msgspec.json.encode, part))


def _all_plain(parts: Parts) -> bool:
    """Say whether all constants are bounded scalars, and few."""
    values = [value for constants in parts.constants for _, value in constants]
    integers = [value for value in values if type(value) is int]
    return (
        {*map(type, values)}.isdisjoint((list, dict))
        and all(len(constants) <= MAX_ITEMS for constants in parts.constants)
        and not (integers and unbounded([min(integers), max(integers)]))
    )


def _check_users(file: ManifestFile) -> Iterator[Problem]:
    for name, known in (("models", len(file.models)), ("workloads", len(file.workloads))):
        for number, indices in enumerate(getattr(file.parts, name)):
            if any(left >= right for left, right in pairwise(indices)):
                yield Problem(f"parts.{name}[{number}]", "expected indices in rising order, each once")
            elif indices and not 0 <= indices[0] <= indices[-1] < known:
                yield Problem(f"parts.{name}[{number}]", f"expected indices from 0, below {known}")
    if () in (*file.parts.models, *file.parts.workloads):
        yield from _check_empty(file)


def _check_empty(file: ManifestFile) -> Iterator[Problem]:
    models, workloads = file.parts.models, file.parts.workloads
    captures = {number for number, name in enumerate(file.workloads) if is_single(name)}
    for where, row in _rows(file, "models"):
        if not models[row.models] and captures.isdisjoint(workloads[row.workloads]):
            yield Problem(where, "is empty")
    for where, row in _rows(file, "workloads"):
        if not workloads[row.workloads]:
            yield Problem(where, "is empty")


def _check_relaxations(file: ManifestFile) -> Iterator[Problem]:
    for outer, kernel in enumerate(file.kernels):
        left = {relaxed.argument: number for number, relaxed in enumerate(kernel.relaxations)}
        for number, relaxed in enumerate(kernel.relaxations):
            keys = [choice.key for choice in kernel.choices] if relaxed.place is not None else []
            if relaxed.place is not None and not all(_is_size(key, relaxed.place) for key in keys):
                yield Problem(f"kernels[{outer}].relaxations[{number}].place", "is no place of a size in every key")
        taken = {relaxed.argument for relaxed in kernel.relaxations if relaxed.value is None}
        signatures = {row.signature: inner for inner, row in reversed([*enumerate(kernel.binaries)])} if left else {}
        for number, inner in signatures.items():
            signature = file.parts.signature[number]
            for argument in [
                name
                for name in left
                if signature.get(name) not in (("constexpr", "i32") if name in taken else ("constexpr",))
            ]:
                where = f"kernels[{outer}].relaxations[{left.pop(argument)}].argument"
                yield Problem(where, f"is no constexpr of binaries[{inner}]")


def _is_size(key: Key, place: int) -> bool:
    found = key[place] if 0 <= place < len(key) else None
    return isinstance(found, int) and not isinstance(found, bool) and found > 0


def _check_expanded(file: ManifestFile) -> Iterator[Problem]:
    """Yield whether binaries are too large with their pieces in place of the numbers, as they are shown and indexed."""
    rows = [row for kernel in file.kernels for row in kernel.binaries]
    bytes_, users = sum(len(row.launch_key) for row in rows), 0
    for name in Parts.__struct_fields__:
        part, column = getattr(file.parts, name), [*map(attrgetter(name), rows)]
        sizes = [len(msgspec.json.encode(value)) for value in part]
        bytes_ += sum(map(sizes.__getitem__, column))
        users += sum(len(part[number]) for number in column) if name in ("models", "workloads") else 0
    if bytes_ > MAX_EXPANDED:
        yield Problem("kernels", f"have binaries of more than {MAX_EXPANDED} bytes, with their parts")
    if users > MAX_USERS:
        yield Problem("kernels", f"have binaries with more than {MAX_USERS} models and workloads together")


def _check_binaries(file: ManifestFile) -> Iterator[Problem]:
    """Yield where the parts of a binary contradict each other, its launch key or the kernel's choices."""
    keys, parts = LaunchKeys(file.parts), file.parts
    shared = [made["shared"] for made in parts.metadata]
    for outer, kernel in enumerate(file.kernels):
        where = f"kernels[{outer}]"
        for inner, row in enumerate(kernel.binaries):
            what = keys.fault(row.launch_key, row.signature, row.constants, row.attributes, row.options)
            if what:
                yield Problem(f"{where}.binaries[{inner}][0]", what)
            if parts.resources[row.resources].shared != shared[row.metadata]:
                yield Problem(
                    f"{where}.binaries[{inner}][{_PLACES['resources']}]", "shared is not that of the metadata"
                )
        if not kernel.binaries:
            continue
        signatures = [parts.signature[number] for number in {row.signature for row in kernel.binaries}]
        names = {name for choice in kernel.choices for name, _ in choice.config.kwargs}
        wrong = {name for name in names if any(signature.get(name) != "constexpr" for signature in signatures)}
        for number, choice in enumerate(kernel.choices if wrong else ()):
            for inner, (name, _) in enumerate(choice.config.kwargs):
                if name in wrong:
                    what = "is no constexpr of every binary of the kernel"
                    yield Problem(f"{where}.choices[{number}].config.kwargs[{inner}][0]", what)


def _rows(file: ManifestFile, field: str) -> Iterator[tuple[str, BinaryRow]]:
    """Yield (path of a field, binary) for every binary."""
    for outer, kernel in enumerate(file.kernels):
        for inner, row in enumerate(kernel.binaries):
            yield f"kernels[{outer}].binaries[{inner}][{_PLACES[field]}]", row


def _check_path(path: str, where: str) -> Iterator[Problem]:
    if not {"", ".", ".."}.isdisjoint(path.split("/")) or not set("\\:\0").isdisjoint(path):
        yield Problem(where, "expected a relative path with forward slashes, without . and ..")


def _unique(where: str, keys: Iterable[_Text], field: str = "") -> Iterator[Problem]:
    """Yield which keys are there twice. They are text, whose hashes nobody can choose as he can those of integers."""
    listed: list[_Text] = list(keys)
    if len({*listed}) == len(listed):
        return
    seen: dict[_Text, int] = {}
    for number, key in enumerate(listed):
        first = seen.setdefault(key, number)
        if first != number:
            yield Problem(f"{where}[{number}]{field}", f"is the same as that of {where}[{first}]")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")  # noqa: PLR2004

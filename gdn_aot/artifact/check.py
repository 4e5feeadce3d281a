"""Whether a well-formed manifest makes sense: the rules that tie its fields to each other."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from gdn_aot.artifact.manifest import BinaryRow, Parts
from gdn_aot.artifact.names import is_capture, make_identifier
from gdn_aot.codec import unbounded
from gdn_aot.errors import Problem
from gdn_aot.launches import field_problems

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from gdn_aot.artifact.manifest import FileKernel, ManifestFile, ManifestHead

MAX_TOTAL = 1 << 30
"""Bytes of everything in an artifact, uncompressed."""

_PLACES = {name: place for place, name in enumerate(BinaryRow.__struct_fields__)}


def check_file(file: ManifestFile) -> Iterator[Problem]:
    """Yield what is inconsistent in a manifest, with its path.

    Names and relative paths have their form; kernels, autotune keys (as Triton compares them: 1 equals True) and launch
    keys are unique; binaries point to parts, models and workloads that are there; the parts and the blobs are exactly
    those referred to, each once, in the order in which they are referred to.
    """
    yield from _check_identity(file)
    yield from _unique("kernels", ((kernel.module, kernel.qualname) for kernel in file.kernels))
    for number, kernel in enumerate(file.kernels):
        yield from _check_kernel(kernel, f"kernels[{number}]")
    yield from _check_blobs(file)
    wrong = [*_check_numbers(file)]
    yield from wrong
    yield from _check_parts(file)
    if not wrong:
        yield from _check_users(file)
        yield from _check_relaxations(file)


def _check_identity(file: ManifestHead) -> Iterator[Problem]:
    provider, target = file.provider, file.target
    expected = make_identifier(provider.name, provider.version, file.triton.version, target.name, file.workloads)
    if file.identifier != expected:
        yield Problem("identifier", f"is not what the fields below give, {_short(expected)}")
    major, minor = target.capability
    if target.name != f"sm_{major}{minor}" or not 0 <= minor <= 9:  # noqa: PLR2004
        yield Problem("target.capability", f"[{major}, {minor}] is not that of {_short(target.name)}")
    for number, file_ in enumerate(provider.license_files):
        yield from _check_path(file_.path, f"provider.license_files[{number}].path")


def _check_kernel(kernel: FileKernel, where: str) -> Iterator[Problem]:
    for number, source in enumerate(kernel.sources):
        yield from _check_path(source.path, f"{where}.sources[{number}].path")
    yield from _unique(f"{where}.relaxations", (relaxed.argument for relaxed in kernel.relaxations), ".argument")
    yield from _unique(f"{where}.choices", (choice.key for choice in kernel.choices), ".key")
    yield from _unique(f"{where}.binaries", (binary.launch_key for binary in kernel.binaries), "[0]")
    for number, choice in enumerate(kernel.choices):
        names = [name for name, _ in choice.config.kwargs]
        if len({*names}) != len(names):
            yield from _unique(f"{where}.choices[{number}].config.kwargs", names, "[0]")


def _check_blobs(file: ManifestFile) -> Iterator[Problem]:
    yield from _unique("blobs", (blob.sha256 for blob in file.blobs), ".sha256")
    there = {blob.sha256 for blob in file.blobs}
    for number, license_file in enumerate(file.provider.license_files):
        if license_file.blob not in there:
            where = f"provider.license_files[{number}].blob"
            yield Problem(where, f"blob {license_file.blob} is not in the blob table")
    if sum(blob.size for blob in file.blobs) > MAX_TOTAL:
        yield Problem("blobs", f"are larger than {MAX_TOTAL} bytes together")


def _check_numbers(file: ManifestFile) -> Iterator[Problem]:
    """Yield which numbers of binaries name nothing, and what no binary names or comes to in another order."""
    tables: dict[str, Sequence[object]] = {name: getattr(file.parts, name) for name in Parts.__struct_fields__}
    tables["blob"] = file.blobs
    digests = {blob.sha256: number for number, blob in enumerate(file.blobs)}
    licenses = [digests[item.blob] for item in file.provider.license_files if item.blob in digests]
    rows = [msgspec.structs.astuple(row) for kernel in file.kernels for row in kernel.binaries]
    columns = dict(zip(_PLACES, zip(*rows, strict=True), strict=True)) if rows else {}
    columns["blob"] = (*licenses, *columns.get("blob", ()))
    for name, table in tables.items():
        met = [*dict.fromkeys(columns.get(name, ()))]
        if met == [*range(len(table))]:
            continue
        missing = [
            Problem(where, f"expected a number from 0, below {len(table)}")
            for where, row in _rows(file, name)
            if getattr(row, name) not in range(len(table))
        ]
        place = "blobs" if name == "blob" else f"parts.{name}"
        yield from missing or [_order_fault(place, met)]


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
        yield from wrong or _unique(f"parts.{name}", map(msgspec.json.encode, part))


def _all_plain(parts: Parts) -> bool:
    """Say whether all constants are bounded scalars. Few are different, so that a set of them is quickly looked at."""
    try:
        return not unbounded([*{value for constants in parts.constants for _, value in constants}])
    except TypeError:  # a list or an object
        return False


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
    captures = {number for number, name in enumerate(file.workloads) if is_capture(name)}
    for where, row in _rows(file, "models"):
        if not models[row.models] and captures.isdisjoint(workloads[row.workloads]):
            yield Problem(where, "is empty")
    for where, row in _rows(file, "workloads"):
        if not workloads[row.workloads]:
            yield Problem(where, "is empty")


def _check_relaxations(file: ManifestFile) -> Iterator[Problem]:
    for outer, kernel in enumerate(file.kernels):
        left = {relaxed.argument: number for number, relaxed in enumerate(kernel.relaxations)}
        signatures = {row.signature: inner for inner, row in reversed([*enumerate(kernel.binaries)])} if left else {}
        for number, inner in signatures.items():
            signature = file.parts.signature[number]
            for argument in [name for name in left if signature.get(name) != "constexpr"]:
                where = f"kernels[{outer}].relaxations[{left.pop(argument)}].argument"
                yield Problem(where, f"is no constexpr of binaries[{inner}]")


def _rows(file: ManifestFile, field: str) -> Iterator[tuple[str, BinaryRow]]:
    """Yield (path of a field, binary) for every binary."""
    for outer, kernel in enumerate(file.kernels):
        for inner, row in enumerate(kernel.binaries):
            yield f"kernels[{outer}].binaries[{inner}][{_PLACES[field]}]", row


def _check_path(path: str, where: str) -> Iterator[Problem]:
    if not {"", ".", ".."}.isdisjoint(path.split("/")) or not set("\\:\0").isdisjoint(path):
        yield Problem(where, "expected a relative path with forward slashes, without . and ..")


def _unique(where: str, keys: Iterable[Hashable], field: str = "") -> Iterator[Problem]:
    keys = [*keys]
    if len({*keys}) == len(keys):
        return
    seen: dict[Hashable, int] = {}
    for number, key in enumerate(keys):
        first = seen.setdefault(key, number)
        if first != number:
            yield Problem(f"{where}[{number}]{field}", f"is the same as that of {where}[{first}]")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")  # noqa: PLR2004

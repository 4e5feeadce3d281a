"""Artifacts to publish: small, sound, and as many different ones as are asked for."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factory
import msgspec
from loopback.state import Repository
from msgspec.structs import replace

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import Written, write_artifact
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.catalogue.targets import get_target
from gdn_aot.codec import Form
from gdn_aot.registry.layout import Entry, entry_of

SM_120, SM_90 = "fla0.6.0-triton3.6.0-sm_120", "fla0.6.0-triton3.6.0-sm_90"
TARGETS = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
WANTED = ("--provider", "fla", "--provider-version", "0.6.0", "--triton", "3.6.0")
"""Options that ask for what `make` makes, whatever is installed here."""
_LARGEST = 4_000_000
"""Bytes of code in one cubin."""


def make(
    folder: Path,
    target: str = "sm_120",
    *,
    build: int = 0,
    size: int = 20_000,
    version: str = "0.6.0",
    triton: str = "3.6.0",
    dirty: bool = False,
) -> Written:
    """Write an artifact into a folder; another `build` gives other binaries under the same identifier.

    These have `size` bytes, which do not compress; all targets share a quarter of them.
    """
    own, shared = random.Random(f"{target} {build} {size}"), random.Random(f"{build} {size}")
    code = own.randbytes(size * 3 // 4)
    pieces = [code[at : at + _LARGEST] for at in range(0, len(code), _LARGEST)]
    cubins = [factory.kernel_of(code, target=target) for code in (*pieces, shared.randbytes(size // 4))]
    first, *more = (factory.make_binary(cubin, target=target) for cubin in cubins[:-1])
    second = factory.make_binary(cubins[-1], factory.OTHER, target=target)
    row, plain = get_target(target), factory.make_manifest()
    manifest = replace(
        plain,
        identifier=names.make_identifier("fla", version, triton, target),
        target=m.GPU(name=row.name, capability=row.capability, warp_size=32, max_shared=row.max_shared),
        provider=replace(plain.provider, version=version),
        triton=replace(plain.triton, version=triton),
        kernels=(
            factory.make_kernel(first, second),
            factory.make_kernel(first, qualname="l2norm_fwd_kernel"),
            *(factory.make_kernel(one, qualname=f"more{number}") for number, one in enumerate(more)),
        ),
        build=replace(plain.build, commit="c" * 40, dirty=dirty),
    )
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, *cubins)}
    return write_artifact(
        manifest, blobs, folder / f"build-{build}{'-dirty' * dirty}" / names.file_name(manifest.identifier)
    )


def changed(form: Form[Any], record: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return the JSON of a record with one value changed or added, or removed where it is ``...``."""
    raw: Any = json.loads(form.encode(record))
    inner = raw
    for step in place[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return raw


def indexed(made: Written, **changes: Any) -> Entry:
    """Return the entry of an artifact, with some fields changed."""
    return msgspec.structs.replace(entry_of(open_artifact(made.path)), **changes)


def expected(*made: Written) -> dict[str, str]:
    """Return identifier and SHA-256 of artifacts, as `registry.registries.listed` does."""
    return {one.identifier: one.sha256 for one in made}


@dataclass(frozen=True, kw_only=True)
class Published:
    """What two runs of ``gdn-aot publish`` left: v1.0.0 with sm_90 and sm_120, then v1.1.0 with another sm_120."""

    repository: Repository
    large: dict[str, bytes]
    old: Written  # sm_120 of v1.0.0
    new: Written  # sm_120 of v1.1.0

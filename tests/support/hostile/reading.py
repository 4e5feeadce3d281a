"""Read an artifact as any tool does, with zstd, tar and JSON, and compare what gdn-aot says and serves with that."""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import msgspec
import zstandard

from gdn_aot.artifact.verify import Artifact
from gdn_aot.store.stored import StoredArtifact, read_manifest
from hostile.containers import TRAILER, expand


class Members:
    """What is in an artifact file, by Python's own readers."""

    def __init__(self, data: bytes) -> None:
        body, end = data[:-TRAILER], data[-TRAILER:]
        self.sealed = end[-32:] == hashlib.sha256(body).digest() and end[8:15] == b"gdn-aot"
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
            content = stream.readall()
        self.contents: dict[str, bytes] = {}
        self.strange: list[str] = []
        with tarfile.open(fileobj=BytesIO(content), mode="r:") as file:
            for info in file:
                held = file.extractfile(info) if info.isreg() and not info.issparse() else None
                if held is None or info.name in self.contents or info.pax_headers:
                    self.strange.append(info.name)
                else:
                    self.contents[info.name] = held.read()
        self.manifest_json = self.contents.get("manifest.json", b"")
        self.manifest: Any = json.loads(self.manifest_json, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def differences(data: bytes, artifact: Artifact) -> Iterator[str]:
    """Yield what an accepted artifact says that the file does not."""
    members = Members(data)
    if not members.sealed:
        yield "the trailer is wrong"
    if members.strange:
        yield f"has members of other kinds: {members.strange[:3]!a}"
    if artifact.sha256 != hashlib.sha256(data).hexdigest() or artifact.size != len(data):
        yield "its own digest or size is wrong"
    if artifact.manifest_json != members.manifest_json or next(iter(members.contents)) != "manifest.json":
        yield "manifest.json is another"
    blobs = {digest: bytes(held) for digest, held in artifact.iter_blobs()}
    if {f"blobs/{digest}": held for digest, held in blobs.items()} != {
        name: held for name, held in members.contents.items() if name != "manifest.json"
    }:
        yield "blobs are others"
    if any(hashlib.sha256(held).hexdigest() != digest for digest, held in blobs.items()):
        yield "a blob has another digest"
    wanted = expand(members.manifest)
    if not _same(_kernels_of(artifact), wanted["kernels"]):
        yield "kernels are others"
    said = msgspec.to_builtins(artifact.manifest)
    rest = {name: held for name, held in wanted.items() if name != "kernels"}
    if not _same({name: said[name] for name in rest}, rest):
        yield "the manifest says something else"


def _kernels_of(artifact: Artifact) -> list[Any]:
    kernels = msgspec.to_builtins(artifact.manifest)["kernels"]
    for kernel in kernels:
        kernel["binaries"] = [{**binary.pop("specialization"), **binary} for binary in kernel["binaries"]]
    return list(kernels)


def served_differences(data: bytes, place: str) -> Iterator[str]:
    """Yield what a store has of an installed artifact that its file does not say."""
    members, stored = Members(data), StoredArtifact(place)
    wanted = expand(members.manifest)
    if read_manifest(place) != members.manifest_json:
        yield "the manifest of the store is another"
    if [kernel.name for kernel in stored.index.kernels()] != [_name(kernel) for kernel in wanted["kernels"]]:
        yield "the index has other kernels"
    for kernel in wanted["kernels"]:
        found = [
            [list(choice.key), [[*pair] for pair in choice.config.kwargs.items()], *choice.config[1:]]
            for choice in stored.index.choices(_name(kernel))
        ]
        expected = [_choice(choice) for choice in kernel["choices"]]
        if not _same(found, expected):
            yield f"choices of {_name(kernel)!a} are others"
        for row in kernel["binaries"]:
            record = stored.index.binary(_name(kernel), row["launch_key"])
            if record is None:
                yield f"a binary of {_name(kernel)!a} is missing"
                continue
            said = {**record.specialization, "metadata": record.metadata, "cubin": record.cubin}
            if not _same(said, {name: row[name] for name in said}):
                yield f"a binary of {_name(kernel)!a} is another"
            if stored.read_blob(record.cubin) != members.contents[f"blobs/{row['cubin']}"]:
                yield f"code of {_name(kernel)!a} is another"


def _name(kernel: Any) -> str:
    return f"{kernel['module']}:{kernel['qualname']}"


def _choice(choice: Any) -> list[Any]:
    config = choice["config"]
    numbers = [config[name] for name in ("num_warps", "num_stages", "num_ctas", "maxnreg")]
    return [choice["key"], config["kwargs"], *numbers]


def _same(one: Any, other: Any) -> bool:
    """Say whether JSON values are the same, 1 and True and 1.0 apart."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

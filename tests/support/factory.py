"""A small manifest that looks like a real one, and ways to damage an artifact."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cubins import make_cubin
from msgspec.structs import asdict, replace

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names, tar
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.cached import PIECE
from gdn_aot.artifact.container import compressor
from gdn_aot.artifact.manifest_json import load_manifest, to_json
from gdn_aot.artifact.trailer import trailer
from gdn_aot.errors import VerificationError
from gdn_aot.launches import (
    Config,
    Dependency,
    Global,
    Json,
    Key,
    Placement,
    Resources,
    Scalar,
    SourceFile,
    Specialization,
)

LICENSE = b"MIT License\n\nPermission is hereby granted ...\n"
NAME = "chunk_fwd_kernel_o"
SIGNATURE: dict[str, Json] = {
    "k": "*bf16", "h": ["*fp32", "i32"], "T": "i32", "D": "constexpr", "BK": "constexpr", "BV": "constexpr",
    "ACTIVATION": "constexpr",
}  # fmt: skip
_ARGUMENTS = (
    "[('*bf16', 'D'), (('*fp32', 'i32'), ('D', '')), ('i32', {}), ('constexpr', 128), ('constexpr', 64), "
    "('constexpr', None), ('constexpr', 'silu')]"
)
_OPTIONS = "{'num_warps': 4, 'maxnreg': None, 'debug': False, 'instrumentation_mode': ''}"
KEY, OTHER = (_ARGUMENTS.format(text) + _OPTIONS for text in ("''", "None"))
"""Launch keys of one specialization."""


def kernel_of(code: bytes, *, target: str = "sm_120") -> bytes:
    """Return a cubin that fits `make_binary`."""
    sizes = (8, 8, 4, 4, 8, 8)
    return make_cubin(NAME, arch=int(target[3:]), parameters=sizes, threads=128, registers=168, code=code)


CUBINS = (kernel_of(bytes(range(256)) * 20), kernel_of(bytes(range(255, -1, -1)) * 12))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_config(**kwargs: Scalar) -> Config:
    return Config(kwargs=tuple((kwargs or {"BK": 64, "BV": 128}).items()), num_warps=4, num_stages=3)


def make_choice(key: Key = (16, 128, "torch.bfloat16"), provenance: m.Provenance = "default") -> m.Choice:
    return m.Choice(key=key, config=make_config(), provenance=provenance, derived=False, note="")


def make_binary(cubin: bytes, launch_key: str = KEY, *, target: str = "sm_120") -> m.Binary:
    return m.Binary(
        launch_key=launch_key,
        specialization=Specialization(
            signature=SIGNATURE,
            constants=(((3,), 128), ((4,), 64), ((5,), None), ((6,), "silu")),
            attributes=(((0,), (("tt.divisibility", 16),)), ((1, 0), (("tt.divisibility", 16),)), ((2,), ())),
            options={"num_warps": 4, "maxnreg": None},
        ),
        metadata={
            "name": NAME,
            "shared": 65536,
            "num_warps": 4,
            "num_ctas": 1,
            "num_stages": 3,
            "launch_cooperative_grid": False,
            "launch_pdl": False,
            "global_scratch_size": 0,
            "profile_scratch_size": 0,
            "enable_fp_fusion": True,
            "target": {"backend": "cuda", "arch": int(target[3:]), "warp_size": 32},
            "tensordesc_meta": [],
        },
        resources=Resources(registers=168, shared=65536, local=0),
        models=(0,),
        workloads=(0, 1),
        cubin=sha256(cubin),
    )


def make_spilling(local: int) -> tuple[m.Binary, bytes]:
    """Return a binary that takes so many bytes of local memory per thread, and its cubin."""
    cubin = make_cubin(NAME, parameters=(8, 8, 4, 4, 8, 8), threads=128, registers=168, local=local)
    plain = make_binary(cubin)
    return replace(plain, resources=replace(plain.resources, local=local)), cubin


def make_kernel(*binaries: m.Binary, qualname: str = "chunk_fwd_kernel_o") -> m.PackedKernel:
    return m.PackedKernel(
        module="fla.ops.common.chunk_o",
        qualname=qualname,
        cache_key=sha256(qualname.encode()),
        source_sha256=sha256(b"def " + qualname.encode()),
        sources=(SourceFile(path="fla/ops/common/chunk_o.py", sha256=sha256(b"source")),),
        dependencies=(
            Dependency(module="fla.ops.utils.op", qualname="exp2", name="exp2", source_sha256=sha256(b"exp2")),
            Dependency(module="triton.language.math", qualname="log", name="log", source_sha256=""),
        ),
        globals=(Global(name="SOLVE_TRIL_DOT_PRECISION", value="constexpr['tf32']"),),
        choices=(make_choice(), make_choice((32, 1.5, None, True), "measured")),
        binaries=binaries,
    )


def make_manifest(*, blobs: tuple[m.Blob, ...] = (), epoch: int = 0) -> m.Manifest:
    """Return a manifest that refers to `LICENSE` and both `CUBINS`, by default without a blob table."""
    return m.Manifest(
        format=m.FORMAT,
        identifier="fla0.6.0-triton3.6.0-sm_120",
        target=m.GPU(name="sm_120", capability=(12, 0), warp_size=32, max_shared=101376),
        provider=m.Provider(
            name="fla",
            distribution="fla-core",
            version="0.6.0",
            license="MIT",
            license_files=(m.LicenseFile(path="LICENSE", blob=sha256(LICENSE)),),
        ),
        triton=m.Triton(version="3.6.0", ptxas="12.9.86"),
        models=(
            m.TracedShape(
                name="qwen3.5-9b", tp=1, heads=16, v_heads=32, k_dim=128, v_dim=128, conv_width=4, dtype="bf16"
            ),
        ),
        workloads=("transformers-prefill", "transformers-decode"),
        mode="inference",
        max_tokens=32768,
        max_batch=64,
        kernels=(
            make_kernel(make_binary(CUBINS[0]), make_binary(CUBINS[1], OTHER)),
            make_kernel(make_binary(CUBINS[0]), qualname="l2norm_fwd_kernel"),
        ),
        not_covered=(m.NotCovered(kernel="fla.ops.x:y", reason="needs 98304 bytes", keys=((64, "a"),)),),
        numerics=m.Numerics(status="not run", detail=""),
        blobs=blobs,
        build=m.Build(tool="gdn-aot 0.1.0", commit=None, dirty=False, epoch=epoch, zstd="1.5.7"),
    )


def make_blobs() -> dict[str, bytes]:
    """Return the blobs of `make_manifest`, in the order of an archive."""
    return {sha256(data): data for data in (LICENSE, *CUBINS)}


def full_manifest(*, epoch: int = 0) -> m.Manifest:
    """Return `make_manifest` with its blob table."""
    blobs = make_blobs()
    table = tuple(m.Blob(sha256=digest, size=len(data)) for digest, data in blobs.items())
    return make_manifest(blobs=table, epoch=epoch)


def write(path: Path) -> Path:
    """Write the artifact of `make_manifest` to a file or into a directory."""
    if path.is_dir():
        path /= names.file_name(make_manifest().identifier)
    return write_artifact(make_manifest(), make_blobs(), path).path


def write_placed(path: Path, version: str, placed: Sequence[tuple[Placement, str]], *, triton: str = "3.6.0") -> Path:
    """Write an artifact of a version of vLLM that has files to put in place, with what they hold; see `write`."""
    module = "vllm.model_executor.layers.fla.ops.chunk_o"
    return write_of("vllm", version, module, path, triton=triton, placed=placed)


def write_of(
    provider: str,
    version: str,
    module: str,
    path: Path,
    *,
    triton: str = "3.6.0",
    placed: Sequence[tuple[Placement, str]] = (),
    cache: tuple[m.CompileCache | None, dict[str, bytes]] = (None, {}),
) -> Path:
    """Write an artifact of another provider's version into a folder, with one kernel of a module."""
    plain = make_manifest()
    manifest = replace(
        plain,
        identifier=names.make_identifier(provider, version, triton, "sm_120", [RECORDED] if cache[0] else []),
        workloads=(*plain.workloads, *([RECORDED] if cache[0] else [])),
        compile_cache=cache[0],
        triton=replace(plain.triton, version=triton),
        provider=replace(plain.provider, name=provider, distribution=provider, version=version),
        kernels=(replace(make_kernel(make_binary(CUBINS[0])), module=module),),
        placed=tuple(m.PlacedFile(**asdict(file), blob=sha256(text.encode())) for file, text in placed),
    )
    blobs = {sha256(data): data for data in (LICENSE, CUBINS[0], *(text.encode() for _, text in placed))}
    return write_artifact(manifest, blobs | cache[1], path / names.file_name(manifest.identifier)).path


RECORDED = "capture-0123abcd"
"""The workload of an artifact that was built from a capture."""
HASH = f"torch_aot_compile/{64 * 'a'}"
CACHE = {
    "0123456789/rank_0_0/backbone/computation_graph.py": b"raise SystemExit('it was run')\n",
    "0123456789/rank_0_0/backbone/vllm_compile_cache.py": b"",
    f"{HASH}/inductor_cache/ab/cab.best_config": b"{}",
    f"{HASH}/rank_0_0/model": b"\x80\x05" + bytes(range(256)) * ((PIECE + 1000) // 256),
}
"""What a compile cache has: files of code, an empty one, and one of two pieces."""


def make_cache(files: dict[str, bytes], **fields: Any) -> tuple[m.CompileCache, dict[str, bytes]]:
    """Return a compile cache as a manifest has it, and its pieces by their SHA-256."""
    cut = {path: [data[at : at + PIECE] for at in range(0, len(data), PIECE)] for path, data in files.items()}
    cached = tuple(m.CachedFile(path=path, blobs=tuple(map(sha256, pieces))) for path, pieces in sorted(cut.items()))
    known: dict[str, Any] = {"torch": "", "python": "", "card": "", "environment": (), **fields}
    cache = m.CompileCache(kind="vllm-compile-cache", files=cached, **known)
    return cache, {sha256(piece): piece for pieces in cut.values() for piece in pieces}


def write_cached(path: Path, version: str, files: dict[str, bytes], *, triton: str = "3.6.0", **fields: Any) -> Path:
    """Write an artifact of a capture of vLLM that has a compile cache; see `write`, `make_cache`."""
    module = "vllm.model_executor.layers.fla.ops.chunk_o"
    return write_of("vllm", version, module, path, triton=triton, cache=make_cache(files, **fields))


def write_spilling(folder: Path, local: int) -> Path:
    """Write a sound artifact of one kernel, which takes so many bytes of local memory per thread."""
    binary, cubin = make_spilling(local)
    manifest = replace(make_manifest(), kernels=(make_kernel(binary),))
    return write_artifact(manifest, {sha256(data): data for data in (LICENSE, cubin)}, folder / "spills.tar.zst").path


def member(name: str, data: bytes, *, mtime: int = 0) -> bytes:
    return tar.encode(name, len(data), mtime) + data + bytes(tar.padding(len(data)))


def members(manifest: bytes | None = None) -> list[bytes]:
    """Return the members of a sound artifact, as raw tar, with another manifest if one is given."""
    blobs = make_blobs()
    data = to_json(full_manifest()) if manifest is None else manifest
    return [member("manifest.json", data), *(member(f"blobs/{digest}", data) for digest, data in blobs.items())]


def wrap(frame: bytes) -> bytes:
    """Add a valid trailer."""
    return frame + trailer(hashlib.sha256(frame).digest())


def pack(parts: Sequence[bytes], *, end: bytes = tar.END) -> bytes:
    """Compress raw tar members and add a valid trailer."""
    content = b"".join(parts) + end
    return wrap(compressor(len(content)).compress(content))


def unpack(data: bytes) -> bytes:
    """Return the tar inside an artifact, as any zstd reader does."""
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        return stream.readall()


def reseal(header: bytes) -> bytes:
    """Return a tar header with its checksum made right."""
    checksum = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 0x20)
    return header[:148] + checksum + header[156:]


def plain() -> Any:
    """Return the JSON value of a sound manifest, to change."""
    return json.loads(to_json(full_manifest()))


def dump(value: object) -> bytes:
    """Return a JSON value as a manifest is written."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def problems_of(value: Any) -> dict[str, str]:
    """Return what is wrong with a manifest that is refused, by where."""
    data = value if isinstance(value, bytes) else dump(value)
    with pytest.raises(VerificationError) as caught:
        load_manifest(data)
    return {problem.where: problem.what for problem in caught.value.problems}

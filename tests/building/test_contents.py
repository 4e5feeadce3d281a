"""What is inside an artifact: machine code for the target, choices of the provider, nothing of the machine."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import triton
from builds import Built, offered
from helpers import ROOT
from msgspec.structs import replace

from gdn_aot.artifact import elf
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.manifest_json import to_json
from gdn_aot.artifact.verify import examine

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
PR_36599 = {
    "local cumsum": {"chunk_local_cumsum_scalar_kernel"},
    "scaled dot KKT": {"chunk_scaled_dot_kkt_fwd_kernel", "chunk_gated_delta_rule_fwd_kkt_solve_kernel"},
    "triangular solve": {
        "solve_tril_16x16_kernel",
        "merge_16x16_to_32x32_inverse_kernel",
        "merge_16x16_to_64x64_inverse_kernel",
        "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    },
    "recompute w/u": {"recompute_w_u_fwd_kernel"},
    "forward h": {"chunk_gated_delta_rule_fwd_kernel_h_blockdim64"},
    "forward o": {"chunk_fwd_kernel_o"},
}
"""What vLLM's PR #36599 names, and the kernels of FLA that do it (0.6.0 joins KKT and solve at chunk size 64)."""


def test_every_cubin_is_for_the_target(built: Built, tmp_path: Path) -> None:
    number = int(built.row["arch"].removeprefix("sm_"))
    for kernel in built.manifest.kernels:
        for binary in kernel.binaries:
            info = elf.describe(built.artifact.read_blob(binary.cubin))
            assert info.arch == number
            assert kernel.qualname in info.entries
            assert binary.metadata["name"] in info.entries
            assert info.registers == binary.resources.registers > 0
            assert binary.resources.shared == binary.metadata["shared"] <= built.manifest.target.max_shared
        # NVIDIA's own tool on one binary of each kernel
        path = tmp_path / f"{kernel.qualname}.cubin"
        path.write_bytes(built.artifact.read_blob(kernel.binaries[0].cubin))
        shown = subprocess.run([_CUOBJDUMP, "-elf", path], capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"\bsm=?_?(\d+)", shown.split("\n.section", 1)[0][:2000])) == {str(number)}
        assert f".text.{kernel.qualname}" in shown


@pytest.mark.parametrize("what", PR_36599)
def test_the_kernels_of_vllm_pr_36599_are_covered(built: Built, what: str) -> None:
    there = {kernel.qualname for kernel in built.manifest.kernels if kernel.binaries}
    assert there & PR_36599[what]
    assert not {gap.kernel.rpartition(":")[2] for gap in built.manifest.not_covered} & PR_36599[what]


def test_a_complete_build_has_every_kernel_of_the_model(sm_120: Built) -> None:
    there = {kernel.qualname for kernel in sm_120.manifest.kernels}
    assert {
        "fused_recurrent_gated_delta_rule_fwd_kernel",
        "l2norm_fwd_kernel",
        "layer_norm_gated_fwd_kernel",
        "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
        "recompute_w_u_fwd_kernel",
        "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
        "chunk_fwd_kernel_o",
        "chunk_local_cumsum_scalar_kernel",
    } == there, "and none that only callers outside the catalogue launch"
    assert sm_120.manifest.not_covered == ()
    assert sm_120.row["size"] < 400_000


def test_every_choice_is_one_of_the_providers_candidates(built: Built, tmp_path: Path) -> None:
    kernels = {kernel.name: kernel for kernel in built.manifest.kernels}
    candidates = offered(built.row["arch"], *kernels, home=tmp_path)
    choices = [(name, choice) for name, kernel in kernels.items() for choice in kernel.choices]
    assert len(choices) >= 10
    for name, choice in choices:
        config = choice.config
        own = [dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg]
        assert (own in candidates[name]) is not choice.derived
        assert choice.provenance == "default"
        if not choice.note:
            assert own == candidates[name][0], "default is the first of the provider's candidates"
    assert built.row["provenance"] == {
        "measured": 0, "proxy": 0, "captured": 0, "transferred": 0, "default": len(choices),
    }  # fmt: skip
    assert {name for name, kernel in kernels.items() if kernel.choices} == {
        name for name, configs in candidates.items() if len(configs) > 1
    }


def _paths_of_this_machine(built: Built) -> set[bytes]:
    places = {
        str(ROOT), sys.prefix, sys.base_prefix, str(Path.home()), str(built.home), str(built.path.parent),
        str(Path(triton.__file__).parent), tempfile.gettempdir() + "/", "/work/", "site-packages",
    }  # fmt: skip
    return {os.fsencode(place) for place in places if len(place) > 1}


def test_nothing_names_this_machine(built: Built) -> None:
    contents = {"manifest": to_json(built.manifest)}
    contents |= {binary.cubin: b"" for kernel in built.manifest.kernels for binary in kernel.binaries}
    for digest in contents:
        data = contents[digest] or built.artifact.read_blob(digest)
        assert [place for place in _paths_of_this_machine(built) if place in data] == []
        assert b".py" not in data or digest == "manifest"
        assert not re.search(rb"\.(nv_)?debug_(line|info)", data), "line information holds paths"


def test_cubins_that_are_swapped_within_a_kernel_are_noticed(built: Built, tmp_path: Path) -> None:
    """As far as they differ in what the manifest says of them: parameters, threads, registers, local memory."""
    kernels, blobs, expected = [], dict(built.artifact.iter_blobs()), set[str]()
    for kernel in built.manifest.kernels:
        first, *rest = kernel.binaries
        told = {binary.cubin: elf.describe(blobs[binary.cubin]) for binary in kernel.binaries}
        other = next((binary for binary in rest if told[binary.cubin] != told[first.cubin]), None)
        if other is not None:
            pair = {first.cubin: other.cubin, other.cubin: first.cubin}
            expected |= pair.keys()
            binaries = tuple(replace(b, cubin=pair.get(b.cubin, b.cubin)) for b in kernel.binaries)
            kernels.append(replace(kernel, binaries=binaries))
        else:
            kernels.append(kernel)
    assert expected
    swapped = replace(built.manifest, kernels=tuple(kernels))
    contents = {digest: bytes(content) for digest, content in blobs.items()}
    path = write_artifact(swapped, contents, tmp_path / "swapped.tar.zst").path
    assert {problem.where.removeprefix("blobs/") for problem in examine(path).problems} == expected


def test_the_provider_licence_is_inside(built: Built) -> None:
    provider = built.manifest.provider
    assert provider.license == "MIT"
    (file,) = provider.license_files
    assert b"MIT License" in built.artifact.read_blob(file.blob)


def test_the_document(built: Built) -> None:
    assert set(built.document) >= {"artifacts", "seconds"}
    row, kernels = built.row, built.manifest.kernels
    fields = "path identifier arch size sha256 kernels choices binaries provenance not_covered"
    assert set(row) >= set(fields.split())
    data = built.path.read_bytes()
    assert (row["size"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert row["identifier"] == built.manifest.identifier
    assert built.path.name == f"gdn-aot-{row['identifier']}.tar.zst"
    assert row["kernels"] == len(kernels)
    assert row["choices"] == sum(len(kernel.choices) for kernel in kernels)
    assert row["binaries"] == sum(len(kernel.binaries) for kernel in kernels)
    assert built.document["failures"] == built.document["skipped"] == []

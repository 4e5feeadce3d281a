"""Building for a copy of the provider in a folder, as a kernel of the Hub is, and serving it by its source."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builds import PREFILL_AND_DECODE, Built
from copying import CALL, CHANGED_H, FWD_H, HUB, KERNEL_H, copy_fla, kernel_repository
from helpers import ROOT, expect_error, gdn_aot, python
from launching import PRELUDE

SM_90 = ("--arch", "sm_90", "--model", "qwen3.5-9b")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel repository as the cache of the Hub has it, with one kernel changed."""
    root = tmp_path_factory.mktemp("hub") / "models--kernels-community--fla" / "snapshots" / "0123456789abcdef"
    kernel_repository(root, variant="torch-cpu", edits=CHANGED_H)
    (root / "LICENSE").write_text("a licence\n")
    return root


@pytest.fixture(scope="module")
def package(build: Callable[..., Built], repository: Path) -> Built:
    return build(*SM_90, *PREFILL_AND_DECODE[:2], *PREFILL_AND_DECODE[4:], "--package", repository)


def test_what_it_says_it_is_for(package: Built, repository: Path, tmp_path: Path) -> None:
    manifest = package.manifest
    provider = manifest.provider
    assert (provider.name, provider.distribution) == ("fla", "kernels-community/fla")
    assert provider.version.startswith("0+")
    assert [file.path for file in provider.license_files] == ["LICENSE"]
    assert {kernel.module.partition(".")[0] for kernel in manifest.kernels} == {"fla"}
    assert package.kernel(KERNEL_H).sources[0].path == f"fla/{FWD_H}"
    assert str(repository) not in json.dumps(package.document["artifacts"][0]["identifier"])
    assert "imported as fla_0a1b2c3d" in package.err
    shown = gdn_aot("inspect", package.path, home=tmp_path).out
    assert f"fla (kernels-community/fla {provider.version})" in shown
    gdn_aot("verify", package.path, home=tmp_path)
    error = expect_error(gdn_aot("coverage", package.path, "--json", home=tmp_path, code=2), 2, "usage")
    assert "was built from kernels-community/fla" in error["message"]


def _played(code: str, artifact: Path, home: Path, *sites: Path) -> Any:
    extra = {"TRITON_CACHE_DIR": str(home / "triton"), "PYTHONPATH": ":".join(map(str, (*sites, ROOT)))}
    return python(PRELUDE + CALL + code, artifact, home=home, extra=extra)


def test_the_changed_package_is_served(package: Built, tmp_path: Path) -> None:
    """Under whatever name it comes; and what is not the same is an error."""
    copy_fla(tmp_path / "vendored", relative=True, edits=CHANGED_H)
    got = _played(
        "install(strict=True); become(); chunk('vendored'); step('vendored'); benchmarked = counter.benchmarked;"
        "error = tried(chunk, 'fla'); done(error=error, before=benchmarked)",
        package.path,
        tmp_path,
        tmp_path,
    )
    assert (got["compiled"], got["before"], got["report"]["misses"]) == ([], 0, [])
    assert got["report"]["loaded"][f"vendored.ops.common.chunk_delta_h:{KERNEL_H}"] == 1
    assert got["error"].startswith(f"MissError: fla.ops.common.chunk_delta_h:{KERNEL_H} is not served: the body of")
    (verdict,) = [one for one in got["report"]["artifacts"] if one["accepted"]]
    assert verdict["reason"] == "fits packages of the same source alone: built from a copy of fla"


def test_beside_an_artifact_of_the_provider(package: Built, sm_90: Built, tmp_path: Path) -> None:
    """Each package finds its own kernels, whichever artifact has them."""
    copy_fla(tmp_path / HUB, edits=CHANGED_H)
    got = _played(
        f"install(strict=True); gdn_aot.install({str(sm_90.path)!r}); become()\n"
        f"for root in {HUB!r}, 'fla': chunk(root); step(root)\n"
        "done()",
        package.path,
        tmp_path,
        tmp_path,
    )
    assert (got["compiled"], got["benchmarked"], got["report"]["misses"]) == ([], 0, [])
    assert got["report"]["refused"] == {}


def test_loaded_by_the_library_of_the_hub(package: Built, repository: Path, tmp_path: Path) -> None:
    try:
        library = importlib.metadata.distribution("kernels")  # a module of that name is among our tests
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the library kernels, which needs many others, is not installed")
    got = _played(
        f"""install(strict=True); become()
from pathlib import Path
import kernels
root = kernels.get_local_kernel(Path({str(repository)!r}), backend="cpu").__name__
chunk(root); step(root); done(root=root)""",
        package.path,
        tmp_path,
        Path(str(library.locate_file(""))),
    )
    assert got["root"] == HUB
    assert (got["compiled"], got["benchmarked"], got["report"]["misses"]) == ([], 0, [])
    assert not [name for name in got["report"]["refused"] if name.startswith(HUB)]


def test_doctor_finds_it_in_the_cache_of_the_hub(
    package: Built, sm_90: Built, repository: Path, tmp_path: Path
) -> None:
    extra = {"KERNELS_CACHE": str(repository.parents[2]), "HF_HOME": str(tmp_path)}

    def found(artifact: Path) -> Any:
        done = gdn_aot("doctor", "--artifact", artifact, "--json", home=tmp_path, extra=extra, code=None, process=True)
        (row,) = done.json["hub_kernels"]
        return row

    row = found(package.path)
    assert (row["repository"], row["revision"]) == ("kernels-community/fla", "0123456789abcdef")
    assert (row["artifact"], row["same"], row["other"], row["command"]) == (
        *(package.manifest.identifier, len(package.manifest.kernels)),
        *([], ""),
    )
    row = found(sm_90.path)
    assert row["other"] == [f"fla.ops.common.chunk_delta_h:{KERNEL_H}"]
    assert row["same"] == len(sm_90.manifest.kernels) - 1
    assert row["command"].startswith("gdn-aot build --arch sm_90 --provider fla --package ")
    page = gdn_aot("doctor", "--artifact", sm_90.path, home=tmp_path, extra=extra, code=None, process=True).out
    assert "kernels-community/fla 0123456789ab" in page
    assert "differs: fla.ops.common.chunk_delta_h" in page


@pytest.mark.parametrize(
    ("folder", "more", "said"),
    [
        ("none", (), "has no package with ops/gated_delta_rule"),
        ("two", (), "has several packages"),
        ("two/a", ("--provider", "vllm"), "--package is not for provider vllm"),
        ("two/a", ("--executor", "ray"), "--package is built on this machine"),
    ],
)
def test_what_is_no_package(tmp_path: Path, folder: str, more: tuple[str, ...], said: str) -> None:
    for name in ("a", "b"):
        place = tmp_path / "two" / name / "ops" / "gated_delta_rule"
        place.mkdir(parents=True)
        (tmp_path / "two" / name / "__init__.py").write_text("")
    done = gdn_aot("build", *SM_90, *more, "--package", tmp_path / folder, "--json", home=tmp_path, code=2)
    assert said in expect_error(done, 2, "usage")["message"]

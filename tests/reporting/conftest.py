from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import factory
import pytest
import tuning_records
from builds import Built
from helpers import Done, gdn_aot
from msgspec.structs import replace
from pages import HOSTILE, PLACES, PROXIES, RECORDS

from gdn_aot.artifact.archive import write_artifact
from gdn_aot.records import tuning


@pytest.fixture(scope="session")
def tuned(build: Callable[..., Built]) -> Built:
    """One kernel of `sm_90` with the choices of the records."""
    model = ("--arch", "sm_90", "--model", "qwen3.5-9b", "--workload", "gated-norm", "--max-tokens", 8192)
    return build(*model, *PLACES)


@pytest.fixture(scope="session")
def moved(build: Callable[..., Built], tuned: Built, tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Built]:
    """The same kernel for `sm_90` without its own keys in the record, and for `sm_86` from the record of `sm_90`."""
    full = tuning.load(RECORDS / "tuning" / "sm_90" / "fla-core-0.6.0.json")
    assert full is not None
    own = {(kernel.name, choice.key) for kernel in tuned.manifest.kernels for choice in kernel.choices}
    kernels = tuple(
        replace(kernel, choices=tuple(one for one in kernel.choices if (kernel.kernel, one.key) not in own))
        for kernel in full.kernels
    )
    root = tmp_path_factory.mktemp("moved")
    built = []
    for arch, record in (("sm_90", replace(full, kernels=kernels)), ("sm_86", full)):
        tuning.FORM.save(record, tuning.record_path(root / arch, "sm_90", "fla-core", "0.6.0"))
        model = ("--arch", arch, "--model", "qwen3.5-9b", "--workload", "gated-norm", "--max-tokens", 8192)
        built.append(build(*model, "--tuning", root / arch))
    return built[0], built[1]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the page of some files, and return where it is."""

    def report(*arguments: object) -> Path:
        home = tmp_path_factory.mktemp("report")
        done: Done = gdn_aot("report", *arguments, "-o", home / "page.html", "--json", home=home)
        document: dict[str, Any] = done.json
        assert document["path"] == str(home / "page.html")
        assert document["size"] == (home / "page.html").stat().st_size
        return home / "page.html"

    return report


@pytest.fixture(scope="session")
def one(report: Callable[..., Path], tuned: Built) -> Path:
    """The page of one artifact."""
    return report(tuned.path, *PLACES)


@pytest.fixture(scope="session")
def several(report: Callable[..., Path], sm_90: Built, decode: Built, tuned: Built) -> Path:
    """The page of a set, and of records of both kinds."""
    records = (PROXIES[0], RECORDS / "numerics" / "sm_80" / "fla-core-0.6.0.json")
    return report(sm_90.path, decode.path, tuned.path, *records, *PLACES)


@pytest.fixture(scope="session")
def compared(report: Callable[..., Path], sm_90: Built, tuned: Built) -> Path:
    """The page of two artifacts that are compared."""
    return report(sm_90.path, tuned.path, "--compare", *PLACES)


@pytest.fixture(scope="session")
def compared_records(report: Callable[..., Path]) -> Path:
    return report(*PROXIES, "--compare")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, report: Callable[..., Path]) -> Path:
    """The page of an artifact and a record whose texts are markup."""
    home = tmp_path_factory.mktemp("hostile")
    kernel = factory.make_kernel(factory.make_binary(factory.CUBINS[0]))
    choice = replace(kernel.choices[0], note=HOSTILE, key=(HOSTILE,))
    plain = factory.make_manifest()
    numerics = replace(plain.numerics, detail=HOSTILE)
    kernels = (replace(kernel, choices=(choice,)),)
    manifest = replace(plain, kernels=kernels, numerics=numerics, workloads=(HOSTILE, *plain.workloads[1:]))
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, factory.CUBINS[0])}
    artifact = write_artifact(manifest, blobs, home / "hostile.tar.zst").path
    full = tuning_records.full()
    first, *rest = full.kernels
    choices = tuple(replace(one, note=HOSTILE, call=HOSTILE, key=(HOSTILE, *one.key)) for one in first.choices)
    record = replace(full, kernels=(replace(first, choices=choices), *rest), tool=HOSTILE, triton=HOSTILE)
    return report(artifact, tuning_records.write(home / "records", record))


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    program = browser.find()
    if program is None:
        pytest.skip("neither Chromium nor Chrome is installed: apt-get install chromium")
    with browser.started(program) as opened:
        yield opened

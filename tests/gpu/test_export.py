"""Plain FLA, without gdn-aot, takes the configurations that ``gdn-aot export`` writes, and benchmarks none of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from gpu import served
from gpu.conftest import Loaded, Program, Record
from helpers import gdn_aot

from gdn_aot.providers.fla import configs as fla_configs

pytestmark = pytest.mark.gpu

LOOKED_UP = {*served.CHUNK_KERNELS}
"""Kernels of a prefill that FLA 0.6.0 looks up in files, at least."""


@pytest.fixture(scope="module")
def exported(artifact: Loaded, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The files of the artifact's choices, with what the command said."""
    place = tmp_path_factory.mktemp("export")
    done = gdn_aot(
        "export", "--format", "fla", "--artifact", artifact.path, "-o", place / "configs", "--json", home=place
    )
    return place / "configs", done.json


def test_plain_fla_uses_the_exported_choices(
    program: Program, artifact: Loaded, exported: tuple[Path, dict[str, Any]], record: Record
) -> None:
    directory, document = exported
    kernels = {row["kernel"] for row in document["files"]}
    assert kernels >= LOOKED_UP
    found = program("exported", extra=fla_configs.environment(directory))
    record(benchmarked=found["benchmarked"], used=found["used"], not_served=document["not_served"])
    assert found["finite"]
    assert not found["loader_active"], "gdn-aot is not what serves this process"
    assert not kernels & set(found["benchmarked"]), "no kernel with a file is benchmarked"
    compared = set()
    for name, entries in found["used"].items():
        kernel = name.rpartition(":")[2]
        if kernel not in kernels:
            continue
        document = json.loads((directory / f"{kernel}.json").read_text(encoding="utf-8"))
        for key, config in entries:
            entry = document["autotune_entries"][fla_configs.key_digest(tuple(key))]
            assert entry["autotune_key"] == key
            assert {**config, "ir_override": None} == entry["config"], name
            compared.add(kernel)
    assert compared >= LOOKED_UP
    assert artifact.manifest.triton.version == document["triton_version"]


def test_without_the_files_the_same_kernels_are_benchmarked(
    program: Program, exported: tuple[Path, dict[str, Any]]
) -> None:
    """So the test above could fail."""
    directory, _ = exported
    assert directory.is_dir()
    found = program("exported", without=["FLA_CONFIG_DIR", "FLA_CACHE_MODE"])
    assert set(found["benchmarked"]) >= LOOKED_UP

"""What the tests of ``gdn-aot doctor`` share: machines made up around it, and its answer checked."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from builds import Built
from helpers import ROOT, gdn_aot

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.store.install import install
from gdn_aot.store.store import Store

DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int setting(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
/* The number at a place in a list as 90,120. */
static int arch(int at) {
    const char *text = getenv("FAKE_ARCHS");
    while (at-- > 0) text = strchr(text, ',') + 1;
    return atoi(text);
}
int cuInit(unsigned flags) { return setting("FAKE_INIT", 0); }
int cuGetErrorString(int error, const char **text) { *text = "the text of an error"; return 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetCount(int *count) {
    *count = 1;
    for (const char *text = getenv("FAKE_ARCHS"); *text; text++) *count += *text == ',';
    return 0;
}
int cuDeviceGet(int *device, int at) { *device = 100 + at; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? arch(device - 100) / 10 : attribute == 76 ? arch(device - 100) % 10
        : attribute == 16 ? setting("FAKE_SMS", 84) : -1;
    return 0;
}
#ifndef OLD
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Card %d", device - 100); return 0; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = 80ULL << 30; return 0; }
#endif
"""
CLEARED = ("VLLM_PLUGINS", "SGLANG_PLUGINS", "CC", "CUDA_VISIBLE_DEVICES", "PTXAS_OPTIONS")
SOURCE = "fla/ops/gated_delta_rule/fused_recurrent.py"
KERNEL = "fla.ops.gated_delta_rule.fused_recurrent:fused_recurrent_gated_delta_rule_fwd_kernel"


def driver_library(folder: Path, *options: str, source: str = DRIVER) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "driver.c").write_text(source)
    command = ["gcc", "-shared", "-fPIC", *options, "-o", str(folder / "libcuda.so.1"), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return folder


def serving_home(folder: Path, built: Built) -> Path:
    """Install an artifact into a new store."""
    install(Store(str(folder)), open_artifact(built.path))
    return folder


def doctor(home: Path, *args: object, code: int = 0, **extra: str) -> dict[str, Any]:
    """Return what it prints with ``--json``; an exit code of 4 goes with an error."""
    document: dict[str, Any] = gdn_aot("doctor", "--json", *args, home=home, extra=extra, code=code).json
    assert document["ok"] is (code == 0)
    assert document["verdict"].startswith("ok: " if document["ok"] else "not ok: ")
    assert bool(document["obstacles"]) is ("error" in document) is not document["ok"]
    if code:
        first = document["obstacles"][0]
        assert document["error"] == {"code": "no-artifact", "message": first["what"], "hint": first["hint"]}
    return document


def in_the_way(document: dict[str, Any]) -> str:
    """The one obstacle."""
    (obstacle,) = document["obstacles"]
    return f"{obstacle['where']}: {obstacle['what']}"


def first_on_path(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def distribution(folder: Path, name: str, version: str, entry_points: str = "") -> dict[str, str]:
    """Make a distribution of nothing, and the environment that finds it first."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (place / "entry_points.txt").write_text(entry_points)
    return first_on_path(folder)


def provider_copy(folder: Path) -> Path:
    """Copy the installed provider, and return the file of the artifact's one kernel."""
    found = importlib.util.find_spec("fla")
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent, folder / "fla", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / SOURCE


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def artifact_of(home: Path) -> Path:
    (place,) = home.glob("store/artifacts/*")
    return place

"""The cases of ``benchmarks/sglang_engine.py``: what each process is, with which caches, and how long it takes."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import packed
from harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SETUP, BUILD = 15, 50
"""Seconds to unpack the engine, once per machine, and to build the artifact of a capture."""
HERE = ROOT / "benchmarks/sglang_engine"
JIT = "jit"
"""Where a part of the engine has what SGLang's own JIT built, which gdn-aot does not touch."""
CACHES = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "HOME": "home"}
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "HOST_IP": "127.0.0.1",
    "SGLANG_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "NO_PROXY": "127.0.0.1,localhost",
}
_ALONE = {
    "SGLANG_IS_FLASHINFER_AVAILABLE": "false",
    "SGLANG_ENABLE_JIT_DEEPGEMM": "false",
    "SGLANG_CUDA_COREDUMP_BEFORE_CRASH_WAIT_SECS": "0",
    "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1",
}
"""What is not packed is not looked for, and what would be compiled once per machine is left out."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One process."""

    name: str
    says: str
    seconds: int
    """About how long it takes."""
    caches: str = ""
    """The folder of its caches; by default one of its own."""
    keeps: bool = False
    """It finds them as they are there; else they are emptied before it."""
    artifacts: tuple[str, ...] = ()
    """Which are served: of ``artifact`` and ``captured``."""
    record: bool = False
    """It runs under ``gdn-aot capture``; then ``captured`` is built."""
    lengths: tuple[int, ...] = (50, 1000, 8000)
    repeat: int = 4
    answers: int = 4
    """Requests for eight tokens of each length."""
    sampled: bool = False
    """Where the scheduler is in the first request, and in as many answers more, is written down."""
    batches: int = 2
    """Requests of four prompts at once."""


_BOTH = ("artifact", "captured")
_SHORT: dict[str, Any] = {"lengths": (50,), "repeat": 1, "batches": 0}
_CASES = (
    Case(
        name="prime", says="not counted: fills the page cache and says early whether the engine starts", seconds=60,
        **_SHORT,
    ),
    Case(name="plain", says="SGLang alone, empty caches", seconds=65),
    Case(name="aot", says="gdn-aot with the artifact, empty caches", seconds=50, artifacts=("artifact",)),
    Case(name="warm", says="SGLang alone with the caches that plain left", seconds=30, caches="plain", keeps=True),
    Case(name="capture", says="recorded, empty caches", seconds=70, record=True),
    Case(
        name="captured", says="gdn-aot with the artifact and one of the capture, empty caches", seconds=35,
        artifacts=_BOTH,
    ),
)  # fmt: skip
CASES = {case.name: case for case in _CASES}


def again(case: Case) -> Case:
    """Return a second process of a case, of which samples are taken."""
    return replace(case, name=f"{case.name}-again", says=f"{case.says}, once more", sampled=True)


@dataclass(frozen=True, kw_only=True)
class Places(packed.Places):
    """Files and folders of a run, and what of it is the same for all cases."""

    artifact: Path | None
    options: Mapping[str, Any]
    """Of ``sglang.Engine``, beside or in place of the usual ones."""

    @property
    def parts(self) -> dict[Path, Path]:
        """Archives, in order -> where each is unpacked."""
        found = sorted((self.engine / "parts").glob("*.tar.xz"))
        return {path: self.unpacked / path.name.removesuffix(".tar.xz") for path in found}

    def served(self, name: str) -> Path | None:
        """Return an artifact by its name in `Case.artifacts`, if it is there."""
        built = sorted((self.work / "built").glob("*.tar.zst"))
        return self.artifact if name == "artifact" else next(iter(built), None)


def specification(case: Case, places: Places) -> dict[str, Any]:
    """Return what `sglang_engine.engine` is told."""
    out = str(places.work / f"{case.name}.record.json")
    return {**asdict(case), "model": str(places.engine / "model"), "out": out, "options": dict(places.options)}


def shared(places: Places) -> dict[str, str]:
    """Return the variables of every process beyond those of this one."""
    path = (places.work / "site", *places.parts.values())
    return {
        **_OFFLINE,
        **_ALONE,
        "PYTHONPATH": ":".join(map(str, path)),
        "PYTHONUNBUFFERED": "1",
        "GDN_AOT_HOME": str(places.work / "home"),
    }


def environment(case: Case, places: Places) -> dict[str, str]:
    """Return the variables of a case beyond those of this process."""
    caches = places.work / (case.caches or case.name)
    built = next((part / JIT for part in places.parts.values() if (part / JIT).is_dir()), None)
    served = {"GDN_AOT_ARTIFACT": str(places.work / f"{case.name}.artifacts"), "SGLANG_PLUGINS": "counted,gdn_aot"}
    return {
        **shared(places),
        "SGLANG_ENGINE_COUNTS": str(places.work / f"{case.name}.counts"),
        **({"SGLANG_ENGINE_SAMPLE": "1"} if case.sampled else {}),
        **({"TVM_FFI_CACHE_DIR": str(built)} if built else {}),
        **{name: str(caches / cache) for name, cache in CACHES.items()},
        **(served if case.artifacts else {"GDN_AOT": "0", "SGLANG_PLUGINS": "counted"}),
    }


def sizes(places: Places) -> dict[str, dict[str, int]]:
    """Return the bytes of each archive, and of its unpacked files without those that Python made of them."""
    found = {}
    for path, folder in places.parts.items():
        files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"]
        found[path.name] = {
            "bytes": path.stat().st_size,
            "unpacked_bytes": sum(file.stat().st_size for file in files),
        }
    return found


def install(places: Places) -> None:
    """Make what installing this package and the plugin that counts would."""
    site = places.work / "site"
    packed.declare_ours(site)
    packed.declare(site, "counted", {"sglang.srt.plugins": {"counted": "counted:register"}})
    for path in (HERE / "counted.py", ROOT / "benchmarks/counting.py"):
        shutil.copy(path, site)


def fill(case: Case, places: Places) -> None:
    """Make the folders that a case is to find: its caches, its artifacts, and one for what is counted."""
    caches = places.work / (case.caches or case.name)
    if not case.keeps:
        shutil.rmtree(caches, ignore_errors=True)
    for cache in CACHES.values():
        (caches / cache).mkdir(parents=True, exist_ok=True)
    for name in ("artifacts", "counts"):
        folder = places.work / f"{case.name}.{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for name in case.artifacts:
        shutil.copy(places.served(name) or "", places.work / f"{case.name}.artifacts")


def command(case: Case, places: Places) -> list[str]:
    """Return the command line of a case."""
    engine = [sys.executable, "-W", "ignore", str(HERE / "engine.py"), str(places.work / f"{case.name}.spec.json")]
    if not case.record:
        return engine
    return [sys.executable, "-m", "gdn_aot", "capture", "-o", str(places.work / "capture.json"), "--", *engine]


def build(places: Places) -> list[str]:
    """Return the command line that builds ``captured``."""
    ours = (sys.executable, "-m", "gdn_aot", "build", "--provider", "sglang")
    return [*ours, "--capture", str(places.work / "capture.json"), "-o", str(places.work / "built")]


def seconds(cases: list[Case]) -> int:
    """Return about how long cases take on a machine that has nothing yet."""
    return SETUP + sum(case.seconds + case.record * BUILD for case in cases)

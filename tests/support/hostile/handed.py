"""Files that people and other machines hand over, and the commands that read them: all but artifacts and the store."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matrices
import tuning_records
from helpers import gdn_aot
from making import WANTED, make
from registries import put

from gdn_aot import deployment
from gdn_aot.capture import form as capture
from gdn_aot.cli._job import selected_captures
from gdn_aot.errors import GdnAotError
from gdn_aot.matrix.form import FORM as MATRIX
from gdn_aot.records import contribution, merging, numerics, tuning
from gdn_aot.registry.layout import INDEX_FORM, INDEX_SIGNATURE
from gdn_aot.registry.lockfile import LOCK_FORM
from hostile.judging import WrongError, command
from hostile.mutate import change_json, odd, text_of
from hostile.places import Place
from hostile.planting import plant, spoil

ASKED = ("--allow-unsigned", "--arch", "sm_120", *WANTED)
ORG = "org/kernels"
_LAUNCH: dict[str, Any] = {
    "target": "sm_90", "key": "key 0",
    "specialization": {
        "signature": {"x": "*fp32", "N": "constexpr"}, "constants": [[[1], 16]],
        "attributes": [[[0], [["tt.divisibility", 16]]]], "options": {"num_warps": 4},
    },
    "tuning": {
        "key": [16, True, "torch.float32"], "positional": 1, "keywords": ["N"],
        "config": {"kwargs": [["N", 16]], "num_warps": 4, "num_stages": 2, "num_ctas": 1, "maxnreg": None},
    },
}  # fmt: skip
_KERNEL = {"module": "fla.ops.a", "qualname": "kernel", "source_sha256": "a" * 64, "cache_key": "b" * 64}
_DEPLOYMENT = """card = "NVIDIA H200"
config = "config.json"
environment = { VLLM_USE_FLASHINFER_SAMPLER = "0" }

[engine]
enforce_eager = true
gpu_memory_utilization = 0.5
max_model_len = 16384
"""
_CAPTURE = {
    "format": 1, "tool": "gdn-aot 0", "triton": "3.6.0", "processes": 2,
    "packages": [{"distribution": "fla-core", "version": "0.6.0"}],
    "kernels": [{**_KERNEL, "launches": [{**_LAUNCH, "processes": 1}, {**_LAUNCH, "key": "k", "processes": 2}]}],
    "left_out": [{"what": "m:k", "reason": "no"}],
}  # fmt: skip
_LINES = (
    {"format": 1, "tool": "gdn-aot 0", "triton": "3.6.0"}, {"kernel": _KERNEL, "number": 0},
    {"launch": {**_LAUNCH, "kernel": 0}}, {"package": {"distribution": "fla-core", "version": "0.6.0"}},
    {"left_out": ["m:k", "no"]},
)  # fmt: skip
_NUMERICS = {
    "format": 1, "target": "sm_90", "provider": {"name": "fla", "distribution": "fla-core", "version": "0.6.0"},
    "triton": "3.6.0", "ptxas": "12.8.93", "tool": "gdn-aot 0.1.0", "status": "checked", "how": "cubin",
    "device": {"name": "NVIDIA H100", "driver": "580.1"}, "date": "2026-11-24", "models": ["m tp 1 bf16"],
    "checks": [{
        "workload": "w", "model": "m", "tp": 1, "dtype": "bf16", "calls": 2, "failed": [], "skipped": [],
        "worst": [{"call": "c", "result": "out", "error": 0.5, "limit": 1.5}],
    }],
    "kernels": [{"kernel": "a:b", "launches": 1, "binaries": 1, "ok": True, "choices": ["0123456789abcdef"]}],
}  # fmt: skip


def prepare(folder: Path) -> None:
    """Write sound files of every kind, which cases copy."""
    made = [make(folder / "made"), make(folder / "made", "sm_90"), make(folder / "made", build=1)]
    put(folder / "registry", *made[:2], tag="v1.0.0")
    put(folder / "registry", made[2], tag="v1.1.0")
    home = folder / "user"
    words = ("--repo", folder / "registry", *ASKED)
    gdn_aot("lock", *words, "-o", home / "gdn-aot.lock", home=home)
    shutil.copy(made[2].path, folder / "new.tar.zst")
    record = folder / "tuning.json"
    full = tuning_records.plain()
    full["provider"] = {"name": "fla", "distribution": "fla-core", "version": "0.6.0"}
    record.write_bytes(tuning_records.written(full))
    plain = json.dumps(_NUMERICS).encode()
    (folder / "numerics.json").write_bytes(numerics.FORM._layout(plain))
    (folder / "capture.json").write_text(json.dumps(_CAPTURE, indent=1) + "\n")
    (folder / "deployment.toml").write_text(_DEPLOYMENT)
    (folder / "1-a.jsonl").write_text("".join(f"\n{json.dumps(line)}\n" for line in _LINES))
    for name, provider, triton in (("a", "fla-core==0.6.0", "3.6.0"), ("b", "vllm==0.33.0", "3.8.0")):
        (folder / f"{name}.txt").write_text(f"{provider}\ntriton=={triton}\n")
    lock = (home / "gdn-aot.lock").read_bytes().replace(str(folder / "registry").encode(), b"./registry")
    (folder / "gdn-aot.lock").write_bytes(lock)
    _hub(folder / "hub" / f"models--{ORG.replace('/', '--')}", folder / "registry")


def _hub(place: Path, registry: Path) -> None:
    """Write the cache that huggingface_hub has of a repository with the files of a registry."""
    commit = "c" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs/v1").write_text(commit)
    (place / "blobs").mkdir()
    paths = [path for path in registry.rglob("*") if path.is_file() and path.parent.name in ("registry", "targets")]
    for number, path in enumerate(paths):
        blob = place / "blobs" / f"{number:040x}"
        shutil.copy(path, blob)
        link = place / "snapshots" / commit / path.relative_to(registry)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    missing = place / ".no_exist" / commit / INDEX_SIGNATURE
    missing.parent.mkdir(parents=True)
    missing.touch()


def _copied(place: Place, template: Path, name: str) -> Path:
    """Return a copy of a prepared file or folder."""
    source, target = template / name, place.files / name
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy(source, target)
    return target


def _verdict(*codes: int) -> str:
    return "accepted" if not any(codes) else "refused"


def registry(place: Place, template: Path, chosen: random.Random) -> str:
    """A registry in a directory: any of its files, and its folders."""
    root = _copied(place, template, "registry")
    paths = sorted(root.rglob("*"))
    for _ in range(chosen.choice((1, 1, 1, 2))):
        path = root / "index.json" if chosen.random() < 0.4 else chosen.choice(paths)
        if path.is_dir() and not path.is_symlink():
            plant(path, place, chosen)
        elif path.parent.is_dir():
            spoil(path, place, chosen, INDEX_FORM)
    words = chosen.choice(
        (("list", "--json"), ("list",), ("fetch", *ASKED), ("fetch", "--dry-run", *ASKED, "--json"),
         ("lock", *ASKED, "-o", place.files / "x.lock"), ("publish", template / "new.tar.zst"),
         ("publish", template / "new.tar.zst", "--tag", "v1.2.0", "--replace"),
         ("fetch", *ASKED, "--revision", "v1.0.0"))
    )  # fmt: skip
    return _verdict(command(place, *words, "--repo", root).code)


def lock(place: Place, template: Path, chosen: random.Random) -> str:
    file = _copied(place, template, "gdn-aot.lock")
    _copied(place, template, "registry")
    spoil(file, place, chosen, LOCK_FORM)
    if chosen.random() < 0.2 and file.is_file() and not file.is_symlink():
        value = json.loads((template / "gdn-aot.lock").read_bytes())
        value[chosen.choice(("repository", "revision", "commit"))] = odd(chosen)
        file.write_bytes(text_of(value, lambda held: json.dumps(held, indent=2) + "\n"))
    words = chosen.choice(
        (("fetch", "--locked", "--allow-unsigned", "--lock-file", file), ("lock", *ASKED, "--check", "-o", file))
    )
    more = ("--repo", place.files / "registry") if words[0] == "lock" else ()
    return _verdict(command(place, *words, *more).code)


def captured(place: Place, template: Path, chosen: random.Random) -> str:
    file = _copied(place, template, "capture.json")
    spoil(file, place, chosen, capture.FORM)
    return _tried(lambda: selected_captures([file], None, alone=True))


def recorded(place: Place, template: Path, chosen: random.Random) -> str:
    """The lines that recorded processes leave."""
    folder = place.files / "left"
    folder.mkdir()
    for name in ("1-a", "2-b"):
        shutil.copy(template / "1-a.jsonl", folder / f"{name}.jsonl")
    spoil(folder / "2-b.jsonl", place, chosen)
    output = place.files / "capture.json"
    code = command(place, "capture", "--merge", folder, "-o", output, *chosen.choice(((), ("--json",)))).code
    if code == 0 and output.is_file():
        capture.load(output)  # what is written is read
    return _verdict(code)


def tuned(place: Place, template: Path, chosen: random.Random) -> str:
    file = _copied(place, template, "tuning.json")
    spoil(file, place, chosen, tuning.FORM)
    words = ("export", "--format", "fla", "--record", file, "-o", place.files / "out")

    def read() -> None:
        found = tuning.load(file)
        if found is not None:
            list(contribution.problems(contribution.tidied(found)))
        merging.merge(found, tuning_records.full())

    verdict = _tried(read)
    return _verdict(command(place, *words).code) if chosen.random() < 0.5 else verdict


def checked(place: Place, template: Path, chosen: random.Random) -> str:
    file = _copied(place, template, "numerics.json")
    spoil(file, place, chosen, numerics.FORM)
    return _tried(lambda: numerics.load(file))


def matrix(place: Place, template: Path, chosen: random.Random) -> str:
    file = place.files / "matrix.toml"
    for name in ("a.txt", "b.txt"):
        _copied(place, template, name)
    drawn = chosen.random()
    if drawn < 0.4:
        file.write_bytes(matrices.PUBLISHED.read_bytes())
        spoil(file, place, chosen)
    elif drawn < 0.9:
        value = change_json(matrices.SMALL, chosen, chosen.choice((1, 1, 2)))
        try:
            text = matrices.toml(value)
        except (TypeError, AttributeError):
            text = b"\xff"
        file.write_bytes(text.replace(b'"\\ue000huge\\ue000"', b"9" * 5000))
    else:
        file.write_bytes(matrices.toml(matrices.SMALL))
        spoil(place.files / chosen.choice(("a.txt", "b.txt")), place, chosen)
    MATRIX.schema()
    return _verdict(command(place, "matrix", "--matrix", file, *chosen.choice(((), ("--json",)))).code)


def described(place: Place, template: Path, chosen: random.Random) -> str:
    file = _copied(place, template, "deployment.toml")
    spoil(file, place, chosen)
    return _tried(lambda: deployment.read(str(file)))


def configs(place: Place, template: Path, chosen: random.Random) -> str:
    """Configuration files of FLA, where others are written or removed."""
    out = place.files / "configs"
    words = ("export", "--format", "fla", "--record", template / "tuning.json", "-o", out)
    if command(place, *words).code:
        raise WrongError("broken", "the sound record is not exported")
    for path in chosen.sample(sorted(out.iterdir()), 1):
        shutil.copy(path, out / "other.json")
        target = chosen.choice((path, out / "other.json"))
        if chosen.random() < 0.5:
            plant(target, place, chosen)
        else:
            spoil(target, place, chosen)
    return _verdict(command(place, *words, *chosen.choice(((), ("--json",)))).code)


def hub(place: Place, template: Path, chosen: random.Random) -> str:
    """The cache of huggingface_hub, offline: its refs, snapshots and blobs."""
    root = _copied(place, template, "hub")
    path = next(root.glob("*/refs/v1")) if chosen.random() < 0.5 else chosen.choice(sorted(root.rglob("*")))
    drawn = chosen.random()
    if path.name == "v1" and drawn < 0.6:
        commit = chosen.choice(
            ("../../../canary", "c" * 39, "d" * 40, "c" * 40 + "\n\n", "C" * 40, "", "\0", "c" * 10**6)
        )
        path.write_bytes(chosen.choice((commit.encode(), b"\xff" * 40, b"\xef\xbb\xbf" + b"c" * 40)))
    elif path.is_dir() and not path.is_symlink():
        plant(path, place, chosen)
    else:
        spoil(path, place, chosen)
    words = chosen.choice(
        (
            ("fetch", *ASKED),
            ("list", "--json"),
            ("fetch", "--optional", *ASKED),
            ("lock", *ASKED, "-o", place.files / "l"),
        )
    )
    revision = chosen.choice(
        ((), ("--revision", "v1"), ("--revision", "c" * 40), ("--revision", chosen.choice(_REVISIONS)))
    )
    return _verdict(command(place, *words, "--repo", f"hf://{ORG}", *revision).code)


_REVISIONS = (
    "../../../canary",
    "a/../b",
    "\x1b[2J",
    "x" * 5000,
    ".",
    "refs/pr/1",
    "-x",
    "v1\n",
    "HEAD~1",
    "@{u}",
    "v1@v2",
)
_WORDS = (
    "x" * 5000, "hf://" + "x" * 5000, "hf://a/b/c", "hf://../..", "~", "~nobody/x", "file:///etc", "/dev/zero", "a\nb",
    "/proc/self/mem", "hf://org/name@x@y", "\x1b[2J", "https://user:secret@host/x", "", " ", "\udcff",
    "./" + "a/" * 2000,
)  # fmt: skip


def words(place: Place, template: Path, chosen: random.Random) -> str:
    """Names and paths that are given as words, or stand in variables."""
    word = chosen.choice(_WORDS)
    line = chosen.choice(
        (("list", "--repo", word), ("fetch", "--repo", word, *ASKED), ("lock", "--repo", word, *ASKED),
         ("verify", word), ("inspect", word), ("fetch", "--lock-file", word), ("seed", word, "--into", "into"),
         ("cache", "rm", word),
         ("matrix", "--matrix", word), ("export", "--format", "fla", "--record", word, "-o", "out"), ("doctor", word),
         ("capture", "--merge", word, "-o", "out.json"), ("publish", word, "--repo", "./new", "--create"),
         ("list", "--repo", template / "registry", "--arch", word),
         ("fetch", "--allow-unsigned", "--repo", template / "registry", "--triton", word),
         ("coverage", word, "--model", "qwen3.5-9b"), ("publish", template / "new.tar.zst", "--repo", word))
    )  # fmt: skip
    return _verdict(command(place, *line).code)


def _tried(function: Callable[[], object]) -> str:
    try:
        function()
    except GdnAotError as error:
        if error.exit_code == 1 or len(str(error)) > 20_000:
            raise WrongError("traceback", f"{error!r}"[:1000]) from error
        return "refused"
    return "accepted"

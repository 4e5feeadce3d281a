"""A host process in surroundings that are broken: what gdn-aot costs it, and whether it raises into it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from helpers import ROOT

WAYS = ("auto", "plugin", "file")
"""``import gdn_aot.auto``, vLLM's plugin, and ``install(FILE)``."""
SECONDS = 10.0
"""After which a process counts as hanging."""
MILLISECONDS = 50.0
"""That a host may be delayed."""
_DROPPED = ("TRITON_", "FLA_", "GDN_AOT", "HF_", "PYTHON", "XDG_", "LC_", "LANG")

PROGRAM = """
import os, sys, time
way, file, result, before, after = sys.argv[1:]
result = int(result)
try: queue = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
except OSError: queue = -1
perf_counter, core, pread = time.perf_counter, time.process_time, os.pread
def clock():  # without the time in which others had all cores
    return perf_counter() - (int(pread(queue, 99, 0).split()[1]) / 1e9 if queue >= 0 else 0)
exec(before)
def go():
    if way == "auto":
        import gdn_aot.auto
    elif way == "plugin":
        from gdn_aot.plugins import vllm
        vllm.register()
    elif way == "file":
        import gdn_aot
        gdn_aot.install(file)
start = clock(), core()
around = globals().get("around")
around(go) if around else go()
wall, cpu = clock() - start[0], core() - start[1]
exec(after)
os.write(result, b"%.3f %.3f" % (1000 * wall, 1000 * cpu))
"""
SERVED = """
state = sys.modules["gdn_aot.serving.loader"].state() if "gdn_aot.serving.loader" in sys.modules else None
os.write(result, b"served " if state and state.active else b"nothing ")
"""


@dataclass
class Setting:
    """What a condition may change of a process before it starts. Everything lies below ``root``."""

    root: Path
    artifact: Path
    """A copy of a sound artifact, which the store in ``home`` has."""
    env: dict[Any, Any] = field(default_factory=dict)
    unset: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    """Of the interpreter."""
    before: str = ""
    """Python that the process runs first, which may define ``around``, called with what is measured."""
    after: str = ""
    """Python that has to work after it as it does without gdn-aot."""
    wrapper: list[str] = field(default_factory=list)
    """A command that runs the process."""
    limits: Callable[[], None] | None = None
    """Called in the child before it is Python."""
    file: str = ""
    """What ``install`` is given."""
    close: list[Callable[[], object]] = field(default_factory=list)
    """Called when all is over."""

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def there(self) -> Path:
        """The directory of the artifact in the store."""
        (found,) = (self.store / "artifacts").iterdir()
        return found


class SkippedError(Exception):
    """This machine cannot make such surroundings; the message says why."""


Condition = Callable[[Setting], None]
CONDITIONS: dict[str, Condition] = {}


def condition(name: str) -> Callable[[Condition], Condition]:
    """Add a condition by its name."""

    def add(function: Condition) -> Condition:
        assert name not in CONDITIONS, name
        CONDITIONS[name] = function
        return function

    return add


@dataclass
class Row:
    """What came of one condition in one way."""

    condition: str
    way: str
    problem: str = ""
    """Empty, ``skipped: ...``, ``raised: ...``, ``hang``, ``slow``."""
    wall: float = 0.0
    cpu: float = 0.0
    """Milliseconds in the median: of a core, and on the clock but for waiting for a core."""
    served: str = ""


def template(folder: Path, artifact: Path) -> Path:
    """Write a home whose store has an artifact, and a provider whose modules are empty; return the folder."""
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.store.install import install
    from gdn_aot.store.store import Store

    made = install(Store(str(folder / "home")), open_artifact(artifact))
    del made
    shutil.copy(artifact, folder / artifact.name)
    for module in {kernel.module for kernel in open_artifact(artifact).manifest.kernels}:
        place = folder / "site"
        for part in module.split(".")[:-1]:
            place /= part
            place.mkdir(parents=True, exist_ok=True)
            (place / "__init__.py").touch()
        (place / f"{module.rpartition('.')[2]}.py").touch()
    (folder / "module.txt").write_text(module)
    return folder


def measure(name: str, way: str, source: Path, folder: Path, rounds: int = 3) -> Row:
    """Run a process in some surroundings a few times, and one without gdn-aot."""
    row = Row(condition=name, way=way)
    shutil.copytree(source, folder, symlinks=True)
    (artifact,) = folder.glob("*.tar.zst")
    setting = Setting(root=folder, artifact=artifact, file=str(artifact))
    setting.env = {
        "HOME": str(folder / "user"), "GDN_AOT_HOME": str(setting.home), "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)]), "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    for made in ("user", "tmp", "cwd"):
        (folder / made).mkdir()
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [close() for close in reversed(setting.close)])
            CONDITIONS[name](setting)
            plain = _run(setting, "plain")
            if plain.problem:
                row.problem = f"skipped: without gdn-aot: {plain.problem}"
                return row
            found = [_run(setting, way) for _ in range(rounds)]
            broken = next((one for one in found if one.problem), None)
            if broken is not None:
                row.problem = broken.problem
                return row
            row.cpu = round(median(one.cpu for one in found), 1)
            row.wall = round(median(one.wall for one in found), 1)
            row.served = found[-1].served
            if row.cpu > MILLISECONDS or row.wall > MILLISECONDS:
                row.problem = "slow"
    except SkippedError as reason:
        row.problem = f"skipped: {reason}"
    finally:
        _make_removable(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return row


def _run(setting: Setting, way: str) -> Row:
    reader, writer = os.pipe()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    env: dict[Any, Any] = {**kept, **setting.env}
    for name in setting.unset:
        env.pop(name, None)
    module = (setting.root / "module.txt").read_text()
    after = SERVED + setting.after.replace("MODULE", module)
    command = [
        *setting.wrapper, sys.executable, *setting.flags, "-c", PROGRAM, way, setting.file, str(writer),
        setting.before.replace("MODULE", module), after,
    ]  # fmt: skip
    row = Row(condition="", way=way)
    process = subprocess.Popen(
        command, env=env, cwd=setting.root / "cwd", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, pass_fds=[writer], start_new_session=True,
        preexec_fn=setting.limits,  # noqa: PLW1509 - there is one thread
    )  # fmt: skip
    os.close(writer)
    try:
        _, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        row.problem = "hang"
    else:
        said = os.read(reader, 1000).split()
        if process.returncode or len(said) != 3:
            text = err.decode("utf-8", "replace").strip()
            last = text.splitlines()[-1] if text else f"exit {process.returncode}"
            row.problem = f"raised: {last[:300]}"
        else:
            row.served, row.wall, row.cpu = said[0].decode(), float(said[1]), float(said[2])
    finally:
        os.close(reader)
    return row


def _make_removable(folder: Path) -> None:
    for root, names, _ in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                path = Path(root, name)
                if not path.is_symlink():
                    path.chmod(0o755)


def everything(source: Path, folder: Path, names: list[str], ways: tuple[str, ...] = WAYS) -> Iterator[Row]:
    """Yield a row for every condition and way."""
    for number, name in enumerate(names):
        for way in ways:
            yield measure(name, way, source, folder / f"{number}-{way}")


def table(rows: list[Row]) -> str:
    """Return rows as a table: a line for each condition."""
    lines = []
    for name in dict.fromkeys(row.condition for row in rows):
        cells = [
            f"{row.way}: {row.problem or 'ok'}"
            + (f" {row.cpu:.0f} ms ({row.wall:.0f}) {row.served}" if row.cpu else "")
            for row in rows
            if row.condition == name
        ]
        lines.append(f"{name}\n    " + "\n    ".join(cells))
    return "\n".join(lines)

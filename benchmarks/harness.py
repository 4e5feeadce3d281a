"""What the benchmarks share: the machine, timed steps in interleaved rounds, fresh processes, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.building.pack import own_commit
from gdn_aot.errors import UsageError
from gdn_aot.machine import installed
from gdn_aot.machine.card import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gdn_aot.artifact.verify import Artifact

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_DROPPED = ("TRITON_", "FLA_", "GDN_AOT", "HF_", "LD_PRELOAD", "PYTHONDONTWRITEBYTECODE")
"""Beginnings of the variables that a measured process does not get from here."""
_TAIL = 2500
"""Characters of stderr that are kept of a process that failed."""


def machine(*distributions: str) -> dict[str, Any]:
    """Return the commit, processor, cores, load, kernel, Python, versions, and the card and its driver if there is one.

    A copy of the tree without its history takes the commit from ``$GDN_AOT_TEST_COMMIT``, as its tests on a card do.
    The load says how many processes wanted a core in the last minute: with more than there are cores, wall times are
    longer than they need be.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        **_card(),
        "commit": os.environ.get("GDN_AOT_TEST_COMMIT") or own_commit()[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": next(names, platform.machine()),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: installed.version(name) or "?" for name in distributions},
    }


def _card() -> dict[str, str]:
    try:
        card = probe()
    except UsageError:
        return {}
    return {"device": card.name, "driver": card.driver}


def described(artifact: Artifact) -> dict[str, Any]:
    """Return what identifies an artifact, and how large it is."""
    manifest = artifact.manifest
    return {
        "identifier": manifest.identifier,
        "sha256": artifact.sha256,
        "commit": manifest.build.commit,
        "dirty": manifest.build.dirty,
        "bytes": artifact.size,
        "manifest_bytes": len(artifact.manifest_json),
        "kernels": len(manifest.kernels),
        "binaries": sum(len(kernel.binaries) for kernel in manifest.kernels),
        "blobs": len(manifest.blobs),
        "blob_bytes": sum(blob.size for blob in manifest.blobs),
    }


def load(path: Path) -> dict[str, Any]:
    """Return the results so far."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def place(name: str, given: Path | None, *, dry: bool) -> Path:
    """Return where results go: as given, else to those that are committed, which those of a dry run never replace."""
    return given or (Path(tempfile.gettempdir(), f"dry_{name}") if dry else RESULTS / name)


def save(path: Path, document: Mapping[str, Any]) -> None:
    """Write results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def goal(text: str, found: object, met: bool | None) -> dict[str, Any]:
    """Return what was asked for, what was found, and whether that is it; None if it was not measured."""
    return {"goal": text, "found": found, "met": met}


def goals_text(goals: Iterable[Mapping[str, Any]]) -> str:
    """Return goals as lines of text."""
    words = {True: "met", False: "MISSED", None: "not run"}
    return "\n".join(f"{words[one['met']]:>8}  {one['goal']}: {one['found']}" for one in goals)


def summary_text(rows: Mapping[str, Mapping[str, Any]], says: Mapping[str, str]) -> str:
    """Return figures as text.

    Args:
        rows: Those of each case, and ``error``, which is None where it did not end early.
        says: What a case is.
    """
    lines = []
    for name, row in rows.items():
        lines.append(f"({name}) {says.get(name, '')}" + (f": {row['error']}" if row["error"] else ""))
        shown = {key: value for key, value in row.items() if key != "error" and value not in (None, {}, [])}
        lines += [f"    {key}: {_shown(value)}" for key, value in shown.items()]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """Make a step. Returns milliseconds on the clock, and of CPU time here and in processes that were waited for."""
    before, start = _cpu_seconds(), time.perf_counter()
    step()
    took = time.perf_counter() - start
    return 1000 * took, 1000 * (_cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def summary(times: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return median, least and greatest of the clock's milliseconds, and the median of the CPU's."""
    clock = [took for took, _ in times]
    found = {"median": statistics.median(clock), "least": min(clock), "greatest": max(clock)}
    found["cpu"] = statistics.median(cpu for _, cpu in times)
    return {name: round(value, 2) for name, value in found.items()}


def interleaved(
    steps: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[str], object] = lambda _: None
) -> dict[str, dict[str, float]]:
    """Make all steps in turn, round after round, and return the summary of each. The first round is not counted.

    Args:
        steps: What is timed, by name.
        rounds: Those that count.
        before: Called with its name before each step; not timed.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            before(name)
            taken = timed(step)
            if number:
                times[name].append(taken)
    return {name: summary(found) for name, found in times.items()}


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without settings of Triton, FLA, the Hub and the loader, and with ``settings``.

    This repository is on the path. A setting that is empty is unset.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    path = os.pathsep.join([str(ROOT), *filter(None, [settings.pop("PYTHONPATH", ""), kept.get("PYTHONPATH")])])
    full = {**kept, **settings, "PYTHONPATH": path}
    return {name: value for name, value in full.items() if value or name not in settings}


def command(
    *args: object,
    env: Mapping[str, str] | None = None,
    seconds: float = 6 * 3600.0,
    cwd: Path = ROOT,
    log: Path | None = None,
) -> dict[str, Any]:
    """Run a command to its end, and end what it started and left running.

    Args:
        args: The command line.
        env: What `environment` is given.
        seconds: When it is killed.
        cwd: Where it runs.
        log: Where stdout and stderr go; by default they are returned.

    Returns:
        ``ok``, ``seconds``, ``code`` and ``stdout``; if it is not ok, also ``error`` and ``stderr``.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        output: Any = stack.enter_context(log.open("wb")) if log else subprocess.PIPE
        process = subprocess.Popen(
            list(map(str, args)), env=environment(**(env or {})), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, text=True, start_new_session=True,
        )  # fmt: skip
        ended = ""
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            ended = f"ended after {seconds:.0f} s"
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.returncode
    found = {"ok": not code, "seconds": time.perf_counter() - start, "code": code, "stdout": out or ""}
    if code:
        said = log.read_text(errors="replace") if log else err
        found |= {"error": ended or f"ended with status {code}", "stderr": said[-_TAIL:]}
    return found


def run(*args: object, env: Mapping[str, str] | None = None, codes: tuple[int, ...] = (0,), cwd: Path = ROOT) -> str:
    """Run Python with these arguments and return what it printed.

    Raises:
        SystemExit: It ended with another code than these.
    """
    done = command(sys.executable, *args, env=env, cwd=cwd)
    if done["code"] not in codes:
        raise SystemExit(f"{' '.join(map(str, args))} {done.get('error', 'ended well')}:\n{done.get('stderr', '')}")
    out: str = done["stdout"]
    return out


def gdn_aot(*args: object, home: object = "", codes: tuple[int, ...] = (0,)) -> Any:
    """Run ``gdn-aot ... --json`` and return the document.

    Args:
        args: The command and its options.
        home: ``GDN_AOT_HOME``; by default the user's cache directory.
        codes: Exit codes that are expected.

    Raises:
        SystemExit: It ended with another.
    """
    return json.loads(run("-m", "gdn_aot", *args, "--json", env={"GDN_AOT_HOME": str(home)}, codes=codes))


def ask(
    program: Path, kind: str, spec: Mapping[str, Any], env: Mapping[str, str] | None = None, seconds: float = 600.0
) -> dict[str, Any]:
    """Run ``PROGRAM --worker``, a process that calls `serve`, to its end.

    Without ``TRITON_CACHE_DIR`` in ``env`` it has an empty Triton cache of its own.

    Returns:
        ``ok``, and what the function of this kind returned, or ``error`` and ``stderr``.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-triton-", ignore_cleanup_errors=True) as cache:
        words = (program, "--worker", json.dumps({"kind": kind, **spec}))
        done = command(sys.executable, *words, env={"TRITON_CACHE_DIR": cache, **(env or {})}, seconds=seconds)
    if not done["ok"]:
        return {"ok": False, "error": done["error"], "stderr": done["stderr"]}
    return {"ok": True, **json.loads(done["stdout"])}


def serve(kinds: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Be the process that ``--worker SPEC`` asks for, if that is the command line; then this does not return.

    What libraries print goes to stderr.
    """
    if sys.argv[1:2] != ["--worker"]:
        return
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec = json.loads(sys.argv[2])
    json.dump(kinds[spec["kind"]](spec), answer)
    answer.flush()
    sys.stderr.flush()
    os._exit(0)  # taking PyTorch down takes seconds

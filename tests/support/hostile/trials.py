"""Run cases by number in forked children: with a limit on memory and one on time, and see what becomes of each."""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from processes import fork

SECONDS = 10.0
"""Of a core that what is attacked may take. A case may take three times that in all, and thrice that on the clock."""
MEBIBYTES = 384
"""That what is attacked may make its process hold beyond what that holds: the tests' own process may hold much."""
_MORE = 2 << 30
"""Bytes of address space beyond what the process has before: a guard, so that nobody else is hurt."""
_IDLE = 0.5
"""Seconds of a core below which a case that goes on is waiting for something, and not for a core."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case. ``fault`` is what must not be, or empty."""

    number: int
    kind: str
    """The class of the case."""
    verdict: str
    """A word that is counted: ``refused``, ``accepted``."""
    fault: str = ""
    """``traceback``, ``different``, ``touched``, ``hang``, ``memory``, ``died`` or another word."""
    detail: str = ""
    seconds: float = 0.0
    """Of a core."""
    mebibytes: int = 0
    """The most that the process held beyond what it held before."""


Case = Callable[[int], Outcome]


@dataclass
class Tally:
    """Outcomes counted."""

    kinds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    mebibytes: int = 0

    def add(self, outcome: Outcome) -> None:
        counts = self.kinds[outcome.kind]
        counts["cases"] += 1
        counts[outcome.fault or outcome.verdict] += 1
        if outcome.fault:
            self.faults.append(outcome)
        self.seconds = max(self.seconds, outcome.seconds)
        self.mebibytes = max(self.mebibytes, outcome.mebibytes)

    def document(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        together: Counter[str] = sum(self.kinds.values(), Counter())
        rows = {kind: dict(sorted(counts.items())) for kind, counts in sorted(self.kinds.items())}
        return {
            "total": dict(sorted(together.items())),
            "classes": rows,
            "most_seconds": round(self.seconds, 2),
            "most_mebibytes": self.mebibytes,
            "faults": [asdict(outcome) for outcome in sorted(self.faults, key=lambda one: one.number)],
        }

    def table(self) -> str:
        """Return the counts as a table, a line for each class."""
        document = self.document()
        rows = {**document["classes"], "together": document["total"]}
        heads = ["cases", *sorted({name for row in rows.values() for name in row} - {"cases"})]
        width = max(map(len, rows))
        lines = [" ".join([" " * width, *(f"{head:>{max(7, len(head))}}" for head in heads)])]
        for kind, row in rows.items():
            cells = (f"{row.get(head, 0):>{max(7, len(head))}}" for head in heads)
            lines.append(" ".join([kind.ljust(width), *cells]))
        lines.append(f"most: {document['most_seconds']} s of a core, {document['most_mebibytes']} MiB")
        return "\n".join(lines)


def attack(
    make: Callable[[Path], Case],
    numbers: Sequence[int],
    *,
    scratch: Path,
    kind_of: Callable[[int], str],
    jobs: int = 2,
) -> Iterator[Outcome]:
    """Run cases; ``make`` makes in each child, in a folder of its own, what runs one by its number."""
    children = [_Child(make, list(numbers[part::jobs]), scratch / f"child-{part}") for part in range(jobs)]
    try:
        while running := [child for child in children if child.left]:
            ready, _, _ = select.select([child.pipe for child in running], [], [], 0.5)
            for child in running:
                seen = [*(child.read() if child.pipe in ready else ()), *child.watch()]
                yield from (one if one.kind else replace(one, kind=kind_of(one.number)) for one in seen)
    finally:
        for child in children:
            child.stop()


class _Child:
    """A process that runs cases one after another; another takes its place when it dies."""

    def __init__(self, make: Callable[[Path], Case], numbers: list[int], folder: Path) -> None:
        self._make, self.left, self._folder = make, numbers, folder
        self.pipe, self._pid, self._starts = -1, 0, 0
        self._start()

    def _start(self) -> None:
        self._starts += 1
        reader, writer = os.pipe()
        folder, numbers = self._folder / str(self._starts), list(self.left)

        def work() -> None:
            os.close(reader)
            _work(self._make, folder, numbers, writer)

        self._pid = fork(work)
        os.close(writer)
        self.pipe, self._text = reader, b""
        self._began = self._clock = 0.0
        self._case_began()

    def _case_began(self) -> None:
        self._clock, self._began = time.monotonic(), _processor_seconds(self._pid)

    def read(self) -> Iterator[Outcome]:
        """Yield what the child says; where it ended in the middle, another goes on after the case that ended it."""
        data = os.read(self.pipe, 1 << 20)
        self._text += data
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            outcome = Outcome(**json.loads(line))
            self.left.remove(outcome.number)
            self._case_began()
            yield outcome
        if not data:
            _, status = os.waitpid(self._pid, 0)
            self._pid = 0
            os.close(self.pipe)
            if self.left:
                yield self._lost("died", f"exit {os.waitstatus_to_exitcode(status)}")

    def watch(self) -> Iterator[Outcome]:
        """Yield a case that takes too long, after its end."""
        if not self.left or not self._pid:
            return
        taken, clock = _processor_seconds(self._pid) - self._began, time.monotonic() - self._clock
        if taken > 3 * SECONDS or clock > 9 * SECONDS or (clock > SECONDS and taken < _IDLE):
            self.stop()
            yield self._lost("hang", f"{taken:.1f} s of a core, {clock:.1f} s on the clock")

    def _lost(self, fault: str, detail: str) -> Outcome:
        number = self.left.pop(0)
        if self.left:
            self._start()
        return Outcome(number=number, kind="", verdict="", fault=fault, detail=detail, seconds=0)

    def stop(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self.pipe)
            self._pid = 0


def _work(make: Callable[[Path], Case], folder: Path, numbers: Sequence[int], writer: int) -> None:
    folder.mkdir(parents=True)
    with (folder.parent / f"{folder.name}.stderr").open("wb") as said:  # what is logged; a fault has its own words
        os.dup2(said.fileno(), 2)
    case = make(folder)
    _limit()
    for number in numbers:
        outcome = run(case, number)
        data = json.dumps(outcome).encode() + b"\n"
        while data:
            data = data[os.write(writer, data) :]


def run(case: Case, number: int) -> dict[str, Any]:
    """Run one case here; return its outcome as JSON has it, with what it took."""
    gc.collect(0)
    METER.reset()
    try:
        outcome = asdict(case(number))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        fault = "memory" if isinstance(error, MemoryError) else "traceback"
        outcome = asdict(Outcome(number=number, kind="", verdict="", fault=fault, detail=_brief(error)))
    outcome["seconds"], outcome["mebibytes"] = round(METER.seconds, 3), METER.kibibytes >> 10
    if not outcome["fault"] and outcome["seconds"] > SECONDS:
        outcome["fault"], outcome["detail"] = "hang", f"{outcome['seconds']} s"
    if not outcome["fault"] and outcome["mebibytes"] > MEBIBYTES:
        outcome["fault"], outcome["detail"] = "memory", f"{outcome['mebibytes']} MiB"
    return outcome


class Meter:
    """What is spent in its blocks alone: making a case, and looking at what came of it, may take more."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seconds, self.kibibytes = 0.0, 0

    def __enter__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # forget the most that was held
        self._before, self._start = _held("VmRSS"), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._start
        self.kibibytes = max(self.kibibytes, _held("VmHWM") - self._before)


def _brief(error: BaseException) -> str:
    """Return an exception and the last places that it came through, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "gdn_aot" in frame.filename]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    return f"{type(error).__name__}: {str(error)[:300]!a} at {places}"


def _limit() -> None:
    size = (_held("VmSize") << 10) + _MORE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _held(field: str) -> int:
    """Return a line of ``/proc/self/status`` in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _processor_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


METER = Meter()
"""Of this process."""

"""Where the seconds of a start of vLLM went, from its log, and which of them an artifact saves.

vLLM says of some of its steps how long they took; of others the times of its lines tell, which are whole seconds. What
it says was read in 0.24.0 and 0.33.0; `tests/doctor/test_start_vllm.py` compares with what is installed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal

from gdn_aot._text import plural, shown
from gdn_aot.catalogue.kernel_names import BY_FAMILY
from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(
    r"(?:\((?P<process>[^()]* pid=\d+)\) )?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) "
    r"(?P<time>\d\d-\d\d \d\d:\d\d:\d\d) \[[^\]]*:\d+\] (?P<text>.*)"
)
"""``_FORMAT`` and ``_DATE_FORMAT`` of ``vllm/logger.py``, after whatever else is before."""
_YEAR = "2000-"
"""vLLM's lines have no year: a leap year, so that each day is one."""
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"

Saved = Literal["yes", "part", "no"]
Saving = tuple[Saved, str]
"""Whether an artifact saves it, and how, or what else does."""

_NO: Saving = ("no", "")
_INSPECTION: Saving = ("yes", "by the plugin with an artifact of this vLLM, or by gdn-aot seed --vllm-cache")
_TRITON: Saving = (
    "part",
    "what Triton compiles: linear attention by an artifact of the model, all by one of the deployment",
)
_CACHE: Saving = ("yes", "by vLLM's compile cache in an artifact of the deployment, or by keeping VLLM_CACHE_ROOT")
_CACHED: Saving = ("no", "vLLM had it in its compile cache")
_KEPT: Saving = ("no", "keep VLLM_CACHE_ROOT between starts")
_SAID: tuple[tuple[str, str, Saving], ...] = (
    ("model inspection", rf"Registry inspect model class: Elapsed time {_NUMBER} secs", _INSPECTION),
    ("downloading weights", rf"Time spent downloading weights for .*: {_NUMBER} seconds", _NO),
    ("weights", rf"Loading weights took {_NUMBER} seconds", _NO),
    ("Dynamo", rf"Dynamo bytecode transform time: {_NUMBER} s", _CACHE),
    ("Inductor", rf"Compiling a graph for compile range .* takes {_NUMBER} s", _CACHE),
    ("compiled graphs from the cache", rf"Directly load the compiled graph\(s\) .* took {_NUMBER} s", _NO),
    ("profiling run", rf"Initial profiling/warmup run took {_NUMBER} s", _TRITON),
    ("vLLM's own list of Triton kernels", rf"JIT kernel warmup finished in {_NUMBER}s", _TRITON),
    ("CUDA graphs", rf"(?:Encoder g|G)raph capturing finished in {_NUMBER} secs", _TRITON),
)
"""(stage, what vLLM says of it, what saves it), in the order of a start."""
_WHOLES: tuple[tuple[str, str, tuple[str, ...], Saving], ...] = (
    ("rest of loading the model", rf"Model loading took \S+ GiB(?: memory)? and {_NUMBER} seconds", ("weights",), _NO),
    (
        "rest of torch.compile",
        rf"torch\.compile (?:and initial profiling/warmup run together )?took {_NUMBER} s in total",
        ("Dynamo", "Inductor", "compiled graphs from the cache"),
        _CACHE,
    ),
    (
        "rest of init engine: memory profiling, warm-ups, FlashInfer, Triton's compiles",
        rf"init engine \(.*\) took {_NUMBER} s",
        (
            *("Dynamo", "Inductor", "compiled graphs from the cache", "rest of torch.compile"),
            *("profiling run", "vLLM's own list of Triton kernels", "CUDA graphs", "FlashInfer's autotuning"),
        ),
        _TRITON,
    ),
)
"""(stage, what vLLM says of a whole, the stages that are in it, what saves the rest)."""
_PATTERNS = [
    (stage, re.compile(rf"(?:\[[^\]]*\] )?{pattern}"))
    for stage, pattern in [*(row[:2] for row in _SAID), *(row[:2] for row in _WHOLES)]
]
"""From 0.33 on a tag may be before what is said of a compile, as ``_log_prefix`` makes it."""
_BEFORE: tuple[tuple[str, str, Saving], ...] = (("model inspection", "Resolved architecture: ", _INSPECTION),)
"""(stage, how the line begins that ends it, what saves it) where nothing says how long it took."""
_AFTER: tuple[tuple[str, str, Saving], ...] = (
    ("FlashInfer's autotuning", "Using FlashInfer autotune cache file: ", _KEPT),
)
"""(stage, how the line begins that starts it, what saves it)."""
_FIRST = "first process until it says its arguments: imports"
_IMPORTS = "processes that vLLM starts: imports"
_BEGINS = "non-default args: "
"""What a server says first, once in each start."""
_ENDS = ("Starting vLLM server on ", "Starting vLLM API server ")
_VERSION = re.compile(r"Initializing a V1 LLM engine \(v([^)]*)\)")
_COMPILED = re.compile(r"Triton [a-zA-Z/ ]+ during inference: ([^\s(]+?)(?: \(|\. |$)")
"""``jit_monitor.py``; autotuning is told of so from 0.33 on."""
_TRITON_TOOK = re.compile(
    rf"gdn-aot: Triton compiled \d+ binaries of kernels of (?:linear attention|GDN) in {_NUMBER} s, "
    rf"\d+ binaries of others in {_NUMBER} s"
)
"""``line`` of ``gdn_aot/plugins/vllm_compiles.py``, which said GDN at first."""
_OURS = re.compile(r"gdn-aot: (.*)")
_BARE = re.compile(r"(?:^|\s)(gdn-aot: .*)")
"""What gdn-aot says without vLLM's layout: with ``GDN_AOT_LOG``, or before vLLM has set up its logging."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One part of a start."""

    name: str
    seconds: float
    """Of the process that took longest."""
    said: bool
    """vLLM says so; else it is the time between two lines of the log, in whole seconds."""
    saved: Saved
    """Whether an artifact saves it."""
    how: str
    """How, or what else saves it; empty where nothing is known to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartReport:
    """A start of vLLM, as its log has it."""

    version: str
    """Of vLLM; empty if the log does not say."""
    seconds: float
    """From the first line to the last that belongs to the start. What is before the first is not in it."""
    complete: bool
    """The log goes on to where the engine is ready."""
    stages: tuple[Stage, ...]
    triton: tuple[float, float] | None
    """Seconds that Triton compiled, kernels of linear attention and others, in the stages above; None without the line
    that ``GDN_AOT_START_REPORT=1`` asks for."""
    compiled: tuple[str, ...]
    """Kernels that vLLM saw Triton compile for a request."""
    messages: tuple[str, ...]
    """What gdn-aot said."""
    before: int
    """Starts in the log before this one, which is the last."""

    @property
    def unnamed(self) -> float:
        """Seconds that no stage has."""
        return max(0.0, round(self.seconds - sum(stage.seconds for stage in self.stages), 2))

    def sum(self, saved: Saved) -> float:
        """Return the seconds of the stages that are saved so."""
        return round(sum(stage.seconds for stage in self.stages if stage.saved == saved), 2)

    def document(self) -> dict[str, object]:
        """Return it as ``--json`` has it. Later versions may add keys; they do not remove any."""
        return {**asdict(self), "unnamed": self.unnamed}

    def page(self) -> Iterator[str]:
        """Yield the lines that a person reads."""
        ready = "to ready" if self.complete else "to the last line: the log ends before the engine was ready"
        yield f"vLLM {self.version or 'of a version that the log does not say'}: {self.seconds:.0f} s {ready}"
        if self.before:
            yield f"this is the last start in the log; {plural(self.before, 'start')} before it left out"
        yield ""
        width = max((len(stage.name) for stage in self.stages), default=0)
        for stage in self.stages:
            about = " " if stage.said else "~"
            saved = f"{stage.saved}{': ' if stage.how else ''}{stage.how}"
            yield f"  {about}{stage.seconds:8.2f} s  {stage.name.ljust(width)}  {saved}"
        yield f"   {self.unnamed:8.2f} s  no line says what for"
        yield ""
        whole, part = (f"{self.sum(saved):.0f} s" for saved in ("yes", "part"))
        yield f"artifacts save up to {whole}, and of {part} what Triton compiles in them"
        if self.triton is None:
            yield "how long Triton compiled: start with GDN_AOT_START_REPORT=1"
        else:
            own, others = self.triton
            saves = f"{own:.1f} s: an artifact saves it; others for {others:.1f} s: a whole one"
            yield f"Triton compiled linear attention for {saves}"
        if not all(stage.said for stage in self.stages):
            yield "~ is the time between lines, at most so much; with VLLM_LOGGING_LEVEL=DEBUG vLLM says more"
        if self.compiled:
            yield ""
            what = plural(len(self.compiled), "kernel")
            yield f"compiled for requests: {what}; an artifact of the deployment, or a capture's, has them"
            for name in self.compiled:
                yield f"  {name}" + "".join(f" ({family.upper()})" for family, own in BY_FAMILY.items() if name in own)
        yield ""
        yield from (f"gdn-aot: {message}" for message in self.messages)
        if not self.messages:
            yield "gdn-aot said nothing: its plugin was not there, or VLLM_PLUGINS does not name it"


@dataclass(kw_only=True, slots=True)
class _Line:
    process: str
    time: datetime
    text: str


@dataclass(kw_only=True, slots=True)
class _Times:
    """Seconds by stage and process."""

    found: defaultdict[str, defaultdict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    guessed: set[str] = field(default_factory=set)

    def add(self, stage: str, process: str, seconds: float) -> None:
        self.found[stage][process] += seconds


def read_start(text: str) -> StartReport:
    """Return where the seconds of a start went.

    Args:
        text: The log, of all processes; more in it than vLLM's lines does not matter. Of several starts of a server the
            last counts.

    Raises:
        UsageError: No line of it is one of vLLM's.
        NothingSelectedError: It has lines of vLLM, but none of a start.
    """
    lines = list(_lines(text.splitlines()))
    if not lines:
        raise UsageError(
            "no line of the log is one of vLLM's, with level, time and place as INFO 11-30 22:53:55 [model.py:598]",
            hint="name what vllm serve prints, at level INFO or DEBUG, without VLLM_LOGGING_CONFIG_PATH",
        )
    begins = [number for number, line in enumerate(lines) if line.text.startswith(_BEGINS)]
    lines = lines[begins[-1] :] if len(begins) > 1 else lines
    times, last = _Times(), 0
    for number, line in enumerate(lines):
        for stage, pattern in _PATTERNS:
            if found := pattern.match(line.text):
                times.add(stage, line.process, float(found[1]))
                last = number
    _between(lines, times)
    ends = [number for number, line in enumerate(lines) if line.text.startswith(_ENDS)]
    if not times.found:
        raise NothingSelectedError(
            f"{plural(len(lines), 'line')} of vLLM, but none of a start",
            hint="name the log from the first line on, at level INFO or DEBUG; logs of requests alone say nothing",
        )
    last = max([last, *ends])
    texts = [line.text for line in lines]
    return StartReport(
        version=next((found[1] for text in texts if (found := _VERSION.match(text))), ""),
        seconds=(lines[last].time - lines[0].time).total_seconds(),
        complete=bool(ends or _WHOLES[-1][0] in times.found),
        stages=tuple(_stages(times)),
        triton=max(
            ((float(found[1]), float(found[2])) for found in map(_TRITON_TOOK.match, texts) if found), default=None
        ),
        compiled=tuple(dict.fromkeys(found[1] for text in texts if (found := _COMPILED.match(text)))),
        messages=tuple(dict.fromkeys(shown(found[1], 500) for text in texts if (found := _OURS.match(text)))),
        before=max(0, len(begins) - 1),
    )


def _lines(rows: Iterable[str]) -> Iterator[_Line]:
    years, before = timedelta(), None
    for row in map(partial(_COLOURS.sub, ""), rows):
        found = _LINE.search(row)
        if found is None:
            if before is not None and (bare := _BARE.search(row)):
                yield _Line(process="gdn-aot", time=before, text=bare[1])
            continue
        try:
            time = datetime.fromisoformat(f"{_YEAR}{found['time']}") + years
        except ValueError:
            continue
        if before is not None and before - time > timedelta(days=180):  # a new year; processes differ by seconds
            years += timedelta(days=366)
            time += timedelta(days=366)
        before = time
        yield _Line(process=found["process"] or "", time=time, text=found["text"])


def _between(lines: list[_Line], times: _Times) -> None:
    """Add the stages that only the times of lines tell of."""
    seen: dict[str, _Line] = {}
    pending: dict[str, tuple[str, _Line]] = {}
    known = next((number for number, line in enumerate(lines) if line.text.startswith(_BEGINS)), 0)
    _guess(times, _FIRST, "", lines[0], lines[known])
    for number, line in enumerate(lines):
        process = line.process
        if process in pending:
            stage, begin = pending.pop(process)
            _guess(times, stage, process, begin, line)
        if number > known and process and process not in seen:
            _guess(times, _IMPORTS, "", lines[number - 1], line)  # no two of these times overlap
        for stage, begins, _ in _BEFORE:
            if line.text.startswith(begins) and process in seen and not _is_said(times, stage):
                _guess(times, stage, process, seen[process], line)
        for stage, begins, _ in _AFTER:
            if line.text.startswith(begins):
                pending[process] = stage, line
        seen[process] = line


def _is_said(times: _Times, stage: str) -> bool:
    return stage in times.found and stage not in times.guessed


def _guess(times: _Times, stage: str, process: str, begin: _Line, end: _Line) -> None:
    seconds = (end.time - begin.time).total_seconds()
    if seconds > 0:
        times.add(stage, process, seconds)
        times.guessed.add(stage)


def _stages(times: _Times) -> Iterator[Stage]:
    """Yield the stages, none of which is in another."""
    seconds = {stage: max(found.values()) for stage, found in times.found.items()}
    for stage, _, within, _ in _WHOLES:  # of a worker, while the engine that waits for it says what the whole took
        if stage in seconds:
            seconds[stage] = max(0.0, seconds[stage] - sum(seconds.get(part, 0.0) for part in within))
    cached = "compiled graphs from the cache" in seconds and "Inductor" not in seconds
    parts = ((row[0], row[2]) for row in (*_SAID, *_AFTER))
    for name, saving in ((_FIRST, _NO), (_IMPORTS, _NO), *parts, *((row[0], row[3]) for row in _WHOLES)):
        if name in seconds:
            said = name not in times.guessed
            saved, how = _CACHED if cached and saving == _CACHE else saving
            yield Stage(name=name, seconds=round(seconds[name], 2), said=said, saved=saved, how=how)

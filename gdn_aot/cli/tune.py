"""``gdn-aot tune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gdn_aot.cli import _executor, _options
from gdn_aot.cli._models import selected_shapes
from gdn_aot.cli._output import Progress, emit_json, note, out
from gdn_aot.errors import NothingSelectedError, UsageError, VerificationError

if TYPE_CHECKING:
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.measuring.plan import PreparedUnits, TuneTask
    from gdn_aot.measuring.tuner import Tuned

GATE_TOKENS = (300, 108, 44, 13, 1)
"""Candidates are compared, and calls checked against float64, at the first of these lengths that is within the wanted
ones and none of them: no multiples of a chunk of 64."""
SEARCH_SECONDS = 2.0
"""What a wide search may take for each key and token count; --budget bounds it as a whole."""
_TOKENS = "64,512,2048,8192,32768"
_SHOWN = 10
_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_tokens(text: str) -> tuple[int, ...]:
    """Turn ``64,512`` into token counts, ascending and each once.

    Raises:
        UsageError: Something in it is no positive integer.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1 << 24 for part in parts):
        raise UsageError(f"--tokens: {text!r} is no list of positive integers", hint=f"for example --tokens {_TOKENS}")
    return tuple(sorted({int(part) for part in parts}))


def parse_duration(text: str) -> float:
    """Turn ``90s``, ``20m``, ``1.5h`` or a number of seconds into seconds.

    Raises:
        UsageError: It is something else.
    """
    number, unit = (text[:-1], text[-1]) if text and text[-1] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--budget: {text!r} is no duration", hint="for example --budget 20m, 90s or 1h")
    return seconds


@click.command("tune")
@_options.model
@_options.tp
@_options.shape
@_options.dtype
@_options.provider
@_options.max_batch
@_options.jobs
@_options.workload
@_options.exclude_workload
@click.option("--kernel", multiple=True, metavar="GLOB", help="Only kernels of these names; repeatable.")
@click.option("--tokens", default=_TOKENS, show_default=True, metavar="N,...", help="Token counts to measure at.")
@click.option(
    "--weights", default=None, metavar="N=W,...",
    help="What each token count is worth.  [default: 512 to 8192 most]",
)  # fmt: skip
@click.option(
    "--bound", type=click.FloatRange(min=1), default=1.1, show_default=True,
    help="Most times the best time that a choice may take at any token count.",
)  # fmt: skip
@click.option(
    "--search", type=click.Choice(["provider", "wide"]), default="provider", show_default=True,
    help="wide also measures configurations that the provider does not offer.",
)  # fmt: skip
@click.option("--budget", default=None, metavar="TIME", help="Time to measure in, as 20m; what is measured is kept.")
@click.option("--resume", is_flag=True, help="Go on from the record: measure only what it lacks.")
@_options.prepare
@click.option("--arch", default=None, metavar="SM", help="Target of --prepare, or on a cluster.  [default: the card's]")
@click.option("--rounds", type=click.IntRange(min=3), default=15, show_default=True, help="Timed rounds.")
@_options.timeout
@_options.cluster
@click.option(
    "--patience", type=click.FloatRange(min=1), default=30.0, show_default=True,
    help="Seconds without a sign of life after which a measuring process is killed.",
)  # fmt: skip
@_options.cache_dir
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("artifacts/tuning"), show_default=True,
    help="Directory of tuning records.",
)  # fmt: skip
@_options.as_json
def command(*, as_json: bool, prepare: bool, **options: Any) -> None:
    """Measure the candidates of every autotune key on this GPU and record the best.

    Candidates are compiled first, for which --prepare on another machine with the same Triton will do: carry its build
    cache here and name it with --cache-dir. Those that compute something else than the provider's first one are out;
    those that crash or hang are, too, and end nothing but their own process.
    """
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.machine import card as device
    from gdn_aot.measuring import plan, tuner

    where, address = options["executor"], options["address"]
    _executor.check(where, address)
    if where == "ray" and not options["arch"]:
        raise UsageError("--executor ray does not know which target to tune", hint="name it: --arch sm_90")
    card = None if where == "ray" or (prepare and options["arch"]) else device.probe()
    target = card.target if card is not None else get_target(options["arch"])
    if card is not None and options["arch"] and get_target(options["arch"]) != target:
        raise UsageError(
            f"--arch {options['arch']} is not what is here: {card.name} is {target}",
            hint="leave --arch out; with --prepare it names another target",
        )
    task = _task(target, options)
    made: PreparedUnits | Tuned
    with Progress("tune") as progress, _executor.executor(where, address) as work:
        task = replace(task, job=replace(task.job, executor=work))
        if prepare:
            made = plan.prepare(task, progress.update)
        else:
            if card is not None and (warning := card.warning()):
                note(f"Warning: {warning}")
            made = tuner.tune(task, _executor.cards(work, card, task), progress.update, note)
            if made.card.warning() and made.noise is not None:
                note(f"Warning: the median standard error of a time is {made.noise:.1%} of it, on a card in use")
    if isinstance(made, plan.PreparedUnits):
        _tell_prepared(task, made, as_json=as_json)
    else:
        _tell(task, made, as_json=as_json)


def _task(target: Target, options: dict[str, Any]) -> TuneTask:
    from gdn_aot.building import pipeline
    from gdn_aot.catalogue.providers import Limits, get_provider
    from gdn_aot.cli.build import select_workloads
    from gdn_aot.compiling.cache import BuildCache, default_cache
    from gdn_aot.machine import installed
    from gdn_aot.measuring.client import Method
    from gdn_aot.measuring.plan import TuneTask
    from gdn_aot.records import objective
    from gdn_aot.records import tuning as record
    from gdn_aot.tracing.wanted import Wanted

    provider = get_provider(options["provider"])
    tokens = parse_tokens(options["tokens"])
    weights = objective.parse(options["weights"]) if options["weights"] else objective.DEFAULT
    selection = selected_shapes(provider, options["model"], options["tp"], options["shape"], options["dtype"])
    budget = parse_duration(options["budget"]) if options["budget"] else None
    wide = options["search"] == "wide"
    if wide:  # the search goes by the times at what counts most
        shares = weights.shares(tokens)
        tokens = tuple(sorted(tokens, key=lambda count: -shares[count]))
    longest = max(tokens)
    gate = next((count for count in GATE_TOKENS if count <= longest and count not in tokens), 2)
    limits = Limits(max_tokens=max(longest, gate), max_batch=options["max_batch"])
    workloads = select_workloads(provider, "inference", options["workload"], options["exclude_workload"])
    wanted = Wanted(
        provider=provider,
        shapes=tuple(selection.shapes),
        fp16_fallback=not options["dtype"] and not options["shape"],
        limits=limits,
        workloads=workloads,
    )
    job = pipeline.Job(
        wanted=wanted,
        cache=BuildCache(options["cache_dir"]) if options["cache_dir"] else default_cache(),
        jobs=options["jobs"],
        timeout=options["timeout"],
        all_candidates=True,
        keep_going=True,
        output=options["output"],
    )
    pipeline.check_environment(job, [target])
    version = installed.require(provider.name)
    return TuneTask(
        job=job,
        target=target,
        method=Method(
            provider=provider.name,
            limits=limits,
            tokens=tokens,
            gate_tokens=(gate,),
            rounds=options["rounds"],
            search_seconds=SEARCH_SECONDS,
            silence=options["patience"],
        ),
        objective=objective.Objective(weights.weights, options["bound"]),
        wide=wide,
        kernels=options["kernel"],
        budget=budget,
        resume=options["resume"],
        path=record.record_path(options["output"], target.name, provider.distribution, version),
    )


def _tell_prepared(task: TuneTask, made: PreparedUnits, *, as_json: bool) -> None:
    wanted = [state for state in made.keys.values() if not state.idle]
    candidates = sum(len(state.configs) for state in wanted)
    document = {
        "target": task.target.name,
        "cache": str(task.job.cache.root),
        "keys": len(wanted),
        "candidates": candidates,
        "compiled": made.compiled,
        "seconds": {name: round(seconds, 3) for name, seconds in made.seconds.items()},
    }
    if as_json:
        emit_json(document)
        return
    out(
        f"{task.target}: {len(wanted)} keys with {candidates} candidates; "
        f"compiled {made.compiled} kernels into {task.job.cache.root}"
    )


def _tell(task: TuneTask, done: Tuned, *, as_json: bool) -> None:
    card = done.card
    skipped = {call: why for outcome in done.outcomes.values() for call, why in outcome.skipped.items()}
    wrong = {call: why for outcome in done.outcomes.values() for call, why in outcome.wrong.items()} | done.dropped
    restarts = [why for outcome in done.outcomes.values() for why in outcome.restarts]
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in done.seconds.items())
    noise = "" if done.noise is None else f"; median standard error {done.noise:.1%}"
    note(f"{card.name}: {done.keys} keys measured, {done.missing} not, {done.out} candidates out ({times}){noise}")
    for tokens, (median, worst) in done.regret.items():
        note(f"  {tokens} tokens: {median:.1%} slower than the best for this length (median), {worst:.1%} at most")
    for what, rows in (("not made", skipped), ("wrong", wrong)):
        for call, why in list(rows.items())[:_SHOWN]:
            note(f"  {what}: {call}: {why}")
        if len(rows) > _SHOWN:
            note(f"  and {len(rows) - _SHOWN} more")
    for why in restarts[:_SHOWN]:
        note(f"  a measuring process was replaced: {why}")
    if done.ended:
        note(f"{done.ended}: --resume goes on")
    if not done.keys:
        why = next(iter([*skipped.values(), *restarts, done.ended]), "there was nothing to measure")
        raise NothingSelectedError(
            f"no key was measured: {why}", hint="see the messages above; --budget may be too small"
        )
    if wrong:
        first, why = next(iter(wrong.items()))
        raise VerificationError(
            f"{len(wrong)} calls do not compute what float64 says, the first {first}: {why}",
            [],
            hint="what these calls launch has no measured choice; report it with the record and the device",
        )
    if as_json:
        emit_json(
            {
                "record": str(done.path),
                "target": task.target.name,
                "device": {"name": card.name, "driver": card.driver},
                "keys": done.keys,
                "missing": done.missing,
                "out": done.out,
                "regret": {str(tokens): list(values) for tokens, values in done.regret.items()},
                "warning": card.warning(),
                "noise": done.noise,
                "skipped": skipped,
                "restarts": restarts,
                "ended": done.ended,
                "seconds": {name: round(seconds, 3) for name, seconds in done.seconds.items()},
            }
        )
    else:
        out(str(done.path))

"""``gdn-aot tune``."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from gdn_aot.cli import _executor, _options, _record
from gdn_aot.cli._job import make_job, selected_shapes
from gdn_aot.cli._output import emit_json, note, note_some, out, out_path, rounded, times
from gdn_aot.cli._progress import Progress
from gdn_aot.errors import NothingSelectedError, UsageError, VerificationError

if TYPE_CHECKING:
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.proxy import Proxy
    from gdn_aot.measuring.plan import PreparedUnits, TuneTask
    from gdn_aot.measuring.tuner import Tuned

GATE_TOKENS = (300, 108, 44, 13, 1)
"""Candidates are compared, and calls checked against float64, at the first of these lengths that is within the wanted
ones and none of them: no multiples of a chunk of 64."""
ROUNDS, PROXY_ROUNDS = 15, 9
"""Timed rounds; fewer where another card stands in, whose order of candidates is an estimate in any case."""
SEARCH_SECONDS = 2.0
"""What a wide search may take for each key and token count; --budget bounds it as a whole."""
_TOKENS = "64,512,2048,8192,32768"
_SHOWN = 10
_NUMBER = re.compile(r"[0-9]{1,9}")
_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_tokens(text: str) -> tuple[int, ...]:
    """Turn ``64,512`` into token counts, ascending and each once.

    Raises:
        UsageError: Something in it is no positive integer.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_NUMBER.fullmatch(part) and 0 < int(part) <= 1 << 24 for part in parts):
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
@_options.models
@_options.mode
@_options.max_batch
@_options.workloads
@_options.many("--kernel", "GLOB", "Only kernels of these names; repeatable.")
@_options.default("--tokens", _TOKENS, "Token counts to measure at.", metavar="N,...")
@click.option("--weights", metavar="N=W,...", help="Weight of each token count.  [default: most for 512 to 8192]")
@_options.default(
    "--bound", 1.1, "Limit of a choice's time / best time at a weighted token count.", type=click.FloatRange(min=1)
)
@_options.default(
    "--search", "provider", "Measure more than the provider's candidates: relieved, if those spill; wide, always.",
    type=click.Choice(["provider", "relieved", "wide"]),
)  # fmt: skip
@click.option("--budget", metavar="TIME", help="Limit of the measuring time, as 20m; keeps the results.")
@click.option("--resume", is_flag=True, help="Continue the record: measure only keys that it lacks.")
@_options.prepare
@click.option("--arch", metavar="SM", help="Target of --prepare, or on a cluster.  [default: the GPU's]")
@click.option("--proxy", metavar="SM", help="Measure for this target on a newer GPU.")
@click.option("--rounds", type=click.IntRange(min=3), help="Timed rounds.  [default: 15; by proxy 9]")
@_options.timeout
@_options.cluster
@_options.patience(30.0, "measuring")
@_options.cache_dir
@_options.output("artifacts/tuning", "Directory of tuning records.")
@click.option("--submit", type=_options.path, metavar="FILE", help="Write the record to FILE, for a contribution.")
@_options.as_json
def command(*, as_json: bool, prepare: bool, **options: Any) -> None:
    """Measure the candidates of every autotune key on this GPU and record the best.

    Candidates are compiled first. --prepare does this on another machine with the same Triton: carry its build cache
    here and name it with --cache-dir. A candidate is out if it computes something else than the provider's first one,
    crashes or hangs; this ends only its own process.

    With --proxy the GPU runs the PTX of another target, with that target's candidates and no more blocks on an SM than
    the target holds. This finds the candidates that suit the code and the SM; clocks, memory and the number of SMs are
    those of the GPU. The record has its own folder, and builds use it if no GPU of the target was measured.

    --submit writes a record for a pull request, checks it like gdn-aot verify, and prints the next steps.
    """
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.compiling.proxy import proxy_for
    from gdn_aot.machine import card as device
    from gdn_aot.machine.installed import require_toolchain
    from gdn_aot.measuring import plan, tuner

    require_toolchain("tune")
    where, address = options["executor"], options["address"]
    _executor.check(where, address)
    _record.check_submit(options, prepare=prepare)
    if where == "ray" and not options["arch"]:
        raise UsageError("--executor ray does not know which target to tune", hint="name it: --arch sm_90")
    card = None if where == "ray" or (prepare and options["arch"]) else device.probe()
    target = card.target if card is not None else get_target(options["arch"])
    if card is not None and options["arch"] and get_target(options["arch"]) != target:
        raise UsageError(
            f"--arch {options['arch']} is not what is here: {card.name} is {target}",
            hint="leave --arch out; with --prepare it names another target",
        )
    if options["proxy"] and where == "ray":
        raise UsageError("--proxy is for the card of this machine, not of a cluster's", hint="leave --executor out")
    task = _task(target, proxy_for(get_target(options["proxy"]), target) if options["proxy"] else None, options)
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
        _tell(task, made, submit=options["submit"] is not None, as_json=as_json)


def _task(target: Target, proxy: Proxy | None, options: dict[str, Any]) -> TuneTask:
    """Return what to tune; ``target`` is the card's."""
    from gdn_aot.building import pipeline
    from gdn_aot.catalogue.providers import Limits, get_provider
    from gdn_aot.machine import installed
    from gdn_aot.measuring.client import Method
    from gdn_aot.measuring.plan import TuneTask
    from gdn_aot.records import objective
    from gdn_aot.records import tuning as record

    provider = get_provider(options["provider"])
    tokens = parse_tokens(options["tokens"])
    weights = objective.parse(options["weights"]) if options["weights"] else objective.DEFAULT
    selection = selected_shapes(provider, options)
    budget = parse_duration(options["budget"]) if options["budget"] else None
    if options["search"] == "wide":  # the search goes by the times at what counts most
        shares = weights.shares(tokens)
        tokens = tuple(sorted(tokens, key=lambda count: -shares[count]))
    longest = max(tokens)
    gate = next((count for count in GATE_TOKENS if count <= longest and count not in tokens), 2)
    limits = Limits(max_tokens=max(longest, gate), max_batch=options["max_batch"], mode=options["mode"])
    job = make_job(provider, selection, limits, options, all_candidates=True, keep_going=True, proxy=proxy)
    pipeline.check_environment(job, [target])
    root = job.output
    if proxy is not None:
        target, root = proxy.target, root / record.PROXY
        pipeline.check_environment(job, [proxy.code])
    version = installed.require(provider.name)
    return TuneTask(
        job=job,
        target=target,
        method=Method(
            provider=provider.name,
            limits=limits,
            tokens=tokens,
            gate_tokens=(gate,),
            rounds=options["rounds"] or (PROXY_ROUNDS if proxy else ROUNDS),
            search_seconds=SEARCH_SECONDS,
            silence=options["patience"],
            target=target.name if proxy else None,
        ),
        objective=objective.Objective(weights.weights, options["bound"]),
        search=options["search"],
        kernels=options["kernel"],
        budget=budget,
        resume=options["resume"],
        path=options["submit"] or record.record_path(root, target.name, provider.distribution, version),
    )


def _tell_prepared(task: TuneTask, made: PreparedUnits, *, as_json: bool) -> None:
    wanted = [state for state in made.keys.values() if not state.idle]
    candidates = sum(len(state.configs) for state in wanted)
    if as_json:
        emit_json(
            {
                "target": task.target.name,
                "cache": str(task.job.cache.root),
                "keys": len(wanted),
                "candidates": candidates,
                "compiled": made.compiled,
                "seconds": rounded(made.seconds),
            }
        )
        return
    out(
        f"{task.target}: {len(wanted)} keys with {candidates} candidates; "
        f"compiled {made.compiled} kernels into {task.job.cache.root}"
    )


def _tell(task: TuneTask, done: Tuned, *, submit: bool, as_json: bool) -> None:
    card = done.card
    outcomes = list(done.outcomes.values())
    skipped = dict(chain.from_iterable(outcome.skipped.items() for outcome in outcomes))
    wrong = dict(chain.from_iterable(outcome.wrong.items() for outcome in outcomes)) | done.dropped
    restarts = list(chain.from_iterable(outcome.restarts for outcome in outcomes))
    noise = "" if done.noise is None else f"; median standard error {done.noise:.1%}"
    spent = f"({times(done.seconds)}){noise}"
    note(f"{card.name}: {done.keys} keys measured, {done.missing} not, {done.out} candidates out {spent}")
    for tokens, (median, worst) in done.regret.items():
        note(f"  {tokens} tokens: {median:.1%} slower than the best for this length (median), {worst:.1%} at most")
    if done.unsound:
        note(f"{done.unsound} keys have no sound candidate that was timed in full: --search relieved measures others")
    for what, rows in (("not made", skipped), ("wrong", wrong)):
        note_some([f"{what}: {call}: {why}" for call, why in rows.items()], _SHOWN)
    note_some([f"a measuring process was replaced: {why}" for why in restarts], _SHOWN)
    if done.ended:
        note(f"{done.ended}: --resume continues")
    if not done.keys:
        why = next(iter([*skipped.values(), *restarts, done.ended]), "there was nothing to measure")
        raise NothingSelectedError(
            f"no key was measured: {why}", hint="see the messages above; --budget may be too small"
        )
    if wrong:
        first, why = next(iter(wrong.items()))
        raise VerificationError(
            f"{len(wrong)} calls disagree with float64, the first {first}: {why}",
            [],
            hint="kernels of these calls get no measured choice; report them with the record and the device",
        )
    submission = _record.submit(done.path) if submit else {}
    if not as_json:
        out_path(done.path)
        return
    emit_json(
        {
            "record": str(done.path),
            "target": task.target.name,
            "device": {"name": card.name, "driver": card.driver},
            "keys": done.keys,
            "missing": done.missing,
            "unsound": done.unsound,
            "out": done.out,
            "regret": {str(tokens): list(values) for tokens, values in done.regret.items()},
            "warning": card.warning(),
            "noise": done.noise,
            "skipped": skipped,
            "restarts": restarts,
            "ended": done.ended,
            "seconds": rounded(done.seconds),
            **submission,
        }
    )

"""Whether a tuning record may be contributed, as far as the record alone tells: neither provider nor card is asked.

A contribution is a tuning record, byte for byte. It must be of a release that is known here, of a card of its target,
measured as all records are, and its times must be those that `gdn_aot.records.objective` makes of a run and chooses by.
"""

from __future__ import annotations

import re
import statistics
from itertools import chain
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gdn_aot._text import printable, shown
from gdn_aot.catalogue.cards import target_of
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import BLACKWELL, assemblers, get_target
from gdn_aot.errors import Problem, UsageError
from gdn_aot.records.objective import DEFAULT, choose, rate
from gdn_aot.records.verdict import only_sound, samples_of
from gdn_aot.triton_internals import SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.records.tuning import MeasuredChoice, MeasuredKernel, TuningRecord

ROUNDS = 15
"""Rounds that ``gdn-aot tune`` makes unless it is told otherwise; fewer make no record for all."""
MOST_NOISE = 0.05
"""Largest median, over all times, of noise / time. It is 0.01 in the records of idle H100 and H200 cards; where it is
five times that, candidates within the default bound can no longer be told apart."""
LEAST_NOISE_US = 0.14
"""Least noise that `gdn_aot.records.objective.sample` returns, rounded as in records: what the clock cannot resolve."""
_PLAUSIBLE_US = 0.5, 10e6
"""Least and largest plausible time: the resolution of CUDA events, and ten seconds."""
_SCORE_ERROR = 0.01
"""By which score and worst ratio may differ from those of the rounded times; in the records that there are by 0.002."""
_SLOWER = 1.06
"""Largest ratio of a choice's score to the best one's: `choose` gives away at most 5 %, and times are rounded."""
_FALLS = 0.7
"""Least ratio of the choice's time at the most tokens to that at the fewest: more tokens are never less work."""
_TEXT = 500
"""Characters of a note or reason; the longest that there is, of an assembler, has 298."""
_TOOL = re.compile(r"gdn-aot [0-9][A-Za-z0-9.+]{0,39}")
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:|~)?[/\\]{1,2}(?:[\w.+@~ -]+[/\\])+([\w.+@~-]*)")
"""A path of a machine; its last name."""


def tidied(record: TuningRecord) -> TuningRecord:
    """Return a record whose reasons and notes name no path of the machine, are printable and not long."""

    def text(said: str) -> str:
        return printable(_PATH.sub(r"\1", said)[:_TEXT], "\n")[:_TEXT]

    def choice(one: MeasuredChoice) -> MeasuredChoice:
        rejected = tuple(replace(item, reason=text(item.reason)) for item in one.rejected)
        return replace(one, note=text(one.note), call=text(one.call), rejected=rejected)

    return replace(
        record, kernels=tuple(replace(one, choices=tuple(map(choice, one.choices))) for one in record.kernels)
    )


def problems(record: TuningRecord) -> Iterator[Problem]:
    """Yield why a record cannot be contributed; nothing if it can."""
    if record.proxy:
        yield Problem("proxy", "the card is of another target: proxies are measured by who looks after the records")
    yield from _release(record)
    yield from _device(record)
    yield from _method(record)
    if not any(kernel.choices for kernel in record.kernels):
        yield Problem("kernels", "hold no choice: nothing was measured")
    noise: list[float] = []
    for number, kernel in enumerate(record.kernels):
        for place, choice in enumerate(kernel.choices):
            where = f"kernels[{number}].choices[{place}]"
            yield from _choice(record, kernel, choice, where)
            noise += _noise(choice)
    if noise and (median := statistics.median(noise)) > MOST_NOISE:
        what = f"the median noise is {median:.1%} of the time, more than {MOST_NOISE:.0%}: measure on an idle card"
        yield Problem("kernels", what)
    yield from _texts(record)


def _release(record: TuningRecord) -> Iterator[Problem]:
    try:
        target = get_target(record.target)
    except UsageError as error:
        yield Problem("target", error.message)
        target = None
    provider, said = PROVIDERS.get(record.provider.name), record.provider
    if provider is None or provider.distribution != said.distribution:
        yield Problem("provider", f"{shown(said)} is no provider of this release")
    elif said.version not in {one.version for one in provider.versions}:
        known = ", ".join(one.version for one in provider.versions)
        yield Problem("provider.version", f"{shown(said.version)} is not known to this release; known are {known}")
    if not _supported(record.triton):
        low, high = (".".join(map(str, bound)) for bound in SUPPORTED)
        yield Problem("triton", f"{shown(record.triton)!r} is not supported, {low} to {high} are")
    release = next((row for row in assemblers()["release"] if row["triton"] == record.triton), None)
    if release is not None and target is not None:
        expected = release["ptxas_blackwell" if target.arch_number >= BLACKWELL else "ptxas"]
        if record.ptxas != expected:
            what = f"{shown(record.ptxas)} is not the assembler of Triton {record.triton}, which is {expected}"
            yield Problem("ptxas", what)
    if not _TOOL.fullmatch(record.tool):
        yield Problem("tool", f"{shown(record.tool)!r} is no version of gdn-aot")


def _supported(triton: str) -> bool:
    found = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})\.[0-9A-Za-z.+]{1,40}", triton)
    return found is not None and SUPPORTED[0] <= (int(found[1]), int(found[2])) <= SUPPORTED[1]


def _device(record: TuningRecord) -> Iterator[Problem]:
    device = record.device
    of = target_of(device.name)
    if of is not None and of != record.target:
        yield Problem("device.name", f"{shown(device.name)} is {of}, not {shown(record.target)}")
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,5}){1,3}", device.driver):
        yield Problem("device.driver", f"{shown(device.driver)!r} is no version of a driver")
    for name, value in (("sm_count", device.sm_count), ("memory", device.memory)):
        if not value:
            yield Problem(f"device.{name}", "is not said")


def _method(record: TuningRecord) -> Iterator[Problem]:
    method = record.method
    if method.rounds < ROUNDS:
        yield Problem("method.rounds", f"{method.rounds} are fewer than {ROUNDS}")
    if method.clock != "cuda events":
        yield Problem("method.clock", f"{shown(method.clock)!r} is not 'cuda events'")
    if not method.flush_bytes:
        yield Problem("method.flush_bytes", "is 0: the L2 cache may have held the inputs")
    if record.objective != DEFAULT:
        yield Problem("objective", "is not the default: choices of one record must be made alike")


def _choice(record: TuningRecord, kernel: MeasuredKernel, choice: MeasuredChoice, where: str) -> Iterator[Problem]:
    if strange := [tokens for tokens in _lengths(choice) if tokens not in DEFAULT.weights]:
        yield Problem(f"{where}.times", f"{strange[0]} tokens are none of {', '.join(map(str, DEFAULT.weights))}")
    if choice.unchecked:
        yield Problem(f"{where}.unchecked", "calls with it were not compared with float64: tune with --resume")
    if wrong := [*_implausible(choice, where)]:
        yield from wrong
        return
    first, last = choice.times[0].us[choice.chosen], choice.times[-1].us[choice.chosen]
    if first is not None and last is not None and last < _FALLS * first:
        longer, shorter = choice.times[-1].tokens, choice.times[0].tokens
        yield Problem(f"{where}.times", f"{longer} tokens take {last} us, and {shorter} tokens {first} us")
    yield from _verdict(record, kernel, choice, where)


def _implausible(choice: MeasuredChoice, where: str) -> Iterator[Problem]:
    low, high = _PLAUSIBLE_US
    for number, row in enumerate(choice.times):
        for index, (us, noise) in enumerate(zip(row.us, row.noise, strict=True)):
            if us is None or noise is None:
                continue
            if not low <= us <= high:
                yield Problem(f"{where}.times[{number}].us[{index}]", f"{us} microseconds are not plausible")
            if noise < LEAST_NOISE_US:
                what = f"{noise} is below {LEAST_NOISE_US} microseconds, which the clock cannot resolve"
                yield Problem(f"{where}.times[{number}].noise[{index}]", what)


def _verdict(record: TuningRecord, kernel: MeasuredKernel, choice: MeasuredChoice, where: str) -> Iterator[Problem]:
    """Yield where score and choice are not what the times come to."""
    count = len(kernel.candidates)
    samples = only_sound(samples_of(choice, count), choice.resources or (None,) * count)
    sizes = [()] * count
    rated = {one.index: one for one in rate(samples, sizes, record.objective)}
    best, mine = choose(samples, sizes, record.objective), rated.get(choice.chosen)
    if best is None or mine is None:
        yield Problem(f"{where}.chosen", "lacks a time at some length, or spills while others do not")
        return
    for name, found, said in (("score", mine.score, choice.score), ("worst", mine.worst, choice.worst)):
        if not abs(found - said) <= _SCORE_ERROR:
            yield Problem(f"{where}.{name}", f"is {said}, and the times come to {found:.4f}")
    for which, ours, theirs in (("on average", mine.score, best.score), ("at the worst", mine.worst, best.worst)):
        if choice.chosen not in best.tied and ours > _SLOWER * theirs:
            faster = kernel.candidates[best.chosen]
            what = f"by these times {faster} is better {which}: {theirs:.3f} to {ours:.3f} of the best"
            yield Problem(f"{where}.chosen", what)
            return


def _lengths(choice: MeasuredChoice) -> list[int]:
    return [*(row.tokens for row in choice.times), *choice.missing]


def _noise(choice: MeasuredChoice) -> Iterator[float]:
    for row in choice.times:
        for us, noise in zip(row.us, row.noise, strict=True):
            if us is not None and noise is not None:
                yield noise / us


def _texts(record: TuningRecord) -> Iterator[Problem]:
    """Yield texts that are not as `tidied` leaves them."""
    said = [(f"device.{name}", getattr(record.device, name)) for name in ("name", "driver")]
    for number, kernel in enumerate(record.kernels):
        said.append((f"kernels[{number}].kernel", kernel.kernel))
        for place, choice in enumerate(kernel.choices):
            where = f"kernels[{number}].choices[{place}]"
            said += [(f"{where}.note", choice.note), (f"{where}.call", choice.call)]
            reasons = (item.reason for item in choice.rejected)
            said += [(f"{where}.rejected[{at}].reason", reason) for at, reason in enumerate(reasons)]
    for where, text in said:
        if _PATH.search(text):
            yield Problem(where, "names a path of a machine")
        elif len(text) > _TEXT or printable(text, "\n") != text:
            yield Problem(where, f"is longer than {_TEXT} characters, or not printable")


def summary(record: TuningRecord) -> str:
    """Return what was measured on what, in a line."""
    keys = len([*chain.from_iterable(kernel.choices for kernel in record.kernels)])
    return (
        f"{record.target}, {keys} keys of {record.provider}, Triton {record.triton}, "
        f"on {record.device.name}, driver {record.device.driver}"
    )

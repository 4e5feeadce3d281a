"""Which part of a trace a shard gets."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdn_aot.building.split import Part, deal, parse_part, take
from gdn_aot.errors import UsageError
from gdn_aot.tracing.records import Config, Kernel, Launch, Trace, Tuning

CONFIG = Config((("BK", 64),), 4, 2)


def _kernel(number: int) -> Kernel:
    return Kernel("fla.ops", f"kernel{number}", "", "", (), (), ())


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """A few kernels, each with some autotune keys of one to three variants and some plain launches."""
    made = Trace(provider_version="1", triton_version="3", ptxas_version="12")
    for number in range(draw(st.integers(0, 4))):
        made.kernels.append(_kernel(number))
        for key in range(draw(st.integers(0, 9))):
            first = len(made.launches)
            count = draw(st.integers(1, 3))
            made.launches += [Launch(number, f"{key} {variant}", {}) for variant in range(count)]
            variants = [[first + variant] for variant in range(count)]
            made.tunings.append(Tuning(number, (key, "bf16"), [CONFIG], 0, variants, [{(0, 0)}] * count))
        for launch in range(draw(st.integers(0, 5))):
            made.plain[len(made.launches)] = {(0, 0)}
            made.launches.append(Launch(number, f"plain {launch}", {}))
    return made


def _named(trace: Trace, part: Part) -> set[tuple[str, str]]:
    """Return what a part has, by names that do not depend on the order of the trace."""
    found = take(trace, part)
    keys = {(trace.kernels[item.kernel].name, repr(item.key)) for item in found.tunings}
    return keys | {(trace.kernels[trace.launches[at].kernel].name, trace.launches[at].key) for at in found.plain}


@given(traces(), st.integers(1, 12))
def test_the_parts_are_a_partition(trace: Trace, of: int) -> None:
    parts = [take(trace, Part(number=number, of=of)) for number in range(1, of + 1)]
    assert sorted(map(id, trace.tunings)) == sorted(id(item) for part in parts for item in part.tunings)
    assert sorted(trace.plain) == sorted(launch for part in parts for launch in part.plain)
    for part in parts:
        assert part.launches is trace.launches
        assert part.kernels is trace.kernels
    if of == 1:
        assert parts == [trace]


@given(traces(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_deal_does_not_depend_on_the_numbering(trace: Trace, of: int, rng: random.Random) -> None:
    """As in the second trace, whose launches have other numbers because there are more candidates."""
    order = list(range(len(trace.launches)))
    rng.shuffle(order)
    new = {old: position for position, old in enumerate(order)}
    tunings = [
        replace(item, candidates=[CONFIG, CONFIG], derived=1, variants=[[new[v[0]]] * 2 for v in item.variants])
        for item in trace.tunings
    ]
    rng.shuffle(tunings)
    other = replace(
        trace,
        launches=[trace.launches[old] for old in order],
        tunings=tunings,
        plain={new[launch]: users for launch, users in reversed(trace.plain.items())},
    )
    for number in range(1, of + 1):
        assert _named(trace, Part(number=number, of=of)) == _named(other, Part(number=number, of=of))


@given(traces(), st.integers(2, 6))
def test_every_kernel_is_dealt_out_evenly(trace: Trace, of: int) -> None:
    keys, launches = deal(trace, of)
    for kernel in range(len(trace.kernels)):
        weights = Counter(dict.fromkeys(range(1, of + 1), 0))
        for index, part in keys.items():
            if trace.tunings[index].kernel == kernel:
                weights[part] += len(trace.tunings[index].variants)
        for launch, part in launches.items():
            if trace.launches[launch].kernel == kernel:
                weights[part] += 1
        assert max(weights.values()) - min(weights.values()) <= 3, "no key has more than three variants"


def test_what_is_left_over_goes_round() -> None:
    trace = Trace(provider_version="1", triton_version="3", ptxas_version="12")
    for number in range(6):
        trace.kernels.append(_kernel(number))
        trace.plain[number] = {(0, 0)}
        trace.launches.append(Launch(number, "only", {}))
    assert deal(trace, 3)[1] == {0: 1, 1: 2, 2: 3, 3: 1, 4: 2, 5: 3}
    assert set(deal(trace, 999_999)[1].values()) == set(range(1, 7))


@pytest.mark.parametrize(("text", "part"), [("1/1", (1, 1)), ("2/3", (2, 3)), ("03/012", (3, 12))])
def test_a_part_is_read(text: str, part: tuple[int, int]) -> None:
    assert parse_part(text) == Part(number=part[0], of=part[1])


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/4", "1 /3", "1/1000000", "\u0661/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not K/N with K from 1 to N"):
        parse_part(text)

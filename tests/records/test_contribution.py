"""What of a tuning record is judged before it may be contributed, without its provider."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from msgspec import UNSET
from msgspec.structs import replace
from tuning_records import plain, written

from gdn_aot.catalogue.cards import target_of
from gdn_aot.catalogue.targets import get_target
from gdn_aot.launches import SOUND_LOCAL
from gdn_aot.records import contribution
from gdn_aot.records import tuning as r

TUNING = ROOT / "artifacts/tuning"
RECORDS = sorted([*TUNING.glob("sm_*/*.json"), *TUNING.glob(f"{r.SECOND}/sm_*/*.json")])
PROXIES = sorted((TUNING / r.PROXY).glob("*/*.json"))
Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def sound() -> r.TuningRecord:
    """Return a record of one kernel and one key, as a card measured it."""
    found = r.load(ROOT / "artifacts/tuning/sm_90/vllm-0.24.0.json")
    assert found is not None
    kernel = found.kernels[0]
    return replace(found, kernels=(replace(kernel, choices=kernel.choices[:1]),))


def problems(record: r.TuningRecord) -> list[str]:
    return [str(problem) for problem in contribution.problems(record)]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.parts[-3:]))
def test_the_records_of_the_repository(path: Path) -> None:
    """Those that are contributed lie among them; each is also at its place."""
    target, (distribution, _, version) = path.parent.name, path.stem.rpartition("-")
    found = r.load(path, target=target, distribution=distribution, version=version)
    assert found is not None
    assert found.proxy is UNSET
    assert problems(found) == []
    assert contribution.tidied(found) == found
    assert r.FORM.dump(found) == path.read_bytes()


@pytest.mark.parametrize("path", PROXIES, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_records_of_the_repository_that_another_card_made(path: Path) -> None:
    """They are no contributions; each is at its place, says who stood in, and differs from one in nothing else."""
    target, (distribution, _, version) = path.parent.name, path.stem.rpartition("-")
    found = r.load(path, target=target, distribution=distribution, version=version)
    assert found is not None
    assert path == r.record_path(TUNING / r.PROXY, target, distribution, version)
    assert r.FORM.dump(found) == path.read_bytes()
    assert found.proxy
    assert target_of(found.device.name) == found.proxy.card != target
    limits, of = found.proxy.limits, get_target(target)
    assert all(getattr(limits, name) == getattr(of, name) for name in limits.__struct_fields__)
    assert contribution.tidied(found) == found
    assert {r.provenance(found)} == {choice.provenance for choice in r.table(found).values()} == {"proxy"}


def test_every_record_of_the_repository_is_of_a_card_or_by_proxy() -> None:
    assert PROXIES
    assert sorted(TUNING.rglob("*.json")) == sorted([*RECORDS, *PROXIES])


def test_what_is_said_of_a_record(sound: r.TuningRecord) -> None:
    assert problems(sound) == []
    assert contribution.summary(sound) == (
        "sm_90, 1 keys of vllm (vllm 0.24.0), Triton 3.6.0, on NVIDIA H200, driver 580.159.04"
    )


_PROXY = {
    "code": "sm_90",
    "card": "sm_90",
    "limits": {"shared_per_sm": 233472, "registers_per_sm": 65536, "threads_per_sm": 2048, "blocks_per_sm": 32},
}


def _choice(document: Any) -> Any:
    return document["kernels"][0]["choices"][0]


def _times(document: Any, of: str, change: Callable[[float], float], *, row: int = 0) -> None:
    values = _choice(document)["times"][row][of]
    values[:] = [None if value is None else round(change(value), 2) for value in values]


def _choose_the_slowest(document: Any) -> None:
    choice = _choice(document)
    sums = [
        sum(row["us"][index] or 0 for row in choice["times"]) * (taken is not None and taken[2] <= SOUND_LOCAL)
        for index, taken in enumerate(choice["resources"])
    ]
    choice["chosen"] = sums.index(max(sums))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it.update(target="sm_91"), "target: unknown target"),
        (lambda it: it.update(target="sm_80"), "device.name: NVIDIA H200 is sm_90, not sm_80"),
        (lambda it: it["provider"].update(name="fla"), "provider: fla (vllm 0.24.0) is no provider of this release"),
        (lambda it: it["provider"].update(version="0.24.1"), "provider.version: 0.24.1 is not known to this release"),
        (lambda it: it.update(triton="2.0.0"), "triton: "),
        (lambda it: it.update(triton="x"), "triton: "),
        (lambda it: it.update(ptxas="12.9.86"), "12.9.86 is not the assembler of Triton 3.6.0, which is 12.8.93"),
        (lambda it: it.update(tool="by hand"), "tool: 'by hand' is no version of gdn-aot"),
        (lambda it: it["device"].update(name="NVIDIA L4"), "device.name: NVIDIA L4 is sm_89, not sm_90"),
        (lambda it: it["device"].update(driver="new"), "device.driver: 'new' is no version of a driver"),
        (lambda it: it["device"].pop("sm_count"), "device.sm_count: is not said"),
        (lambda it: it["method"].update(rounds=3), "method.rounds: 3 are fewer than 15"),
        (lambda it: it["method"].update(clock="time.time"), "method.clock: 'time.time' is not 'cuda events'"),
        (lambda it: it["method"].update(flush_bytes=0), "method.flush_bytes: is 0"),
        (lambda it: it["objective"].update(bound=2.0), "objective: is not the default"),
        (lambda it: it.update(proxy=_PROXY, kernels=it.pop("kernels")), "proxy: the card is of another target"),
        (lambda it: it["kernels"].clear(), "kernels: hold no choice"),
        (lambda it: _choice(it).update(score=1.5), "score: is 1.5, and the times come to"),
        (lambda it: _choice(it).update(worst=1.5), "worst: is 1.5, and the times come to"),
        (_choose_the_slowest, "chosen: by these times"),
        (lambda it: _choice(it)["times"][0].update(tokens=63), "63 tokens are none of 64, 512"),
        (lambda it: _times(it, "us", lambda us: us / 1000), "microseconds are not plausible"),
        (lambda it: _times(it, "us", lambda _: 1e300), "1e+300 microseconds are not plausible"),
        (lambda it: _times(it, "noise", lambda _: 0.0), "0.0 is below 0.14 microseconds"),
        (lambda it: [_times(it, "noise", lambda noise: noise * 20, row=row) for row in range(5)], "measure on an idle"),
        (lambda it: _times(it, "us", lambda us: us / 1000, row=4), "32768 tokens take"),
        (lambda it: _choice(it).update(note="see /home/jane/record.json"), "note: names a path of a machine"),
        (lambda it: _choice(it).update(call=r"C:\Users\jane\x.py"), "call: names a path of a machine"),
        (lambda it: _choice(it).update(note="\x1b[31m"), "note: is longer than 500 characters, or not printable"),
        (lambda it: _choice(it).update(note="a" * 501), "note: is longer than 500 characters, or not printable"),
    ],
)  # fmt: skip
def test_what_is_refused(sound: r.TuningRecord, change: Change, said: str) -> None:
    document = plain(sound)
    change(document)
    found = problems(r.FORM.parse(written(document)))
    assert [problem for problem in found if said in problem], found


def test_calls_that_were_not_compared_with_float64(sound: r.TuningRecord) -> None:
    (kernel,) = sound.kernels
    unchecked = replace(kernel, choices=(replace(kernel.choices[0], unchecked=True),))
    (found,) = problems(replace(sound, kernels=(unchecked,)))
    assert found.startswith("kernels[0].choices[0].unchecked: calls with it were not compared with float64")


def test_paths_are_taken_out(sound: r.TuningRecord) -> None:
    (kernel,) = sound.kernels
    reason = (
        "error at ~/x/y.py:3, in /home/jane doe/.cache/a-1/k.ptx and C:\\Users\\jane\\k.ptx\nno 1/2 of it\x1b"
        + "a" * 500
    )
    rejected = (r.Rejected(candidate=len(kernel.candidates) - 1, tokens=None, reason=reason),)
    choice = replace(kernel.choices[0], chosen=0, rejected=rejected)
    made = contribution.tidied(replace(sound, kernels=(replace(kernel, choices=(choice,)),)))
    (item,) = made.kernels[0].choices[0].rejected
    assert item.reason.startswith("error at y.py:3, in k.ptx and k.ptx\nno 1/2 of it\\x1baaa")
    assert len(item.reason) == 500
    assert not [problem for problem in problems(made) if "path" in problem or "characters" in problem]

"""The choice that recorded times come to: sound candidates first, and the same as tuning makes."""

from pathlib import Path

import pytest
from helpers import ROOT
from msgspec.structs import replace

from gdn_aot.launches import SOUND_LOCAL, Config
from gdn_aot.records import tuning
from gdn_aot.records.objective import DEFAULT, Sample
from gdn_aot.records.tuning import Footprint
from gdn_aot.records.verdict import chosen_again, decide, derives, only_sound

CONFIGS = [Config(kwargs=(("BK", size),), num_warps=4, num_stages=1) for size in (16, 32, 64)]
RECORDS = sorted((ROOT / "artifacts/tuning").rglob("*.json"))


def _taken(*local: int) -> list[Footprint]:
    return [Footprint(registers=64, shared=0, local=one, size=1000) for one in local]


def _samples(*us: float | None) -> dict[int, list[Sample | None]]:
    row = [None if one is None else Sample(one, 0.1) for one in us]
    return {512: row, 2048: list(row)}


def test_what_spills_is_not_chosen_where_something_sound_was_timed() -> None:
    verdict = decide(_samples(200, 150, 100), _taken(0, SOUND_LOCAL, SOUND_LOCAL + 8), CONFIGS, DEFAULT)
    assert verdict is not None
    assert (verdict.chosen, verdict.score, verdict.ranking) == (1, 1.0, (1, 0))


def test_a_build_derives_another_where_the_choice_spills() -> None:
    record = tuning.FORM.parse((ROOT / "artifacts/tuning/second/sm_90/fla-core-0.6.0.json").read_bytes(), name="")
    assert not any(derives(one) for kernel in record.kernels for one in kernel.choices)
    choice = record.kernels[0].choices[0]
    assert not derives(choice)
    assert not derives(replace(choice, resources=None))
    assert derives(replace(choice, resources=tuple(_taken(*(SOUND_LOCAL + 8 for _ in record.kernels[0].candidates)))))


def test_where_nothing_sound_was_timed_in_full_the_rest_counts() -> None:
    samples = _samples(None, 150, 100)
    assert only_sound(samples, _taken(0, 500, 500)) == samples
    verdict = decide(samples, _taken(0, 500, 500), CONFIGS, DEFAULT)
    assert verdict is not None
    assert verdict.chosen == 2


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.relative_to(ROOT / "artifacts/tuning")))
def test_choices_of_the_records_are_those_of_todays_rule(path: Path) -> None:
    record = tuning.FORM.parse(path.read_bytes(), name=str(path))
    for kernel in record.kernels:
        for choice in kernel.choices:
            assert chosen_again(kernel, choice, record.objective) == choice
            assert choice.resources is not None
            taken = choice.resources[choice.chosen]
            assert taken is not None
            sound = [place for place, one in enumerate(choice.resources) if one and one.local <= SOUND_LOCAL]
            timed = [place for place in sound if all(row.us[place] is not None for row in choice.times)]
            assert taken.local <= SOUND_LOCAL or not timed

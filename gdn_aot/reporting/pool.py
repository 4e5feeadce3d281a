"""What the page's script draws: every text, and the times of every key, once, however many artifacts share them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdn_aot.records.objective import rate
from gdn_aot.records.tuning import origin
from gdn_aot.records.verdict import is_sound, only_sound, samples_of
from gdn_aot.reporting.html import e
from gdn_aot.reporting.keys import key_text, why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.launches import Config
    from gdn_aot.records.objective import Rated
    from gdn_aot.records.tuning import MeasuredChoice, MeasuredKernel, TuningRecord
    from gdn_aot.reporting.html import Html

CHOSEN, SPILLS, DERIVED, UNHELD = 1, 2, 4, 8
"""Flags of a candidate: the record's choice; more local memory than a build ships where another has less; none of the
provider's own; by proxy, fewer blocks on an SM than the target has."""
MOST = 1e6
"""A ratio that no measurement has."""
_WORTH_A_LINK = 500
"""Characters of a part of the page from which a link to the same part is shorter by enough."""
_TIME, _NOISE = 4, 2
"""Digits of a time and of its noise; of larger numbers those before the point stay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """The times of one key, and what they say of each candidate."""

    number: int
    """Place in the page's list."""
    tokens: tuple[int, ...]
    rated: dict[Config, Rated]
    """Of the candidates that are eligible at every length, and sound if any such one is."""


class Pool:
    """Collects what the script is given."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}
        self._timings: list[dict[str, Any]] = []
        self._known: dict[tuple[int, str, str], Timing] = {}
        self._records: list[TuningRecord] = []
        self._groups: list[dict[str, Any]] = []
        self._drawn: dict[str, int] = {}
        self._parts: dict[Html, tuple[str, str]] = {}

    def text(self, text: object) -> int:
        """Return the number of a text."""
        return self._texts.setdefault(str(text), len(self._texts))

    def group(self, kind: str, **content: Any) -> int:
        """Add what is drawn together, when its part of the page is opened, if it is not there; return its number."""
        group = {"kind": kind, **content}
        number = self._drawn.setdefault(json.dumps(group), len(self._groups))
        if number == len(self._groups):
            self._groups.append(group)
        return number

    def once(self, part: Html, place: str, title: str) -> Html:
        """Return a part of the page, or a link to the first place that has the same part.

        Args:
            part: What several artifacts may have alike.
            place: The id of the element that it is put into.
            title: Of the artifact.
        """
        if len(part) < _WORTH_A_LINK:
            return part
        first, whose = self._parts.setdefault(part, (place, title))
        return part if first == place else e("p", "The same as for ", e("a", whose, href=f"#{first}"), ".")

    def timing(self, record: TuningRecord, kernel: MeasuredKernel, choice: MeasuredChoice) -> Timing:
        """Return the times that a record has of a key."""
        if not any(record is one for one in self._records):
            self._records.append(record)  # so that its id stays its own
        place = (id(record), kernel.kernel, repr(choice.key))
        if place not in self._known:
            self._known[place] = self._timing(record, kernel, choice)
        return self._known[place]

    def _timing(self, record: TuningRecord, kernel: MeasuredKernel, choice: MeasuredChoice) -> Timing:
        count = len(kernel.candidates)
        taken = choice.resources or (None,) * count
        try:
            rated = rate(only_sound(samples_of(choice, count), taken), [()] * count, record.objective)
        except OverflowError:  # of times that no card takes
            rated = []
        order = {one.index: place for place, one in enumerate(sorted(rated, key=lambda one: (one.score, one.index)))}
        reasons = {item.candidate: item for item in reversed(choice.rejected)}
        rows = []
        for index in sorted(range(count), key=lambda index: (order.get(index, count), index)):
            us = [row.us[index] for row in choice.times]
            rejected = reasons.get(index)
            if rejected is None and all(value is None for value in us):
                continue
            footprint = taken[index]
            flags = CHOSEN * (index == choice.chosen) + SPILLS * (not is_sound(footprint))
            flags += DERIVED * (index >= kernel.offered) + UNHELD * (index in choice.unheld)
            score = next((one.score for one in rated if one.index == index), None)
            rows.append([
                self.text(kernel.candidates[index]),
                flags,
                None if score is None else parts([score])[0] + 1000,
                [short(value, _TIME) for value in us],
                [short(row.noise[index], _NOISE) for row in choice.times],
                [footprint.registers, footprint.shared, footprint.local] if footprint else None,
                self.text(rejected.reason) if rejected else None,
            ])  # fmt: skip
        tokens = tuple(row.tokens for row in choice.times)
        entry = {
            "of": self.text(kernel.kernel), "key": self.text(key_text(kernel.kernel, choice.key)), "tokens": tokens,
            "note": self.text(why(kernel.kernel, choice.key, None, choice.note)), "call": self.text(choice.call),
            "where": self.text(f"{record.target}: {origin(record)}, Triton {record.triton}, {record.provider}"),
            "rows": rows, "missing": choice.missing,
        }  # fmt: skip
        self._timings.append(entry)
        configs = {kernel.candidates[one.index]: one for one in rated}
        return Timing(number=len(self._timings) - 1, tokens=tokens, rated=configs)

    def document(self) -> str:
        """Return all of it as JSON that no browser takes for markup, whatever the texts hold."""
        whole = {"texts": list(self._texts), "timings": self._timings, "groups": self._groups}
        text = json.dumps(whole, separators=(",", ":"), ensure_ascii=True)
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def short(value: float | None, digits: int) -> float | int | None:
    """Return a number with as many digits as count."""
    if value is None:
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def parts(ratios: Sequence[float]) -> list[int]:
    """Return how much more than 1 ratios are, in thousandths, or a million times."""
    return [round(1000 * (min(ratio, MOST) - 1)) for ratio in ratios]

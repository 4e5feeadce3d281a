"""The choices of kernels: which configuration each key has and why, with the times that it was chosen by."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdn_aot.reporting import facts
from gdn_aot.reporting.html import Html, e, unique
from gdn_aot.reporting.keys import Users, key_text, why
from gdn_aot.reporting.pool import parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gdn_aot.artifact.manifest import Choice, Manifest, PackedKernel
    from gdn_aot.choosing.transfer import Found, Transfer
    from gdn_aot.records.objective import Rated
    from gdn_aot.records.tuning import TuningRecord
    from gdn_aot.reporting.html import Content
    from gdn_aot.reporting.pool import Pool, Timing

PROVENANCES = {
    "measured": ("M", "on a card of this target"),
    "proxy": ("P", "with this target's code, on a card of another"),
    "captured": ("C", "chosen by a recorded deployment"),
    "transferred": ("T", "from a measurement for another target, key or release"),
    "default": ("D", "the first of the provider's own candidates that fits"),
}
"""Provenance -> its letter and where such a choice comes from, the surest first."""


_LONGEST = 100
"""Characters of a kernel's name in a link."""


@dataclass(kw_only=True, slots=True)
class Chosen:
    """The rows of one kernel, as the script lists them, and what they come to."""

    name: str
    """``module:qualname``."""
    rows: list[list[Any]]
    provenances: Counter[str]
    scores: list[float]
    """Regret of each choice that has times of its own key and target, weighted over the lengths."""
    worst: list[float]
    """The largest regret of each of them at one length."""

    def group(self, pool: Pool) -> int:
        """Hand the rows to the script."""
        return pool.group("choices", of=pool.text(self.name), rows=self.rows)

    def regret(self) -> Content:
        """Return median and maximum of the regret of the choices that have times of their own key."""
        left = self.provenances.total() - len(self.scores)
        if not self.scores:
            return "regret not known: no times of these keys"
        out = f"; without {left} that have no times of their own" if left else ""
        return f"regret {percent(statistics.median(self.scores))} median, {percent(max(self.worst))} maximum{out}"


def of_artifact(manifest: Manifest, transfer: Transfer | None, pool: Pool) -> list[Chosen]:
    """Return the choices of an artifact's kernels, with the times of the records that they are from."""
    found = []
    for kernel in manifest.kernels:
        if not kernel.choices:
            continue
        chosen = Chosen(name=kernel.name, rows=[], provenances=Counter(), scores=[], worst=[])
        users = Users(kernel, manifest)
        for choice in kernel.choices:
            source = _source(transfer, kernel, choice) if transfer else None
            timing = pool.timing(source.record, source.kernel, source.choice) if source else None
            measured = source.choice.key if source else None
            own = source is not None and source.own and source.exact
            rated = timing.rated.get(choice.config) if timing and own else None
            _add(chosen, choice.provenance, rated)
            chosen.rows.append([
                pool.text(key_text(kernel.name, choice.key)), pool.text(choice.config), _place(choice.provenance),
                choice.derived, pool.text(why(kernel.name, choice.key, measured, choice.note)),
                *_drawn(timing, rated), not own, _expected(choice, manifest, pool), pool.text(users.of(choice.key)),
            ])  # fmt: skip
        found.append(chosen)
    return found


def of_record(record: TuningRecord, pool: Pool) -> list[Chosen]:
    """Return the choices that a tuning record came to."""
    provenance = "proxy" if record.proxy else "measured"
    found = []
    for kernel in record.kernels:
        if not kernel.choices:
            continue
        chosen = Chosen(name=kernel.kernel, rows=[], provenances=Counter(), scores=[], worst=[])
        for choice in kernel.choices:
            timing, config = pool.timing(record, kernel, choice), kernel.candidates[choice.chosen]
            rated = timing.rated.get(config)
            _add(chosen, provenance, rated)
            chosen.rows.append([
                pool.text(key_text(kernel.kernel, choice.key)), pool.text(config), _place(provenance),
                choice.chosen >= kernel.offered, pool.text(why(kernel.kernel, choice.key, None, choice.note)),
                *_drawn(timing, rated), False, None, None,
            ])  # fmt: skip
        found.append(chosen)
    return found


def _source(transfer: Transfer, kernel: PackedKernel, choice: Choice) -> Found | None:
    """Return the times that belong to a choice: those that it was transferred from, or its target's own of this key.

    Only the target's own times of this key say how far from the best the choice is.
    """
    found = transfer.find(kernel.name, choice.key, kernel.digest)
    if found is None or (choice.provenance != "transferred" and not (found.own and found.exact)):
        return None
    return found


def _expected(choice: Choice, manifest: Manifest, pool: Pool) -> int | None:
    """Return the text of the error that is expected of a transferred choice."""
    if choice.provenance != "transferred":
        return None
    error = facts.error_of(choice, manifest)
    return pool.text(f"{percent(error.median)} median, {percent(error.p90)} 90th percentile" if error else "not known")


def _add(chosen: Chosen, provenance: str, rated: Rated | None) -> None:
    chosen.provenances[provenance] += 1
    if rated is not None:
        chosen.scores.append(rated.score - 1)
        chosen.worst.append(max(rated.ratios.values()) - 1)


def _drawn(timing: Timing | None, rated: Rated | None) -> tuple[int | None, list[int] | None]:
    """Return the number of the times, and the regret at each of their lengths."""
    if timing is None:
        return None, None
    return timing.number, parts([rated.ratios[tokens] for tokens in timing.tokens]) if rated else None


def _place(provenance: str) -> int:
    return list(PROVENANCES).index(provenance)


def percent(part: float) -> str:
    """Return a part in percent, with one digit after the point."""
    return f"{100 * part:.1f} %"


def chips(counts: Mapping[str, int] | Counter[str]) -> Html:
    """Return how many choices come from where: a letter and a number each, in words for who cannot see them."""
    known = [(name, counts[name]) for name in PROVENANCES if counts.get(name)]
    return e("span", [_chip(name, count) for name, count in known], class_="chips")


def _chip(name: str, count: int) -> Html:
    letter = e("abbr", PROVENANCES[name][0], title=name, aria_hidden="true")
    return e("span", letter, f" {count} ", e("span", name, class_="vh"), class_=f"chip {name}")


def ids(kernels: Sequence[str], part: str) -> dict[str, str]:
    """Return what links to kernels name: ``kernel-PART-QUALNAME``, with a number if two have one name.

    Args:
        kernels: Their names, ``module:qualname``.
        part: What the part of the page that has them is called.
    """
    names = unique([re.sub(r"[^A-Za-z0-9_]+", "-", kernel.partition(":")[2])[:_LONGEST] for kernel in kernels])
    return {
        kernel: f"kernel-{part}-{name.replace(' (', '-').rstrip(')')}"
        for kernel, name in zip(kernels, names, strict=True)
    }


def details(chosen: Iterable[Chosen], pool: Pool, level: int, named: Mapping[str, str]) -> Html:
    """Return a part for each kernel that the script fills when it is opened; ``named`` are their `ids`."""
    return Html("".join(_kernel(one, one.group(pool), level, named[one.name]) for one in chosen))


def _kernel(chosen: Chosen, group: int, level: int, name_of_link: str) -> Html:
    module, _, name = chosen.name.partition(":")
    total = chosen.provenances.total()
    head = e("summary",
        e(f"h{level}", name, e("span", module, class_="module")),
        e("span", f"{total} {'key' if total == 1 else 'keys'}", class_="count"),
        chips(chosen.provenances),
        e("span", chosen.regret(), class_="regret"),
    )  # fmt: skip
    return e("details", head, e("div", class_="drawn"), class_="kernel", id=name_of_link, data_group=group)

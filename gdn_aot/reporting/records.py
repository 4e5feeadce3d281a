"""What the page says of records: of tuning, and of numeric checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot.reporting import choices
from gdn_aot.reporting.html import Html, e, facts, table

if TYPE_CHECKING:
    from gdn_aot.records.numerics import Check, NumericsRecord, Worst
    from gdn_aot.records.tuning import TuningRecord
    from gdn_aot.reporting.pool import Pool


def drawn(title: str, group: int, level: int) -> Html:
    """Return a part that the script draws when it is opened."""
    head = e("summary", e(f"h{level}", title))
    return e("details", head, e("div", class_="drawn"), class_="plotted", data_group=group)


def tuning_title(record: TuningRecord) -> str:
    """Return what a tuning record is called."""
    return f"{'Record by proxy' if record.proxy else 'Tuning record'} of {record.target}, {record.provider}"


def tuning(record: TuningRecord, title: str, number: int, pool: Pool) -> Html:
    """Return what the page says of one tuning record."""
    device, method, goal, name = record.device, record.method, record.objective, f"record-{number}"
    weights = ", ".join(f"{tokens}: {weight:g}" for tokens, weight in goal.weights.items())
    stood = f"PTX of {record.proxy.code} on {record.proxy.card}" if record.proxy else ""
    listed = facts((
        ("Card", f"{device.name}, driver {device.driver}"),
        ("By proxy", stood),
        ("Triton", f"{record.triton}, ptxas {record.ptxas}"),
        ("Method", f"median of {method.rounds} rounds by {method.clock}, each after {method.flush_bytes:,} bytes"),
        ("Objective", f"weights by tokens {weights}; at most {goal.bound:g} times the best"),
        ("Measured by", record.tool),
    ))  # fmt: skip
    named = choices.ids([kernel.kernel for kernel in record.kernels], name)
    kernels = choices.details(choices.of_record(record, pool), pool, 3, named)
    return e("section", e("h2", title, id=f"{name}-title"), listed, kernels, id=name, aria_labelledby=f"{name}-title")


def numerics_title(record: NumericsRecord) -> str:
    """Return what a record of checks is called."""
    return f"Numeric checks of {record.target}, {record.provider}"


def numerics(record: NumericsRecord, title: str, number: int, pool: Pool) -> Html:
    """Return what the page says of one record of checks that was given itself."""
    name, said = f"record-{number}", facts((("Status", record.status),))
    return e(
        "section",
        e("h2", title, id=f"{name}-title"),
        said,
        checks(record, pool, 3),
        id=name,
        aria_labelledby=f"{name}-title",
    )


def checks(record: NumericsRecord, pool: Pool, level: int) -> Html:
    """Return what was compared with float64, and how near to its limit it came."""
    where = f"{record.device.name}, driver {record.device.driver}" if record.device else "no card"
    listed = facts((
        ("Record", f"{record.how} on {where}, {record.date or 'no date'}"),
        ("Compiled with", f"Triton {record.triton}, ptxas {record.ptxas}"),
    ))  # fmt: skip
    rows, points = [], []
    for check in record.checks:
        worst = max(check.worst, key=_share, default=None)
        rows.append((
            check.workload, check.model, check.tp, check.dtype, check.calls, _said(worst),
            worst.result if worst else "", len(check.failed), len(check.skipped),
        ))  # fmt: skip
        points += [
            [pool.text(check.workload), pool.text(f"{check.model} tp {check.tp} {check.dtype}"), pool.text(one.result),
             one.error, one.limit, pool.text(one.call)]
            for one in check.worst
        ]  # fmt: skip
    headers = ("Workload", "Model", "TP", "Type", "Calls", "Largest error / limit", "Result", "Failed", "Not made")
    shown = table("Calls compared with float64", headers, rows, numeric=(2, 4, 5, 7, 8))
    plot = drawn("Plot of errors and limits", pool.group("numerics", rows=points), level)
    return Html("".join((listed, shown, plot if points else "", *(_problems(check, level) for check in record.checks))))


def _share(worst: Worst) -> float:
    return worst.error / worst.limit if worst.error is not None and worst.limit else float("inf")


def _said(worst: Worst | None) -> str:
    if worst is None:
        return ""
    return "not a number" if worst.error is None else f"{100 * _share(worst):.0f} %"


def _problems(check: Check, level: int) -> Html:
    """Return the calls that failed or were not made."""
    rows = [(one.call, "failed", one.why) for one in check.failed]
    rows += [(one.call, "not made", one.why) for one in check.skipped]
    if not rows:
        return Html("")
    of = f"{check.workload}, {check.model} tp {check.tp} {check.dtype}"
    said = f"{plural(len(rows), 'call')} of {of}, failed or not made"
    return e("details", e("summary", e(f"h{level}", said)), table(said, ("Call", "Result", "Why"), rows))

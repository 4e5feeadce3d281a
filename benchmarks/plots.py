"""Draw the pictures of the README and of ``docs/explanation/choices.md`` from the results.

Needs matplotlib: ``pip install -e '.[benchmark]'``.

python benchmarks/plots.py      results/cold_start.json, kernels.json, regret.json -> results/*.svg
"""

from __future__ import annotations

import statistics
from typing import Any

import matplotlib as mpl
from cold_start.report import TITLES
from harness import RESULTS, load
from kernels.report import COLUMNS, by_tokens, ratio, total
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator
from regret.figures import SHORTEST

CALLS = {
    "dense": ("one prompt (dense)", "#2f7fd6", -0.17),
    "varlen": ("three packed prompts (varlen)", "#d9731a", 0.17),
}
"""Call -> legend, colour, and where in its row."""
LINES = {
    "fla_tuned": "#a066d3",
    "pick64": "#d9731a",
    "shipped": "#2f7fd6",
    "wide_best": "#2e9e5b",
    "floor": "#8b949e",
}
"""Column -> colour."""
CHOICES = {
    "default": "#8b949e",
    "64 tokens": "#d9731a",
    "transferred": "#a066d3",
    "proxy": "#2f7fd6",
    "measured": "#2e9e5b",
}
"""Choice -> colour, the worst first."""
_APART = 0.085
"""Distance of the numbers at the ends of lines."""
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gdn-aot",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": "#d0d7de",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#eaeef2",
    "legend.frameon": False,
    "figure.titlesize": 11,
}


def cold_start(document: dict[str, Any]) -> Any:
    """Return the figure of the time to the first result of each state, on a logarithmic axis."""
    states = [(TITLES[case], calls) for case, calls in document["summary"].items()]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(states) + 1.4), layout="constrained")
    for call, (label, colour, offset) in CALLS.items():
        found = [(row + offset, calls[call]["first_ms"]) for row, (_, calls) in enumerate(states) if call in calls]
        rows = [row for row, _ in found]
        axes.hlines(rows, [one["low"] for _, one in found], [one["high"] for _, one in found], colour, lw=2)
        axes.plot([one["median"] for _, one in found], rows, "o", color=colour, ms=5, label=label)
        for row, one in found:
            axes.annotate(_shown(one["median"]), (one["high"], row), (7, 0), textcoords="offset points", va="center")
    axes.set(xscale="log")
    axes.xaxis.set_major_formatter(lambda value, _: _shown(value))
    axes.set_yticks(range(len(states)), [title for title, _ in states])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.1)
    axes.legend(loc="lower right", title="median, and range over processes")
    _title(figure, "Time to the first result after imports: 4096 tokens, Qwen3.5-9B, fresh processes", document)
    return figure


def _shown(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g} s"
    return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"


def kernels(document: dict[str, Any]) -> Any:
    """Return the figure of how much longer each choice takes than the best of FLA's own candidates, by tokens."""
    shapes = document["shapes"]
    figure, panels = plt.subplots(-(-len(shapes) // 2), 2, figsize=(9, 6.8), sharey=True, layout="constrained")
    for axes, (name, shape) in zip(panels.flat, shapes.items(), strict=False):
        sums = {tokens: total(entries) for tokens, entries in by_tokens(shape).items()}
        ends = []
        for column, colour in LINES.items():
            found = {tokens: ratio(row, column, "provider_best") for tokens, row in sums.items()}
            line = {tokens: value for tokens, value in found.items() if value is not None}
            axes.plot(list(line), list(line.values()), "o-", color=colour, ms=4, lw=1.6, label=COLUMNS[column])
            ends += [(line[max(line)], max(line), colour)] if line else []
        above = 0.0
        for value, tokens, colour in sorted(ends):  # moved apart where they would overlap
            above = max(value, above + _APART)
            axes.annotate(
                f"{value:.2f}", (tokens, above), (7, 0), textcoords="offset points", va="center", color=colour
            )
        axes.axhline(1, color="#8b949e", lw=1, zorder=1)
        axes.set(title=name, xscale="log", xlabel="tokens")
        axes.xaxis.set(major_locator=FixedLocator(list(sums)), minor_locator=NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    for axes in panels.flat[len(shapes) :]:
        axes.set_visible(False)
    panels.flat[0].set_ylim(bottom=0)
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LINES))
    _title(
        figure, "GPU time of the GDN prefill kernels, relative to the best of FLA's candidates at each length", document
    )
    return figure


def regret(document: dict[str, Any]) -> Any:
    """Return the figure of how much longer one prompt takes by each choice, by target: median and range."""
    targets = document["targets"]
    figure, axes = plt.subplots(figsize=(9, 0.75 * len(targets) + 1.6), layout="constrained")
    for place, (choice, colour) in enumerate(CHOICES.items()):
        label: str | None = choice
        for row, target in enumerate(targets):
            models = (model["regret"].get(choice, {}) for model in target["forward"].values())
            values = [100 * value for one in models for length, value in one.items() if int(length) >= SHORTEST]
            if values:
                height = row + 0.15 * (place - len(CHOICES) // 2)
                axes.hlines(height, min(values), max(values), colour, lw=2)
                axes.plot([statistics.median(values)], [height], "o", color=colour, ms=5, label=label)
                label = None
    axes.set(xscale="symlog", xlabel="per cent slower than the best candidate for each length")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.set_yticks(range(len(targets)), [f"{one['target']}, {one['provider']} ({one['own']})" for one in targets])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=len(CHOICES))
    figure.suptitle(
        f"GPU time of the autotuned kernels of one prompt of {SHORTEST} tokens and more, by choice: median and range\n"
        "over lengths and the models of the catalogue"
    )
    return figure


def _title(figure: Any, text: str, document: dict[str, Any]) -> None:
    machine = document["machine"]
    device = ", driver ".join(filter(None, (machine["device"], machine.get("driver"))))
    versions = f"torch {machine['torch']}, Triton {machine['triton']}, fla-core {machine['fla-core']}"
    figure.suptitle(f"{text}\n{device}; {versions}")


def main() -> None:
    """Draw all."""
    with mpl.rc_context(STYLE):
        for draw in (cold_start, kernels, regret):
            figure = draw(load(RESULTS / f"{draw.__name__}.json"))
            figure.savefig(RESULTS / f"{draw.__name__}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

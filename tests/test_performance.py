"""Figures of the performance page are those of the results, and every section says how they were made."""

import importlib
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import pytest
from helpers import ROOT

from gdn_aot.cli.main import COMMANDS

sys.path.insert(0, str(ROOT / "benchmarks"))
total = importlib.import_module("kernels.report").total
PAGE = ROOT / "docs/explanation/performance.md"
NUMBER = re.compile(r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
RESULT = re.compile(r"\]\(../../((?:benchmarks/results|artifacts)/[\w./-]+)\)")
MIB = 1 << 20


def result(name: str) -> Any:
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text(encoding="utf-8"))


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """The parts of the page below a heading, by its words."""
    titled = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(titled[::2], titled[1::2], strict=True))


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the rows of the only table of a section, without its head."""
    lines = [line for line in sections(text)[title].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text)


def is_rounded(shown: str, value: float) -> bool:
    """Is what is shown this value, rounded to as many decimals?"""
    plain = shown.replace(",", "")
    decimals = len(plain.partition(".")[2])
    return f"{value:.{decimals}f}" == plain


def compare(cell: str, values: Sequence[float], where: object) -> None:
    found = numbers(cell)
    assert len(found) == len(values), (where, cell, values)
    wrong = [(shown, value) for shown, value in zip(found, values, strict=True) if not is_rounded(shown, value)]
    assert wrong == [], (where, cell)


def serving(text: str) -> None:
    document = result("cold_start")
    summary = document["summary"]

    def median(case: str, call: str, what: str = "first_ms") -> float:
        return float(summary[case][call][what]["median"])

    def steady(call: str) -> float:
        records = [record[call] for record in document["records"] if isinstance(record.get(call), dict)]
        return statistics.median(record["steady_ms"] for record in records if "steady_ms" in record)

    found = rows(text, "Serving")
    (a, *others), measured = found[:-2], ("b", "c", "d", "e", "nocc", "preload", "preload-pool")
    for cell, call in zip(a[1:3], ("dense", "then"), strict=True):
        compare(cell, [median("a-first", call) / 1000], a)
    for cell, what in zip(a[3:], ("compiled", "benchmarked"), strict=True):
        compare(cell, [sum(median("a-first", call, what) for call in ("dense", "then"))], a)
    for row, case in zip(others, measured, strict=True):
        for cell, call in zip(row[1:3], ("dense", "varlen"), strict=True):
            compare(cell, [median(case, call)], row)
        for cell, what in zip(row[3:], ("compiled", "benchmarked"), strict=True):
            compare(cell, [sum(median(case, call, what) for call in ("dense", "varlen"))], row)
    compare(others[2][0].partition("(")[2].partition("(")[2], [median("d-first", "dense") / 1000], others[2])
    floor, last = found[-2:]
    compare(" ".join(floor[1:]), [median("f", "dense"), median("f", "varlen")], floor)
    compare(" ".join(last[1:]), [steady("dense"), steady("varlen")], last)


def in_vllm(text: str) -> None:
    document = result("vllm_gdn")
    cases = [document["summary"][case] | {"requests": document["records"][case]["requests"]} for case in "bcde"]
    found = rows(text, "In vLLM")
    values: list[Callable[[Any], list[float]]] = [
        lambda case: [case["gdn_compiled"], case["gdn_benchmarks"]],
        lambda case: [case["warm_up_seconds"]],
        lambda case: [case["ready_seconds"]],
        lambda case: [case["kv_bytes"] / MIB],
        lambda case: [case["kv_blocks"]],
        lambda case: [case["free_after_mib"]],
        lambda case: [case["tuned_us_per_layer"]["8192"]],
        lambda case: [case["tuned_us_per_layer"]["2048"]],
        lambda case: [sum(one["compiled_gdn"] + one["compiled_other"] for one in case["requests"])],
        lambda case: [next(iter(case["first_token_ms"].values())) / 1000],
    ]
    for row, wanted in zip(found, values, strict=False):
        for cell, case in zip(row[1:], cases, strict=True):
            compare(cell, wanted(case), row)
    first, later = found[len(values) :]
    for cell, case in zip(first[1:], cases, strict=True):
        unit = 1000 if cell.endswith(" s") else 1
        compare(cell, [case["first_token_ms"][tokens] / unit for tokens in ("46", "1000", "8000")], first)
    for cell, case in zip(later[1:], cases, strict=True):
        compare(cell, [min(case["steady_ms"].values()), max(case["steady_ms"].values())], later)


def kernels(text: str) -> None:
    shapes = result("kernels")["shapes"]
    wanted = [
        (tokens, total(entry["kernels"]), entry["kernels"])
        for shape in ("qwen3.5-9b tp 1", "qwen3.5-27b tp 1", "qwen3.5-9b tp 4")
        for tokens, entry in shapes[shape]["tokens"].items()
    ]
    for row, (tokens, sums, each) in zip(rows(text, "Kernels"), wanted, strict=True):
        assert row[1] == tokens
        shipped = float(numbers(row[3])[0])
        if r"(\*)" in row[3]:  # a part is from the tuning record
            assert shipped > sum(kernel["shipped"]["us"] for kernel in each.values() if kernel["shipped"])
        else:
            compare(row[3], [sums["shipped"]], row)
            shipped = sums["shipped"]
        for cell, column in zip([row[2], *row[4:7]], ("pick64", "provider_best", "wide_best", "floor"), strict=True):
            compare(cell, [sums[column]], row)
        assert abs(float(row[7]) - sums["pick64"] / shipped) < 0.006, row
        assert abs(float(row[8]) - shipped / sums["provider_best"]) < 0.001, row


def fetching(text: str) -> None:
    found = result("fetch")
    repeated = {name: entry["median"] for name, entry in found["repeated_ms"].items()}
    first = {name: entry["median"] for name, entry in found["first_ms"].items()}
    near = [value for name, value in repeated.items() if name not in ("python", "hub, branch")]
    bare, whole, again, branch = rows(text, "Fetching")
    compare(bare[1], [first["download"]], bare)
    compare(whole[1], [first["fetch"], 1.5, 100, 1.5 * first["download"] + 100], whole)
    compare(again[1], [min(near), max(near)], again)
    compare(branch[1], [repeated["hub, branch"]], branch)


def building(text: str) -> None:
    build, sizes, start = result("build"), result("sizes"), result("start")["runs"][-1]["ms"]
    bytes_of, one, everything = sizes["one_model"]["bytes"], build["one"], sizes["all_models"]
    newer = [bytes_of[f"sm_{number}"] / 1000 for number in (80, 86, 89, 90)]
    newest = [bytes_of[f"sm_{number}"] / 1000 for number in (100, 103, 120, 121)]
    old = [bytes_of["sm_75"] / 1e6, bytes_of["sm_70"] / 1e6]
    found = rows(text, "Building")
    made, sound, covered = one["cold"]["artifacts"][0], build["old"]["artifacts"][0], one["coverage"]
    wanted = [
        [min(newer), max(newer), min(newest), max(newest), *old],
        [sound["cpu_seconds"], sound["size"], old[1], build["old"]["local"], build["old"]["reserve"]["bytes"] / MIB],
        [one["cold"]["seconds"], made["size"], made["binaries"], made["kernels"]],
        [one["unchanged"]["seconds"]],
        [covered["seconds"], covered["launches"], covered["misses"]],
        [build["ten"]["seconds"]],
        [everything["seconds"], everything["bytes"]["sm_90"] / 1e6, everything["binaries"], everything["kernels"]],
        [start["gdn-aot --help"]["median"]],
        [start["gdn-aot matrix --json"]["median"]],
    ]
    for row, values in zip(found, wanted, strict=True):
        assert row[2], row
        compare(row[1], values, row)


TABLES = {"Serving": serving, "In vLLM": in_vllm, "Kernels": kernels, "Fetching": fetching, "Building": building}


@pytest.mark.parametrize("title", TABLES)
def test_the_table_has_the_figures_of_the_result(title: str) -> None:
    TABLES[title](page())


@pytest.mark.parametrize("title", TABLES)
def test_another_figure_is_noticed(title: str) -> None:
    """Each number of a table in turn, with another last digit."""
    text, last = page(), 2 if title == "Building" else None
    noticed, overlooked = 0, []
    for line in [line for line in sections(text)[title].splitlines() if line.startswith("|")][2:]:
        cells = [match.start() for match in re.finditer(r"\|", line)][1:]
        for match in NUMBER.finditer(line, cells[0], cells[last - 1 if last else -1]):
            other = f"{line[: match.end() - 1]}{(int(match[0][-1]) + 5) % 10}{line[match.end() :]}"
            try:
                TABLES[title](text.replace(line, other))
            except (AssertionError, KeyError):
                noticed += 1
            else:
                overlooked.append(other)
    assert noticed >= 5
    assert overlooked == []


def claims() -> Iterator[tuple[str, list[float]]]:
    """Figures of the sentences: how they are written, and what the result says."""
    start = result("start")["runs"][0]["ms"]
    yield r"`import gdn_aot` takes ([\d.]+) ms", [start["import gdn_aot"]["median"]]
    named = ("install, store", "install, stdlib", "install, provider")
    yield r"`install\(\)` takes (\d+) ms[^.]*?(\d+) ms[^.]*?(\d+) ms", [start[name]["median"] for name in named]
    vllm = result("vllm_gdn")["summary"]
    slower = vllm["b"]["tuned_us_per_layer"]["8192"] / vllm["d"]["tuned_us_per_layer"]["8192"]
    yield r"(\d+) % slower than those", [100 * slower - 100]
    first, later = (vllm["e"][name]["50"] for name in ("first_token_ms", "steady_ms"))
    yield r"takes (\d+) ms, ([\d.]+) times a later", [first, first / later]
    older = result("vllm_gdn_h100")["summary"]
    us = [older[case]["tuned_us_per_layer"]["8192"] for case in "bd"]
    yield r"(\d+)\s+against\s+(\d+)\s+us", us
    yield r"([\d.]+)\s+against\s+([\d.]+)\s+s\s+of\s+the\s+start", [older[case]["warm_up_seconds"] for case in "bd"]
    repeat = result("tuning_repeat")
    both = [repeat["keys"], repeat["equal"], repeat["within_noise"], repeat["share"] * 100]
    yield r"run of the (\d+) keys chose the same for (\d+) and within noise for (\d+): ([\d.]+) %", both
    fetch = result("fetch")
    yield r"Verifying takes (\d+)", [fetch["first_ms"]["verify"]["median"]]
    yield r"([\d,]+) binaries and (\d+) blobs", [fetch["artifact"][name] for name in ("binaries", "blobs")]


def test_sentences_have_the_figures_of_the_results() -> None:
    text = re.sub(r"\s+", " ", page())
    for pattern, values in claims():
        found = re.search(pattern, text)
        assert found, pattern
        wrong = [
            (shown, value) for shown, value in zip(found.groups(), values, strict=True) if not is_rounded(shown, value)
        ]
        assert wrong == [], pattern


def spoken(text: str) -> list[str]:
    """The commands that a text names between backticks."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    quoted = [re.sub(r"\s+", " ", found) for found in re.findall(r"`([^`]+)`", text)]
    return [found for found in quoted if re.match(r"(\.venv/bin/)?(python|gdn-aot) ", found)]


def test_every_section_names_its_command_and_its_result() -> None:
    for title, text in sections(page()).items():
        assert numbers(text), title
        assert spoken(text.split("\n|")[0]), title
        named = RESULT.findall(text.split("\n|")[0])
        assert named, title
        for found in RESULT.findall(text):
            assert (ROOT / found).exists(), found


def test_a_section_without_a_result_is_noticed() -> None:
    for title, text in sections(page()).items():
        head = text.split("\n|")[0]
        assert not RESULT.findall(RESULT.sub("]", head)), title
        assert not spoken(head.replace("`", "")), title


def test_commands_exist_with_these_options() -> None:
    text = page() + (ROOT / "README.md").read_text(encoding="utf-8")
    commands = spoken(text)
    assert len(commands) > 12
    for command in commands:
        program, name, *words = command.replace(".venv/bin/", "").split()
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        if program == "gdn-aot":
            assert name in COMMANDS or name.startswith("-"), command
            if name in COMMANDS:
                module: click.Command = importlib.import_module(f"gdn_aot.cli.{name}").command
                known = {option for param in module.params for option in param.opts}
                assert set(options) <= known | {"--help"}, command
        elif name != "-m":
            file = ROOT / name
            sources = [file, *file.with_suffix("").glob("*.py")]
            code = "".join(source.read_text(encoding="utf-8") for source in sources)
            assert [option for option in options if f'"{option}"' not in code] == [], command

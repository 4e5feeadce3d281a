"""Every figure of the performance page is that of a result file, and every section says how it was made."""

import importlib
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import click
import pytest
from claims import CLAIMS
from figures import FLOORS, MIB, NUMBER, figure, numbers, result, results, sums
from helpers import ROOT

from gdn_aot.cli.main import COMMANDS

DEPLOYED = ("warm", "f", "f-later", "warm-graphs", "e-graphs-packed", "e-graphs", "f-graphs")
"""The columns of the table of a whole deployment."""
PAGE = ROOT / "docs/explanation/performance.md"
RESULT = re.compile(r"\]\(../../((?:benchmarks/results|artifacts)/[\w./-]+)\)")


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


ENGINE_CASES = ("a-first", "b", "e", "nocc", "f")
FIRST = {
    "Kimi Delta Attention": ("cold_start_kda", ("a-first", "c", "e", "nocc", "f")),
    "In SGLang": ("cold_start_sglang", ENGINE_CASES),
}
"""Section -> its results, and the rows of its table."""
VLLM_CASES = ("e", "nocc", "preload", "preload-pool", "f", "e-torch", "f-torch")
SGLANG_CASES = ("a-first", "b", *VLLM_CASES)


def first_calls(text: str) -> None:
    for section, (file, names) in FIRST.items():
        summary = result(file)["summary"]
        for row, name in zip(rows(text, section), names, strict=True):
            case = summary[name]["dense"]
            compare(row[1], [case["first_ms"]["median"] / (1000 if row[1].endswith(" s") else 1)], row)
            compare(row[2], [case["compiled"]["median"]], row)
            compare(row[3], [case["benchmarked"]["median"]], row)


def engines_with_kda(text: str) -> None:
    found = rows(text, "Kimi Delta Attention in vLLM and SGLang")
    cases = [*(("vllm", case) for case in VLLM_CASES), *(("sglang", case) for case in SGLANG_CASES)]
    for row, (engine, case) in zip(found, cases, strict=True):
        summary = result(f"cold_start_{engine}_kda")["summary"][case]
        calls = [summary["dense"], summary["then" if case == "a-first" else "varlen"]]
        for cell, call in zip(row[1:3], calls, strict=True):
            compare(cell, [call["first_ms"]["median"] / (1000 if cell.endswith(" s") else 1)], row)
        for cell, what in zip(row[3:], ("compiled", "benchmarked"), strict=True):
            compare(cell, [sum(call[what]["median"] for call in calls)], row)


def loader_and_floor(text: str) -> None:
    parts = [("e-torch-f-torch", "first_ms"), ("e-f", "launching_ms"), ("e-f", "first_ms")]
    expected = [(engine, name, *part) for part in parts for engine, name in FLOORS.items()]
    for row, (engine, name, pair, part) in zip(rows(text, "The loader and the floor"), expected, strict=True):
        assert row[0].startswith(f"{engine}, ")
        for cell, call in zip(row[1:], ("dense", "varlen"), strict=True):
            found = result(name)["pairs"][pair][call][part]
            values = [found[what] for what in ("median", "low", "high")]
            compare(cell, [abs(value) for value in values], row)
            assert cell.count("-") == sum(value < 0 for value in values)


def in_vllm(text: str) -> None:
    document = result("vllm_gdn")
    cases = [document["summary"][case] | {"requests": document["records"][case]["requests"]} for case in "bcde"]
    found = rows(text, "In vLLM")
    values: list[Callable[[Any, list[str]], list[float]]] = [
        lambda case, _: [case["gdn_compiled"], case["gdn_benchmarks"]],
        lambda case, _: [case["warm_up_seconds"]],
        lambda case, _: [case["ready_seconds"]],
        lambda case, _: [case["kv_bytes"] / MIB],
        lambda case, _: [case["kv_blocks"]],
        lambda case, _: [case["free_after_mib"]],
        lambda case, tokens: [case["tuned_us_per_layer"][one] for one in tokens],
        lambda case, tokens: [case["tuned_us_per_layer"][one] for one in tokens],
        lambda case, _: [sum(one["compiled_gdn"] + one["compiled_other"] for one in case["requests"])],
        lambda case, _: [next(iter(case["first_token_ms"].values())) / 1000],
    ]
    for row, wanted in zip(found, values, strict=False):
        for cell, case in zip(row[1:], cases, strict=True):
            compare(cell, wanted(case, numbers(row[0])), row)
    first, later = found[len(values) :]
    for cell, case in zip(first[1:], cases, strict=True):
        unit = 1000 if cell.endswith(" s") else 1
        compare(cell, [case["first_token_ms"][tokens] / unit for tokens in numbers(first[0])], first)
    for cell, case in zip(later[1:], cases, strict=True):
        compare(cell, [min(case["steady_ms"].values()), max(case["steady_ms"].values())], later)
    lengths = [int(tokens) for case in cases for tokens in case["steady_ms"]]
    compare(later[0], [min(lengths), max(lengths)], later)


def deployment(text: str) -> None:
    values: list[Callable[[Any], float]] = [
        lambda case: case["ready_seconds"],
        lambda case: case["gdn_compiled"] + case["other_compiled"],
        lambda case: case["compile_seconds"],
        lambda case: case["first_token_ms"]["50"],
        lambda case: case["steady_ms"]["50"],
        lambda case: case["first_token_ms"]["1000"],
        lambda case: case["kv_blocks"],
        lambda case: case["free_after_mib"],
    ]
    cases = [result("vllm_deployment")["summary"][name] for name in DEPLOYED]
    for row, wanted in zip(rows(text, "A whole deployment in vLLM"), values, strict=True):
        for cell, case in zip(row[1:], cases, strict=True):
            compare(cell, [wanted(case)], row)


def sglang_engine(text: str) -> None:
    lengths = ("50", "1000", "8000")
    values: list[Callable[[Any], list[float]]] = [
        lambda case: [case["ready_seconds"]],
        lambda case: [case["gdn_compiled"], case["gdn_benchmarked"]],
        lambda case: [case["compiled_at_start"] + case["compiled_later"] - case["gdn_compiled"]],
        lambda case: [case["compile_seconds"]],
        lambda case: [case["first_ms"]["50"] / 1000],
        lambda case: [case["first_ms"][one] for one in lengths[1:]],
        lambda case: [case["steady_ms"][one] for one in lengths],
        lambda case: [case["steady_of_8_ms"][one] for one in lengths],
        lambda case: [case["pool_tokens"]],
        lambda case: [case["pool_states"]],
    ]
    summary = result("sglang_engine")["summary"]
    assert all(summary[name][f"{what}_at_start"] == 0 for name in summary for what in ("compiled", "benchmarked"))
    assert all(case["answers_alike"] for case in summary.values())
    for row, wanted in zip(rows(text, "A whole SGLang engine"), values, strict=True):
        for cell, name in zip(row[1:], ("plain", "warm", "aot", "captured"), strict=True):
            compare(cell, wanted(summary[name]), row)


def sglang_answers(text: str) -> None:
    document, title = result("sglang_answers"), "Two processes of each case of SGLang's engine"
    head = next(line for line in sections(text)[title].splitlines() if line.startswith("|"))
    names = [cell.strip(" ()").replace(") again", "-again") for cell in head.strip("|").split("|")[1:]]
    assert set(names) == set(document["records"])
    assert all(case["answers_alike"] and case["error"] is None for case in document["summary"].values())
    *answers, first, yard = rows(text, title)
    for place, name in enumerate(names, 1):
        for length, row in zip((50, 1000, 8000), answers, strict=True):
            compare(row[0], [length], row)
            found = [
                1000 * one["seconds"]
                for one in document["records"][name]["requests"]
                if [one["lengths"], one["new"]] == [[length], 8] and one["number"] and not one["sample"]
            ]
            compare(row[place], [min(found), statistics.median(found), max(found)], row)
        compare(first[place], [document["summary"][name]["first_ms"]["50"] / 1000], first)
        compare(yard[place], [document["summary"][name]["yard_ms"]], yard)


def sglang_options(text: str) -> None:
    found = result("sglang_options")["rows"]
    assert not any(row["other_results"] for row in found)
    shown = rows(text, "Other configurations of SGLang's kernels")
    steps = list(dict.fromkeys(row["step"] for row in found))
    for row, step in zip(shown, steps, strict=True):
        own, best = (sum(one[what] for one in found if one["step"] == step) for what in ("own_us", "best_us"))
        assert row[0].startswith(step)
        compare(row[1], [sum(one["step"] == step for one in found)], row)
        compare(row[2], [own], row)
        compare(row[3], [best], row)
        compare(row[4], [100 * (own / best - 1)], row)


def kernels(text: str) -> None:
    columns = ("pick64", "shipped", "provider_best", "wide_best", "floor")
    wanted = {
        "Qwen3.5-9B and 35B-A3B, TP 1": "qwen3.5-9b tp 1",
        "Qwen3.5-27B, TP 1": "qwen3.5-27b tp 1",
        "Qwen3.5-9B, TP 4": "qwen3.5-9b tp 4",
    }
    shapes = result("kernels")["shapes"]
    assert shapes["qwen3.5-35b-a3b tp 1"]["tokens"] == shapes["qwen3.5-9b tp 1"]["tokens"]
    found, shape = {name: [] for name in wanted}, ""
    for row in rows(text, "Kernels"):
        shape = row[0] or shape
        found[shape].append(row[1])
        one = sums("kernels", wanted[shape], row[1])
        dropped = any(
            kernel["shipped"] is None for kernel in shapes[wanted[shape]]["tokens"][row[1]]["kernels"].values()
        )
        assert (r"(\*)" in row[3]) is dropped, row
        ratios = [one["pick64"] / one["shipped"], one["shipped"] / one["provider_best"]]
        for cell, value in zip(row[2:], [*(one[column] for column in columns), *ratios], strict=True):
            compare(cell, [value], row)
    assert found == {name: list(shapes[key]["tokens"]) for name, key in wanted.items()}


def claims(text: str) -> None:
    """Each figure that a sentence or a row claims is that of its result."""
    plain = re.sub(r"\s+", " ", text)
    for template, sources in CLAIMS.items():
        words = re.escape(template).replace(r"\{\}", rf"({NUMBER.pattern})")
        found = re.findall(words, plain)
        assert len(found) == 1, (template, len(found))
        shown = [found[0]] if isinstance(found[0], str) else found[0]
        compare(" ".join(shown), [figure(source) for source in sources], template)


def missed(text: str) -> None:
    """Each goal that a result file says is missed has a row with the file, the goal's figures and what was found."""
    table = rows(text, "Missed goals")
    for name, goal, wanted in missed_goals():
        linked = [row for row in table if f"benchmarks/results/{name}.json)" in row[3]]
        assert any(wanted <= figures_and_sizes(f"{row[0]} {row[1]}") for row in linked), (name, goal)


@cache
def missed_goals() -> list[tuple[str, str, set[str]]]:
    """File, goal, and the figures that the row must have."""
    return [
        (path.stem, goal["goal"], figures_and_sizes(f"{goal['goal']} {goal['found']}"))
        for path in sorted((ROOT / "benchmarks/results").glob("*.json"))
        if '"met": false' in path.read_text(encoding="utf-8")
        for goal in judged(result(path.stem))
        if goal["met"] is False
    ]


def figures_and_sizes(text: str) -> set[str]:
    """The numbers of a text, and the sizes of its models."""
    return {one.replace(",", "") for one in numbers(text)} | set(re.findall(r"\b\d+b(?:-a\d+b)?\b", text.lower()))


def judged(value: Any) -> Iterator[dict[str, Any]]:
    """Everything in a document that says whether it met a goal."""
    if isinstance(value, dict) and "met" in value:
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from judged(one)


CHECKS = {
    "Serving": serving,
    "first calls": first_calls,
    "In vLLM": in_vllm,
    "deployment": deployment,
    "A whole SGLang engine": sglang_engine,
    "Two processes of each case of SGLang's engine": sglang_answers,
    "engines with KDA": engines_with_kda,
    "The loader and the floor": loader_and_floor,
    "SGLang's options": sglang_options,
    "Kernels": kernels,
    "claims": claims,
    "Missed goals": missed,
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_page_has_the_figures_of_the_results(check: str) -> None:
    CHECKS[check](page())


def is_noticed(text: str) -> bool:
    for check in CHECKS.values():
        try:
            check(text)
        except (AssertionError, KeyError):
            return True
    return False


def test_another_figure_is_noticed() -> None:
    """Each number of the page in turn, in a sentence, a table or its head, with another last digit."""
    text, noticed, overlooked = page(), 0, []
    assert not is_noticed(text)
    for match in results(text):
        end = match.end() - 1
        if is_noticed(f"{text[:end]}{(int(text[end]) + 5) % 10}{text[end + 1 :]}"):
            noticed += 1
        else:
            overlooked.append(text[match.start() - 30 : match.end() + 30])
    assert overlooked == []
    assert noticed > 250


def test_a_claim_has_no_figure_of_its_own() -> None:
    assert {template: found for template in CLAIMS if (found := results(template))} == {}


def test_a_missed_goal_that_is_not_on_the_page_is_noticed() -> None:
    assert len(missed_goals()) >= 16
    lines = sections(page())["Missed goals"].splitlines()
    for line in [line for line in lines if line.startswith("|") and "/results/" in line]:
        assert is_noticed(page().replace(line + "\n", "")), line


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

"""What each figure of the performance page is of the result files."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from helpers import ROOT

from gdn_aot.records import tuning
from gdn_aot.records.objective import NEAR
from gdn_aot.records.verdict import derives

sys.path.insert(0, str(ROOT / "benchmarks"))
report = importlib.import_module("kernels.report")
pairs = importlib.import_module("cold_start.pairs")
regret = importlib.import_module("regret.figures")
NUMBER = re.compile(r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
MIB = 1 << 20
TARGETS = {"sm_70": "PTX, fp16", "sm_75": "PTX, fp16"} | {f"sm_{one}": "PTX, bf16" for one in (80, 86, 89)}
TARGETS["sm_90"] = "machine code, bf16"
PROXIES = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_120")
RECORDS = {
    "proxy/{}/fla-core-0.6.0": PROXIES,
    "proxy/{}/vllm-0.24.0": PROXIES,
    "{}/fla-core-0.6.0": ("sm_90",),
    "{}/vllm-0.24.0": ("sm_90",),
    "second/{}/fla-core-0.6.0": ("sm_90",),
    "{}/sglang-0.5.17": ("sm_90",),
}
"""Tuning records, and their targets."""
KDA_RECORDS = (
    "sm_90/vllm-0.24.0",
    "second/sm_90/fla-core-0.6.0",
    "sm_90/sglang-0.5.17",
    "proxy/sm_80/fla-core-0.6.0",
    "proxy/sm_89/fla-core-0.6.0",
)
"""Those with keys of Kimi Delta Attention."""
FLOORS = {"vLLM": "cold_start_vllm_kda", "SGLang": "cold_start_sglang_kda", "FLA": "cold_start_kda_pairs"}
"""What is called -> the pairs of the loader and the floor."""
OTHERS = ("ling-3.0-flash", "ling-3.0-tiny", "aliceai-foundation-80b-a3b", "kimi-k3", "glm-5.3-flash")
"""Models with Kimi Delta Attention beside Kimi-Linear."""
LIMIT = report._NEAR - 1
"""How far a choice may be from the best."""

ALLOWED = [
    # names and links: what is between backticks, where a link leads
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"(GLM|Ling)-\d\.\d",
    # versions and dates
    r"(Python|torch|Triton|fla-core|vLLM|SGLang|huggingface_hub|driver) \d[\d.]*\d",
    r"\d{4}-\d\d-\d\d",
    # settings: shapes, TP, lengths of prompts, what a warm-up has, what is left of a card, cores
    r"\d+ (key|value) heads|dimension \d+",
    r"(TP|\(TP\)) \d\d?(, \d\d?)*( and \d\d?)?",
    r"\d+(, \d+)*(( and| to) \d+)? tokens",
    r"\d+-token",
    r"tuned at 64(?! tokens)| 64 / gdn-aot",
    r"300 MiB( of the card)? left",
    r"\d+ cores",
]
"""Numbers that are no results."""


def allowed(text: str) -> list[tuple[int, int]]:
    """Where numbers are that are no results."""
    patterns = [pattern.replace(" ", r"\s+") for pattern in ALLOWED]
    return [match.span() for pattern in patterns for match in re.finditer(pattern, text)]


def results(text: str) -> list[re.Match[str]]:
    """The numbers that must be those of a result."""
    spans = allowed(text)
    return [
        match
        for match in NUMBER.finditer(text)
        if not any(start <= match.start() and match.end() <= end for start, end in spans)
    ]


@cache
def load(path: str) -> Any:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


@cache
def result(name: str) -> Any:
    return DERIVED[name]() if name in DERIVED else load(f"benchmarks/results/{name}.json")


def outcomes() -> dict[str, int]:
    found = result("gpu_tests_h200")["outcomes"].values()
    return {"passed": sum(one == "passed" for one in found), "all": len(found)}


def numerics() -> dict[str, Any]:
    """Calls, failures and calls without a choice of each target and provider."""
    found: dict[str, Any] = {}
    for target in TARGETS:
        for provider in ("fla-core-0.6.0", "vllm-0.24.0"):
            checks = load(f"artifacts/numerics/{target}/{provider}.json")["checks"]
            failed, skipped = (sum(len(check[what]) for check in checks) for what in ("failed", "skipped"))
            calls = sum(check["calls"] for check in checks)
            found.setdefault(target, {})[provider] = {"calls": calls, "failed": failed, "skipped": skipped}
        found[target]["failed"] = sum(one["failed"] for one in found[target].values())
    return found


def checked() -> dict[str, int]:
    """Calls of SGLang's layers that were compared with float64, by model; none was wrong."""
    found: dict[str, int] = {}
    for check in load("artifacts/numerics/sm_90/sglang-0.5.17.json")["checks"]:
        assert not check["failed"]
        found[check["model"]] = found.get(check["model"], 0) + check["calls"]
    return found


def regrets() -> dict[str, Any]:
    """For how many keys the choice is not within `NEAR` of the best at all lengths from 512 tokens on."""
    found: dict[str, Any] = {"near": 100 * NEAR - 100}
    for path, targets in RECORDS.items():
        found[path] = {"most": 0.0}
        for target in targets:
            every = [choice for _, choice in regret.entries(recorded_in(path.format(target)))]
            rows = [choice.regret for choice in every if not derives(choice)]
            most = [max((one for tokens, one in row.items() if tokens >= regret.SHORTEST), default=0) for row in rows]
            found[path] |= {"keys": len(most), f"{target} keys": len(most), target: sum(one > NEAR - 1 for one in most)}
            found[path]["most"] = max(found[path]["most"], 100 * max(most))
    return found


@cache
def recorded_in(path: str) -> tuning.TuningRecord:
    """The tuning record of a path below ``artifacts/tuning``."""
    return tuning.FORM.parse((ROOT / f"artifacts/tuning/{path}.json").read_bytes())


def kda() -> dict[str, Any]:
    """How far choices of keys that calls of Kimi Delta Attention have are from the best, from 512 tokens on.

    ``missed`` counts keys that are not within the limit at each length, ``possible`` those of them for which a
    candidate would be, ``two`` and ``each`` those that a choice for short and one for long prompts, and one for each
    length, would leave; ``kernels`` the missed ones of each kernel, ``added`` keys with a candidate that the provider
    does not offer.
    """
    found: dict[str, Any] = {}
    for path in KDA_RECORDS:
        document = recorded_in(path)
        rows, added, kernels = [], 0, dict[str, int]()
        fewer = {"possible": 0, "two": 0, "each": 0}
        for kernel, choice in regret.entries(document):
            if "kda" not in choice.call + kernel.kernel:
                continue
            if derives(choice):
                continue
            added += choice.chosen >= kernel.offered
            times = {tokens: us for tokens, us in regret.times_of(kernel, choice).items() if tokens >= regret.SHORTEST}
            rows.append(regret.regret(times, kernel.candidates[choice.chosen]))
            if all(one <= LIMIT for one in rows[-1].values()):
                continue
            name = kernel.kernel.rpartition(":")[2]
            kernels[name] = kernels.get(name, 0) + 1
            sound = [one for one in next(iter(times.values())) if regret.ships(kernel, choice, one)]
            near, counts = [regret.regret(times, one) for one in sound], sorted(times)
            parts = [(counts[:place], counts[place:]) for place in range(len(counts))]
            fewer["possible"] += reached(near, counts)
            fewer["two"] += not any(reached(near, short) and reached(near, long) for short, long in parts)
            fewer["each"] += not all(reached(near, [one]) for one in counts)
        found[path] = regret.summary(regret.collect(rows))
        most = 1 + found[path][regret.ALL]["max"]
        missed = sum(kernels.values())
        found[path] |= {"keys": len(rows), "missed": missed, "added": added}
        found[path] |= {"most": most, "kernels": kernels} | fewer
    return found


def reached(rows: list[dict[int, float]], counts: list[int]) -> bool:
    """Is one of the candidates of these regrets within `LIMIT` at each of these token counts?"""
    return any(all(row[tokens] <= LIMIT for tokens in counts) for row in rows)


@cache
def sums(name: str, shape: str, tokens: str) -> dict[str, float]:
    """The sums of a prompt's kernels, with the tuning record's share of a choice that the search dropped."""
    kernels = result(name)["shapes"][shape]["tokens"][tokens]["kernels"]
    found = dict(report.total(kernels))
    if found["shipped"] is None:
        (missing,) = (kernel for kernel, one in kernels.items() if not one["shipped"])
        others = sum(one["shipped"]["us"] for one in kernels.values() if one["shipped"])
        found["shipped"] = others + kernels[missing]["provider_best"]["us"] * recorded(missing, shape, tokens)
    return found


def recorded(name: str, shape: str, tokens: str) -> float:
    """How many times the best of FLA's candidates the shipped choice takes for a dense prompt, by the record."""
    heads = [4, 8] if shape.endswith("tp 4") else [16, 32]
    kernels = load("artifacts/tuning/sm_90/fla-core-0.6.0.json")["kernels"]
    kernel = next(one for one in kernels if one["kernel"] == name)
    choices = [one for one in kernel["choices"] if one["key"][:4] == [*heads, 128, 128]]
    choice = min(choices, key=lambda one: len(one["key"]))  # packed prompts have the types of their lengths, too
    us = next(one["us"] for one in choice["times"] if one["tokens"] == int(tokens))
    return us[choice["chosen"]] / min(one for one in us[: kernel["offered"]] if one is not None)


def tunings() -> dict[str, Any]:
    """The sums of what each tuning at 64 tokens chose, divided by the sum of the shipped choices."""
    found: dict[str, Any] = {"limit": report._NEAR}
    for name in ("kernels", "kernels_h200", "kernels_kda"):
        for shape, one in result(name)["shapes"].items():
            for tokens, entry in one["tokens"].items():
                if not all(kernel["provider_best"] for kernel in entry["kernels"].values()):
                    continue  # not timed
                row = sums(name, shape, tokens)
                picked = [time / row["shipped"] for time in entry["pick64_sums"]]
                found[f"{name} {shape} {tokens}"] = [*picked, row["shipped"] / row["provider_best"]]
    return found


def lookups() -> dict[str, dict[str, float]]:
    """What the loader's lookups took in an engine's first step of Kimi Delta Attention, in milliseconds."""
    return {engine: _lookups(result(f"cold_start_{engine}_kda")["lookups"]["rows"]) for engine in ("vllm", "sglang")}


def _lookups(found: list[dict[str, Any]]) -> dict[str, float]:
    (each,) = {one["lookups"] for one in found}
    all_of, loading = ([one[what] for one in found] for what in ("lookups_ms", "loading_ms"))
    return {
        "processes": len(found), "each": each, "least": min(all_of), "most": max(all_of),
        "loading_least": min(loading), "loading_most": max(loading),
    }  # fmt: skip


def preloads() -> dict[str, dict[str, list[float]]]:
    """What `preload` took in an engine, in milliseconds, and left to PyTorch's allocator, from the least on."""
    found = {"before": result("cold_start_sglang_kda")["before"]["preload"]}
    for engine in ("vllm", "sglang"):
        records = result(f"cold_start_{engine}_kda")["records"]
        for case, name in (("preload", engine), ("preload-pool", f"{engine} pool")):
            found[name] = [record["preload"] for record in records if record["case"] == case]
    return {
        name: {what: sorted(one[what] for one in every) for what in ("ms", "reserved_mib")}
        for name, every in found.items()
    }


def floor() -> dict[str, Any]:
    """The rule by which the loader is compared with the floor, and what it adds after PyTorch's own work."""
    calls = [(result(name), call) for name in FLOORS.values() for call in ("dense", "varlen")]
    after = pairs.PAIRS[1]
    added = sorted(document["pairs"]["-".join(after)][call]["first_ms"]["median"] for document, call in calls)
    single = [pairs.differences(document["records"], call, after)["first_ms"] for document, call in calls]
    return {"limit": pairs.LIMIT, "confidence": pairs._CONFIDENCE, "added": added, "single": max(map(max, single))}


def others() -> dict[str, int]:
    """Calls of models with Kimi Delta Attention other than Kimi-Linear that were not made, as they had no choice."""
    checks = load("artifacts/numerics/sm_90/fla-core-0.6.0.json")["checks"]
    return {"skipped": sum(len(one["skipped"]) for one in checks if one["model"] in OTHERS)}


def tuned() -> dict[str, float]:
    runs = result("tuning")["runs"][:4]
    return {"keys": runs[-1]["keys"], "seconds": sum(run["seconds"]["measure"] for run in runs)}


DERIVED: dict[str, Callable[[], Any]] = {
    "outcomes": outcomes,
    "numerics": numerics,
    "checked": checked,
    "regrets": regrets,
    "kda": kda,
    "tunings": tunings,
    "tuned": tuned,
    "floor": floor,
    "others": others,
    "preloads": preloads,
    "lookups": lookups,
}
"""What is computed from several result files, or from records."""


@cache
def figure(source: str) -> float:
    """A figure: paths of result files as ``file|key|key``, or numbers, with operators between them, from left to right.

    A text counts as its first number, a list as its length; ``goals|TEXT`` is the goal with this text.
    """
    first, *others = re.split(r" ([-+/*]) ", source)
    value = operand(first)
    for operator, other in zip(others[::2], others[1::2], strict=True):
        right = operand(other)
        value = {"+": value + right, "-": value - right, "*": value * right, "/": value / right if right else 0}[
            operator
        ]
    return value


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text)


def operand(source: str) -> float:
    if NUMBER.fullmatch(source):
        return float(source)
    name, *keys = source.split("|")
    found = result(name)
    for key in keys:
        if not isinstance(found, list):
            found = found[key]
        elif key.lstrip("-").isdigit():
            found = found[int(key)]
        else:
            found = next(one for one in found if one["goal"] == key)
    if isinstance(found, str):
        return float(numbers(found)[0].replace(",", ""))
    return float(len(found) if isinstance(found, list | dict) else found)

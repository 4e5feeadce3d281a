"""What each figure of the performance page is of the result files."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from helpers import ROOT

from gdn_aot.records.objective import NEAR

sys.path.insert(0, str(ROOT / "benchmarks"))
report = importlib.import_module("kernels.report")
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

ALLOWED = [
    # names and links: what is between backticks, where a link leads
    r"`[^`]*`",
    r"\]\([^)]*\)",
    # versions and dates
    r"(Python|torch|Triton|fla-core|vLLM|SGLang|huggingface_hub|driver) \d[\d.]*\d",
    r"\d{4}-\d\d-\d\d",
    # settings: shapes, TP, lengths of prompts, what a warm-up has, what is left of a card, cores
    r"\d+ (key|value) heads|dimension \d+",
    r"(TP|\(TP\)) \d(, \d)*( and \d)?",
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


def regrets() -> dict[str, Any]:
    """For how many keys the choice is not within `NEAR` of the best at all lengths from 512 tokens on."""
    found: dict[str, Any] = {"near": 100 * NEAR - 100}
    for path, targets in RECORDS.items():
        found[path] = {"most": 0.0}
        for target in targets:
            kernels = load(f"artifacts/tuning/{path.format(target)}.json")["kernels"]
            choices = [choice["regret"] for kernel in kernels for choice in kernel["choices"]]
            most = [max((one for tokens, one in row.items() if int(tokens) >= 512), default=0) for row in choices]
            found[path] |= {"keys": len(most), f"{target} keys": len(most), target: sum(one > NEAR - 1 for one in most)}
            found[path]["most"] = max(found[path]["most"], 100 * max(most))
    return found


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


def tuned() -> dict[str, float]:
    runs = result("tuning")["runs"][:4]
    return {"keys": runs[-1]["keys"], "seconds": sum(run["seconds"]["measure"] for run in runs)}


DERIVED: dict[str, Callable[[], Any]] = {
    "outcomes": outcomes,
    "numerics": numerics,
    "regrets": regrets,
    "tunings": tunings,
    "tuned": tuned,
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
    return float(len(found) if isinstance(found, list) else found)


def listed(targets: tuple[str, ...]) -> str:
    """A figure for each target, as a sentence lists them."""
    *others, last = (f"{{}} ({target})" for target in targets)
    return f"{', '.join(others)} and {last}" if others else last


COLD, VLLM, OLDER, START = "cold_start|summary", "vllm_gdn|summary", "vllm_gdn_h100|summary", "start|runs|-1|ms"
DEPLOYED, PACKED = "vllm_deployment|summary", "vllm_compile_cache|summary"
STEPS = "gpu_tests_sglang|test_300_random_steps_compile_and_benchmark_nothing"
BITS = "gpu_tests_sglang|test_bits_are_those_of_plain_sglang"
INSTALL = "cold_start|goals|install_ms ({}) below 15|found"
GENERATE, TIGHT = "gpu_tests|test_generate|first_token_seconds", "gpu_tests_h200|test_first_prefill_with_300_mib_left"
RANDOM, SIZES, ALL = "gpu_tests_h200|test_500_random_calls", "sizes|one_model|bytes", "sizes|all_models"
KDA_SHAPE = "kimi-linear-48b-a3b tp 1"
KDA_CALLS = "gpu_tests_kda|test_200_random_calls_of_each_model_with_kda|kimi-linear-48b-a3b"
ONE, OLD = "build|one|cold", "build|old|artifacts|0"
CLAIMS: dict[str, list[str]] = {
    # Serving
    "medians of {} (row a: {})": [f"{COLD}|e|dense|processes", f"{COLD}|a-first|dense|processes"],
    "loads {} modules for the dense prefill and {} for the packed one": [
        f"{COLD}|e|{call}|modules|median" for call in ("dense", "varlen")
    ],
    "`import gdn_aot` takes {} ms. `install()` takes {} ms in an interpreter that has imported nothing, {} ms if the "
    "standard library's modules are loaded, and {} ms after": [
        "cold_start|goals|import_gdn_aot_ms (store) below 20|found",
        *(INSTALL.format(state) for state in ("store", "stdlib", "after the provider")),
    ],
    "takes {} (dense) and {} (packed) times as long as a call in a loop; after `preload(tokens=4096)` it takes {} and "
    "{} times": [
        f"{COLD}|{case}|{call}|first_ms|median / {COLD}|{case}|{call}|steady_ms|median"
        for case in ("preload", "preload-pool")
        for call in ("dense", "varlen")
    ],
    # Kimi Delta Attention
    "medians of {} processes, (a) of {}.": [
        "cold_start_kda|summary|e|dense|processes",
        "cold_start_kda|summary|a-first|dense|processes",
    ],
    "{} random calls of this model": [f"{KDA_CALLS}|checked"],
    "compiled {} kernels and benchmarked {}; {} results": [
        f"{KDA_CALLS}|watch|compiled",
        f"{KDA_CALLS}|watch|benchmarked",
        f"{KDA_CALLS}|wrong",
    ],
    "of a prefill take {}, {}, {} and {} times the time of the best": [
        f"tunings|kernels_kda {KDA_SHAPE} {tokens}|3" for tokens in (512, 2048, 8192, 32768)
    ],
    "in three tunings, take {}, {} and {} times as long": [
        f"tunings|kernels_kda {KDA_SHAPE} 8192|{place}" for place in range(3)
    ],
    # In SGLang
    "(medians of {}, row a: {})": [
        "cold_start_sglang|summary|e|dense|processes",
        "cold_start_sglang|summary|a-first|dense|processes",
    ],
    # Tests on a GPU
    "{} of {} tests passed": ["outcomes|passed", "outcomes|all"],
    "a peak of {} MiB, and the second with {} MiB": [f"{TIGHT}|served_{call}|peak_mib" for call in ("first", "second")],
    "compiled {} kernels and benchmarked {} in {} random calls": [
        f"{RANDOM}|watch|compiled",
        f"{RANDOM}|watch|benchmarked",
        f"{RANDOM}|checked",
    ],
    "{} results were outside the tolerances against float64": [f"{RANDOM}|wrong"],
    "made {} random steps in strict mode": [f"{STEPS}|checked"],
    "compiled {} kernels and benchmarked {}, {} results were outside the tolerances, and {} steps had the bits of "
    "SGLang alone, which compiled {} binaries": [
        *(" + ".join(f"{STEPS}|{what}|{part}" for part in range(3)) for what in ("compiled", "benchmarked")),
        f"{STEPS}|wrong",
        f"{BITS}|equal",
        " + ".join(f"{BITS}|plain_compiled|{part}" for part in range(3)),
    ],
    "comes after {} s with plain FLA, and after {} s with": [
        f"{GENERATE}|plain|7 tokens",
        f"{GENERATE}|gdn-aot|7 tokens",
    ],
    # In vLLM
    "in benchmark {}, which cannot get its {} MiB": [f"{VLLM}|a|gdn_benchmarks", f"{VLLM}|a|error"],
    "(b) picks are {} % slower than": [
        f"{VLLM}|b|tuned_us_per_layer|8192 / {VLLM}|d|tuned_us_per_layer|8192 * 100 - 100"
    ],
    "The first request of (e) takes {} ms, {} times a later one": [
        f"{VLLM}|e|first_token_ms|50",
        f"{VLLM}|e|first_token_ms|50 / {VLLM}|e|steady_ms|50",
    ],
    "the first request takes {} ms against {} ms. The process then takes {} GiB more of the GPU, and the KV cache "
    "loses {} GiB": [
        f"{VLLM}|e-loaded|first_token_ms|50",
        f"{VLLM}|e-loaded|steady_ms|50",
        f"{VLLM}|e|free_ready_mib - {VLLM}|e-loaded|free_ready_mib / 1024",
        f"{VLLM}|e|kv_bytes - {VLLM}|e-loaded|kv_bytes / {1 << 30}",
    ],
    "took {} us for the kernels of (b) against {} us for those of (d), and {} s against {} s of the start": [
        f"{OLDER}|{case}|{what}" for what in ("tuned_us_per_layer|8192", "warm_up_seconds") for case in "bd"
    ],
    "TP 1, 2, 4, 8: {} keys, {} s of measuring": ["tuning|runs|6|keys", "tuning|runs|6|seconds|measure"],
    # A whole deployment in vLLM
    "(f) is ready in {} times the seconds of (warm), and its first request takes {} times a later one": [
        f"{DEPLOYED}|f|ready_seconds / {DEPLOYED}|warm|ready_seconds",
        f"{DEPLOYED}|f|first_token_ms|50 / {DEPLOYED}|f|steady_ms|50",
    ],
    "loads its kernels, {} MiB, before": [f"{DEPLOYED}|warm|kv_bytes - {DEPLOYED}|f|kv_bytes / {MIB}"],
    "(e-graphs-kept) is ready in {} times the seconds of (warm-graphs), and (e-graphs) in {} times": [
        f"{DEPLOYED}|{case}|ready_seconds / {DEPLOYED}|warm-graphs|ready_seconds"
        for case in ("e-graphs-kept", "e-graphs")
    ],
    "(e-graphs-packed) is ready in {} times the seconds of (warm-graphs), and its first request takes {} times a": [
        f"{PACKED}|e-graphs-packed|ready_seconds / {PACKED}|warm-graphs|ready_seconds",
        f"{PACKED}|e-graphs-packed|first_token_ms|50 / {PACKED}|e-graphs-packed|steady_ms|50",
    ],
    # Tunings at 64 tokens
    **{
        f"| {gpu} | {shape} | {tokens} tokens | {{}} | {{}} | {{}} | {{}} |": [
            f"tunings|{name} {key} {tokens}|{place}" for place in range(4)
        ]
        for gpu, shape, tokens, name, key in (
            ("H100", "Qwen3.5-9B, TP 1", 8192, "kernels", "qwen3.5-9b tp 1"),
            ("H100", "Qwen3.5-27B, TP 1", 8192, "kernels", "qwen3.5-27b tp 1"),
            ("H100", "Qwen3.5-9B, TP 4", 8192, "kernels", "qwen3.5-9b tp 4"),
            ("H200", "Qwen3.5-9B, TP 4", 512, "kernels_h200", "qwen3.5-9b tp 4"),
            ("H200", "Qwen3.5-9B, TP 4", 2048, "kernels_h200", "qwen3.5-9b tp 4"),
            ("H200", "Qwen3.5-9B, TP 4", 8192, "kernels_h200", "qwen3.5-9b tp 4"),
        )
    },
    # Tuning
    "in four runs | {} | {} s |": ["tuned|keys", "tuned|seconds"],
    "27B at TP 1 and 4 | {} | {} s |": ["tuning|runs|0|keys", "tuning|runs|0|seconds|measure"],
    "of these shapes | {} | {} s |": ["tuning|runs|4|keys", "tuning|runs|4|seconds|measure"],
    "row of {} keys chose the same for {}, and within noise for {}: {} %": [
        *(f"tuning_repeat|{what}" for what in ("keys", "equal", "within_noise")),
        "tuning_repeat|share * 100",
    ],
    # Results against float64
    **{
        f"| {target} | {how} | {{}} | {{}} | {{}} | {{}} |": [
            f"numerics|{target}|fla-core-0.6.0|calls",
            f"numerics|{target}|fla-core-0.6.0|skipped",
            f"numerics|{target}|vllm-0.24.0|calls",
            f"numerics|{target}|failed",
        ]
        for target, how in TARGETS.items()
    },
    # Fetching
    "sm_120: {} MB, {} binaries and {} blobs ({} MB)": [
        "fetch|artifact|bytes / 1000000",
        "fetch|artifact|binaries",
        "fetch|artifact|blobs",
        "fetch|artifact|blob_bytes / 1000000",
    ],
    "bare `hf_hub_download` of the file | {} ms": ["fetch|first_ms|download|median"],
    "download, verify, install | {} ms": ["fetch|first_ms|fetch|median"],
    "offline | {} to {} ms": [f"fetch|repeated_ms|hub, {one}|median" for one in ("offline", "commit")],
    "moving branch of a Hub | {} ms": ["fetch|repeated_ms|hub, branch|median"],
    "Verifying takes {} ms": ["fetch|first_ms|verify|median"],
    "manifest of {} MB and compares every launch key with its binary, which takes {} ms": [
        "fetch|artifact|manifest_bytes / 1000000",
        f"{START}|manifest of all models|median",
    ],
    # Building
    "sm_80 to sm_90 | {} to {} thousand": [f"{SIZES}|sm_80 / 1000", f"{SIZES}|sm_86 / 1000"],
    "sm_100 to sm_121 | {} to {} thousand": [f"{SIZES}|sm_120 / 1000", f"{SIZES}|sm_103 / 1000"],
    "sm_75; sm_70 | {} million; {} million": [f"{SIZES}|sm_75 / 1000000", f"{SIZES}|sm_70 / 1000000"],
    "choices by proxy | {} s of CPU time for compiling; {} bytes": [f"{OLD}|cpu_seconds", f"{OLD}|size"],
    "on a V100 | {} bytes; {} MiB": ["build|old|local", f"build|old|reserve|bytes / {MIB}"],
    "every length and batch | {} s; {} bytes, {} binaries of {} kernels": [
        f"{ONE}|seconds",
        *(f"{ONE}|artifacts|0|{what}" for what in ("size", "binaries", "kernels")),
    ],
    "nothing compiled | {} s": ["build|one|unchanged|seconds"],
    "random calls | {} calls, {} launches, {} misses, {} s": [
        f"build|one|coverage|{what}" for what in ("calls", "launches", "misses", "seconds")
    ],
    "sound | {} targets, {} s": ["build|ten|artifacts", "build|ten|seconds"],
    "16 cores | {} s; {} MB, {} binaries of {} kernels": [
        f"{ALL}|seconds",
        f"{ALL}|bytes|sm_90 / 1000000",
        f"{ALL}|binaries",
        f"{ALL}|kernels",
    ],
    "`gdn-aot --help`; 2 cores of an AMD EPYC | {} ms": [f"{START}|gdn-aot --help|median"],
    "`gdn-aot matrix --json`; 2 cores of an AMD EPYC | {} ms": [f"{START}|gdn-aot matrix --json|median"],
    # Missed goals that the programs do not judge by themselves, or without a figure
    "has no fewer blocks than that of (warm) | {} and {} blocks": [
        f"{DEPLOYED}|{case}|kv_blocks" for case in ("f", "warm")
    ],
    "within {} times the seconds of (warm-graphs) | {} times | Dynamo traces and Inductor compiles; with vLLM's "
    "compile cache in the artifact {} times": [
        "1.3",
        f"{DEPLOYED}|e-graphs|ready_seconds / {DEPLOYED}|warm-graphs|ready_seconds",
        f"{PACKED}|e-graphs-packed|ready_seconds / {PACKED}|warm-graphs|ready_seconds",
    ],
    "no kernel is compiled in (e-graphs) | {} |": [f"{DEPLOYED}|e-graphs|other_compiled"],
    "fewer blocks than that of (warm-graphs) | {}, {} and {} blocks": [
        f"{DEPLOYED}|{case}|kv_blocks" for case in ("e-graphs", "e-graphs-kept", "warm-graphs")
    ],
    "(e-graphs-packed) has no fewer blocks than that of (warm-graphs) | {} and {} blocks": [
        f"{PACKED}|{case}|kv_blocks" for case in ("e-graphs-packed", "warm-graphs")
    ],
    "at most {} times the best of FLA's candidates | {}, by": [
        "tunings|limit",
        "tunings|kernels qwen3.5-9b tp 4 512|3",
    ],
    "in sm_80 of {} with those of KDA": ["regrets|proxy/{}/fla-core-0.6.0|sm_80 keys"],
    "times a later one | {} times": [f"{VLLM}|e|first_token_ms|50 / {VLLM}|e|steady_ms|50"],
    **{
        f"{{}} % of the best from 512 tokens on, {words} | missed for {listed(targets)} of {{}} keys; at most {{}} %": [
            "regrets|near",
            *(f"regrets|{path}|{what}" for what in (*targets, "keys", "most")),
        ]
        for words, (path, targets) in zip(
            (
                "FLA by proxy",
                "vLLM by proxy",
                "FLA measured",
                "vLLM measured",
                "FLA on a second GPU",
                "SGLang measured",
            ),
            RECORDS.items(),
            strict=True,
        )
    },
}
"""How the page writes figures -> what they are of the results, see `figure`."""

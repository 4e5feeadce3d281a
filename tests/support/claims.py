"""The figures that the sentences and rows of the performance page claim, and where the results have them."""

from claims_kda import KDA_CLAIMS, STEPS
from figures import MIB, RECORDS, TARGETS


def listed(targets: tuple[str, ...]) -> str:
    """A figure for each target, as a sentence lists them."""
    *others, last = (f"{{}} ({target})" for target in targets)
    return f"{', '.join(others)} and {last}" if others else last


COLD, VLLM, OLDER, START = "cold_start|summary", "vllm_gdn|summary", "vllm_gdn_h100|summary", "start|runs|-1|ms"
ENGINE, TOKEN = "sglang_engine|summary", 2 * 2 * 256 * 2
"""Cases of SGLang's engine; bytes of a token of its KV cache: key and value of one layer, 2 heads of 256, in bf16."""
SGLANG = "cold_start_sglang|summary"
DEPLOYED, KINDS = "vllm_deployment|summary", "vllm_kinds|summary"
BITS = "gpu_tests_sglang|test_bits_are_those_of_plain_sglang"
INSTALL = "cold_start|goals|install_ms ({}) below 15|found"
GENERATE, TIGHT = "gpu_tests|test_generate|first_token_seconds", "gpu_tests_h200|test_first_prefill_with_300_mib_left"
RANDOM, SIZES, ALL = "gpu_tests_h200|test_500_random_calls", "sizes|one_model|bytes", "sizes|all_models"
ONE, OLD = "build|one|cold", "build|old|artifacts|0"


CLAIMS: dict[str, list[str]] = {
    **KDA_CLAIMS,
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
    # In SGLang
    "(medians of {}, row a: {})": [
        f"{SGLANG}|e|dense|processes",
        f"{SGLANG}|a-first|dense|processes",
    ],
    "medians of (e) and (f) differ by {} ms. The four processes of (e) took {} to {} ms, those of (f) {} to {} ms": [
        f"{SGLANG}|e|dense|first_ms|median - {SGLANG}|f|dense|first_ms|median",
        *(f"{SGLANG}|{case}|dense|first_ms|{end}" for case in "ef" for end in ("low", "high")),
    ],
    # A whole SGLang engine
    "Its first request takes {} ms, {} times a later one, and {} times that of (warm)": [
        f"{ENGINE}|captured|first_ms|50",
        f"{ENGINE}|captured|first_ms|50 / {ENGINE}|captured|steady_ms|50",
        f"{ENGINE}|captured|first_ms|50 / {ENGINE}|warm|first_ms|50",
    ],
    "Triton compiles for {} ms of it": [f"{ENGINE}|captured|compile_seconds * 1000"],
    "{} MiB less for the KV cache, {} of its {} tokens": [
        f"{ENGINE}|plain|pool_tokens - {ENGINE}|captured|pool_tokens * {TOKEN} / {MIB}",
        f"{ENGINE}|plain|pool_tokens - {ENGINE}|captured|pool_tokens",
        f"{ENGINE}|plain|pool_tokens",
    ],
    "which is SGLang alone as well, differ by {} ms": [
        f"{ENGINE}|warm|steady_of_8_ms|1000 - {ENGINE}|warm|steady_of_8_ms|8000"
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
    "(e-graphs-packed) is ready in {} times the seconds of (warm-graphs), and its first request takes {} times a": [
        f"{DEPLOYED}|e-graphs-packed|ready_seconds / {DEPLOYED}|warm-graphs|ready_seconds",
        f"{DEPLOYED}|e-graphs-packed|first_token_ms|50 / {DEPLOYED}|e-graphs-packed|steady_ms|50",
    ],
    "(e-graphs) is ready in {} times the seconds of (warm-graphs), (f-graphs) in {} times": [
        f"{DEPLOYED}|{case}|ready_seconds / {DEPLOYED}|warm-graphs|ready_seconds" for case in ("e-graphs", "f-graphs")
    ],
    # Other deployments in vLLM
    **{
        f"| {kind} | {{}} s | {{}} ms | {{}} ms | {{}} |": [
            f"{KINDS}|{case}|{what}"
            for what in ("ready_seconds", "first_token_ms|50", "steady_ms|50", "other_compiled")
        ]
        for kind, case in (
            ("prefix caching", "f-prefix"),
            ("drafts by MTP and prefix caching", "f-drafts"),
            ("LoRA", "f-adapters"),
            ("FP8, quantized at load", "f-fp8"),
            ("FP8 checkpoint with blocks of scales", "f-fp8-blocks"),
            ("the V2 model runner", "f-v2"),
        )
    },
    "in eager mode too: all of the {} kernels": [f"{KINDS}|f-drafts|other_compiled"],
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
    "TP 1: {} calls of Qwen3.5-9B, {} of Qwen3-Next-80B-A3B and {} of Kimi-Linear-48B-A3B": [
        f"checked|{model}" for model in ("qwen3.5-9b", "qwen3-next-80b-a3b", "kimi-linear-48b-a3b")
    ],
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
    "within {} times the seconds of (warm-graphs) | {} times | Dynamo traces and Inductor compiles; with vLLM's "
    "compile cache in the artifact {} times": [
        "1.3",
        f"{DEPLOYED}|e-graphs|ready_seconds / {DEPLOYED}|warm-graphs|ready_seconds",
        f"{DEPLOYED}|e-graphs-packed|ready_seconds / {DEPLOYED}|warm-graphs|ready_seconds",
    ],
    "no kernel is compiled in (e-graphs) | {} |": [f"{DEPLOYED}|e-graphs|other_compiled"],
    "fewer blocks than that of (warm-graphs) | {} and {} blocks | compiling takes memory that vLLM measures; with "
    "vLLM's compile cache in the artifact {}": [
        f"{DEPLOYED}|{case}|kv_blocks" for case in ("e-graphs", "warm-graphs", "e-graphs-packed")
    ],
    "no kernel is compiled in (f-drafts) | {} |": [f"{KINDS}|f-drafts|other_compiled"],
    "at most {} times the best of FLA's candidates | {}, by": [
        "tunings|limit",
        "tunings|kernels qwen3.5-9b tp 4 512|3",
    ],
    "than in SGLang alone | {}, {}, {} ms; (plain) {}, {}, {} ms, (warm) {}, {}, {} ms; not judged": [
        f"{ENGINE}|{case}|steady_of_8_ms|{length}"
        for case in ("aot", "plain", "warm")
        for length in ("50", "1000", "8000")
    ],
    # Two processes of each case of SGLang's engine
    "The medians after 50 tokens are between {} and {} ms in the {} processes of SGLang alone, {} and {} "
    "ms in those of (aot), and {} and {} ms in those of (captured)": [
        "sglang_answers|summary|warm-again|steady_of_8_ms|50",
        "sglang_answers|summary|plain|steady_of_8_ms|50",
        "3",
        "sglang_answers|summary|aot|steady_of_8_ms|50",
        "sglang_answers|summary|aot-again|steady_of_8_ms|50",
        "sglang_answers|summary|captured|steady_of_8_ms|50",
        "sglang_answers|summary|captured-again|steady_of_8_ms|50",
    ],
    "the slowest of all and the fastest, {} ms apart": [
        "sglang_answers|summary|aot|steady_of_8_ms|50 - sglang_answers|summary|aot-again|steady_of_8_ms|50"
    ],
    "The first request of (captured) again takes {} s; of these the scheduler is {} s in torch.compile, {"
    "} s in imports, {} s in Triton, {} s in SGLang and PyTorch": [
        "sglang_answers|records|captured-again|profile|first|seconds",
        "sglang_answers|records|captured-again|profile|first|in|torch.compile",
        "sglang_answers|records|captured-again|profile|first|in|imports",
        "sglang_answers|records|captured-again|profile|first|in|Triton",
        "sglang_answers|records|captured-again|profile|first|in|SGLang and PyTorch",
    ],
    "The first request of (warm) again takes {} s; of these the scheduler is {} s in torch.compile, {} s "
    "in Triton, {} s in SGLang and PyTorch, {} s in imports": [
        "sglang_answers|records|warm-again|profile|first|seconds",
        "sglang_answers|records|warm-again|profile|first|in|torch.compile",
        "sglang_answers|records|warm-again|profile|first|in|Triton",
        "sglang_answers|records|warm-again|profile|first|in|SGLang and PyTorch",
        "sglang_answers|records|warm-again|profile|first|in|imports",
    ],
    "The first request of (aot) again takes {} s; of these the scheduler is {} s in Triton, {} s in torch"
    ".compile, {} s in imports, {} s in SGLang and PyTorch": [
        "sglang_answers|records|aot-again|profile|first|seconds",
        "sglang_answers|records|aot-again|profile|first|in|Triton",
        "sglang_answers|records|aot-again|profile|first|in|torch.compile",
        "sglang_answers|records|aot-again|profile|first|in|imports",
        "sglang_answers|records|aot-again|profile|first|in|SGLang and PyTorch",
    ],
    # Other configurations of SGLang's kernels
    "tokens it takes {} us with SGLang's two stages, with four {} us": [
        "sglang_options|rows|30|own_us",
        "sglang_options|rows|30|best_us",
    ],
    "at 2048 tokens {} us and {} us": ["sglang_options|rows|19|own_us", "sglang_options|rows|19|best_us"],
    "takes {} us, with one warp {} us": ["sglang_options|rows|28|own_us", "sglang_options|rows|28|best_us"],
    "takes {} us, with more warps {} us; of": ["sglang_options|rows|35|own_us", "sglang_options|rows|35|best_us"],
    "takes {} us, with more warps {} us.": ["sglang_options|rows|46|own_us", "sglang_options|rows|46|best_us"],
    "benchmarked in (captured) | {} compiled |": [f"{ENGINE}|captured|compiled_later"],
    "(captured), 50 tokens, takes at most {} times a later one | {} times, later {} and {} |": [
        "2",
        f"{ENGINE}|captured|first_ms|50 / {ENGINE}|captured|steady_ms|50",
        "sglang_answers|summary|captured|first_ms|50 / sglang_answers|summary|captured|steady_ms|50",
        "sglang_answers|summary|captured-again|first_ms|50 / sglang_answers|summary|captured-again|steady_ms|50",
    ],
    "times a later one | {} times | PyTorch": [f"{VLLM}|e|first_token_ms|50 / {VLLM}|e|steady_ms|50"],
    "half of all default choices are expected to take more than {} % longer than the best, a tenth more than {} %; of "
    "transferred ones {} % and {} %": [
        f"regret|expected|{provenance}|{what} * 100"
        for provenance in ("default", "transferred")
        for what in ("median", "p90")
    ],
    "in sm_80 of {} and in sm_89 of {} with those of KDA": [
        f"regrets|proxy/{{}}/fla-core-0.6.0|{target} keys" for target in ("sm_80", "sm_89")
    ],
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

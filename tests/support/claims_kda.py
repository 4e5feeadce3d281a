"""The claims of the performance page about Kimi Delta Attention; see `claims`."""

from figures import KDA_RECORDS

KDA_SHAPE = "kimi-linear-48b-a3b tp 1"
KDA_CALLS = "gpu_tests_kda|test_200_random_calls_of_each_model_with_kda|kimi-linear-48b-a3b"
KDA_VLLM, KDA_FLA, KDA_SGLANG, *KDA_PROXIES = (f"kda|{path}" for path in KDA_RECORDS)
KDA_TRAINED = "gpu_tests_kda_train|test_200_random_calls_of_training_of_each_model_with_kda|kimi-linear-48b-a3b"
KDA_STEPS = "gpu_tests_vllm_kda|test_200_random_steps_of_each_model_with_kda|kimi-linear-48b-a3b"
STEPS = "gpu_tests_sglang|test_300_random_steps_compile_and_benchmark_nothing"
KINDS_OF_STEP = ("prefill", "decode", "mixed", "speculative")
LOOKUPS = ("processes", "each", "least", "most", "loading_least", "loading_most")

KDA_CLAIMS: dict[str, list[str]] = {
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
    "{} random calls of its training": [f"{KDA_TRAINED}|checked"],
    "gate by itself, compiled {} kernels and benchmarked {}; in {} calls": [
        f"{KDA_TRAINED}|watch|compiled",
        f"{KDA_TRAINED}|watch|benchmarked",
        f"{KDA_TRAINED}|wrong",
    ],
    "with {} of its {} choices measured": [
        "gpu_tests_kda_train|choices|measured",
        "gpu_tests_kda_train|choices|all",
    ],
    "which was empty before, had {} files": [f"{KDA_TRAINED}|watch|cache_files"],
    "of a prefill take {}, {}, {} and {} times the time of the best": [
        f"tunings|kernels_kda {KDA_SHAPE} {tokens}|3" for tokens in (512, 2048, 8192, 32768)
    ],
    "in three tunings, take {}, {} and {} times as long": [
        f"tunings|kernels_kda {KDA_SHAPE} 8192|{place}" for place in range(3)
    ],
    "In vLLM 0.24.0, {} random steps": [f"{KDA_STEPS}|checked"],
    "the norm: {} kernels were compiled, {} benchmarked, and {} results": [
        f"{KDA_STEPS}|watch|compiled",
        f"{KDA_STEPS}|watch|benchmarked",
        f"{KDA_STEPS}|wrong",
    ],
    # Kimi Delta Attention in vLLM and SGLang
    "Medians of {} processes; of {} of SGLang after PyTorch's own work; of {} or {} without a C compiler": [
        "cold_start_vllm_kda|summary|e|dense|processes",
        "cold_start_sglang_kda|summary|e-torch|dense|processes",
        "cold_start_sglang_kda|summary|nocc|varlen|processes",
        "cold_start_sglang_kda|summary|nocc|dense|processes",
    ],
    "`preload()` took {} to {} s in SGLang and left PyTorch's allocator with {} to {} MiB": [
        *(f"preloads|sglang|ms|{end} / 1000" for end in (0, -1)),
        *(f"preloads|sglang|reserved_mib|{end}" for end in (0, -1)),
    ],
    "Before it gave memory back it took {} to {} s and left {} MiB. In vLLM it took {} to {} s and left {} MiB": [
        *(f"preloads|before|ms|{end} / 1000" for end in (0, -1)),
        "preloads|before|reserved_mib|0",
        *(f"preloads|vllm|ms|{end} / 1000" for end in (0, -1)),
        "preloads|vllm|reserved_mib|-1",
    ],
    "left {} to {} MiB in SGLang and {} MiB in vLLM": [
        *(f"preloads|sglang pool|reserved_mib|{end}" for end in (0, -1)),
        "preloads|vllm pool|reserved_mib|0",
    ],
    "in each SGLang benchmarks the {} candidates": ["cold_start_sglang_kda|summary|b|dense|benchmarked|median"],
    "takes {} s in the process of (b), which has not compiled them, and {} ms in that of (e)": [
        "cold_start_sglang_kda|summary|b|small|first_ms|median / 1000",
        "cold_start_sglang_kda|summary|e|small|first_ms|median",
    ],
    "{} random steps of SGLang's layers in strict mode, {} of them of": [
        f"{STEPS}|checked",
        " + ".join(f"{STEPS}|steps|{kind} of kimi-linear-48b-a3b" for kind in KINDS_OF_STEP),
    ],
    # The loader and the floor
    "confidence interval at {} %. The goal is at most {} ms, at": ["floor|confidence * 100", "floor|limit"],
    "Pairs: {} of vLLM and of SGLang, {} of SGLang after PyTorch's own work, {} of FLA": [
        "cold_start_vllm_kda|pairs|e-f|dense|first_ms|pairs",
        "cold_start_sglang_kda|pairs|e-torch-f-torch|dense|first_ms|pairs",
        "cold_start_kda_pairs|pairs|e-f|dense|first_ms|pairs",
    ],
    "the loader adds {} to {} ms by median, in single pairs up to {} ms": [
        "floor|added|0",
        "floor|added|-1",
        "floor|single",
    ],
    "Of these calls {} had no choice": ["others|skipped"],
    "single processes of vLLM's floor took {} to {} ms with one prompt and {} to {} ms with three packed": [
        f"cold_start_vllm_kda|summary|f|{call}|first_ms|{end}"
        for call in ("dense", "varlen")
        for end in ("low", "high")
    ],
    "In {} other processes of vLLM's (e), with a clock put around them by hand, its {} lookups took {} to {} ms, "
    "{} to {} ms of that in the driver": [f"lookups|vllm|{what}" for what in LOOKUPS],
    "in {} of SGLang's its {} lookups took {} to {} ms, {} to {} ms": [f"lookups|sglang|{what}" for what in LOOKUPS],
    # Choices for Kimi Delta Attention
    "a choice more than {} times the best": ["tunings|limit"],
    "for long prompts would leave {} of FLA's missed keys, one for each length {}": [
        f"{KDA_FLA}|two",
        f"{KDA_FLA}|each",
    ],
    **{
        f"| {words} | {{}} | {{}} | {' | '.join(4 * ['{}% / {}% / {}%'])} |": [
            f"kda|{path}|keys",
            f"kda|{path}|missed",
            *(
                f"100 * kda|{path}|{tokens}|{which}"
                for tokens in (512, 2048, 8192, 32768)
                for which in ("median", "p90", "max")
            ),
        ]
        for words, path in zip(
            (
                "vLLM 0.24.0 (sm_90)",
                "FLA (sm_90)",
                "SGLang 0.5.17 (sm_90)",
                "FLA by proxy (sm_80)",
                "FLA by proxy (sm_89)",
            ),
            KDA_RECORDS,
            strict=True,
        )
    },
    "missed keys {} are of the cumulated sum of the decay, {} of `recompute_w_u`, {} of `inter_solve`, {} of the": [
        f"{KDA_FLA}|kernels|{kernel}"
        for kernel in (
            "chunk_local_cumsum_vector_kernel",
            "recompute_w_u_fwd_kda_kernel",
            "chunk_kda_fwd_kernel_inter_solve_fused",
            "chunk_gla_fwd_kernel_o",
        )
    ],
    "Of vLLM's {} are of `recompute_w_u`, {} of the cumulated sum, of SGLang's {} of": [
        *(f"{KDA_VLLM}|kernels|{kernel}" for kernel in ("recompute_w_u_fwd_kernel", "kda_gate_cumsum_fwd_kernel")),
        f"{KDA_SGLANG}|kernels|kda_gate_chunk_cumsum_vector_kernel",
    ],
    "The {} keys of `chunk_kda_bwd_kernel_wy_dqkg_fused`": [f"{KDA_FLA}|added"],
    "{} keys of SGLang's `inter_solve` of short prompts": [f"{KDA_SGLANG}|added"],
    "For {} of FLA's missed keys, {} and {} by proxy, {} of vLLM's and {} of SGLang's": [
        f"{record}|possible" for record in (KDA_FLA, *KDA_PROXIES, KDA_VLLM, KDA_SGLANG)
    ],
    "of such candidates within {} % of the best": ["regrets|near"],
    # Missed goals
    "every choice for Kimi Delta Attention takes at most {} times the best at each length from 512 tokens on | "
    "missed for {} of {} keys (vLLM), {} of {} (FLA), {} of {} (SGLang), {} of {} (sm_80 by proxy) and {} of {} "
    "(sm_89 by proxy); at most {}, {}, {}, {} and {} times": [
        "tunings|limit",
        *(f"kda|{path}|{what}" for path in KDA_RECORDS for what in ("missed", "keys")),
        *(f"kda|{path}|most" for path in KDA_RECORDS),
    ],
}

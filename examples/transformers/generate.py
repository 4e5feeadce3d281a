"""A model of transformers whose GDN kernels come from an artifact: how long its first prompt takes, and what served it.

Without ``--model`` it is a small Qwen3.5 with random weights and the GDN heads of Qwen3.5-9B: nothing is downloaded.
Run it once with ``--plain`` for what the same costs without gdn-aot, with ``TRITON_CACHE_DIR`` an empty directory.

Usage::

    gdn-aot fetch --repo hf://org/kernels  # or name a file with --artifact
    python examples/transformers/generate.py [--artifact FILE] [--model NAME] [--plain]
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

SMALL = {
    "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 4096, "pad_token_id": 0,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "dtype": "bfloat16",
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
}  # fmt: skip


def make(name: str | None, device: str) -> Any:
    """Return a model of the Hub or of a directory, or the small one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if name is not None:
        return AutoModelForCausalLM.from_pretrained(name, dtype="bfloat16").to(device).eval()
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_5_text", **SMALL)).to(device).eval()


def main() -> int:
    """Generate twice from a prompt of 300 tokens, and say how long each took."""
    parser = argparse.ArgumentParser(description="Generate with GDN kernels from an artifact.")
    parser.add_argument("--artifact", help="a file; without it, what gdn-aot fetch put into the store")
    parser.add_argument(
        "--model", help="a name on the Hub or a directory; without it, a small model with random weights"
    )
    parser.add_argument("--plain", action="store_true", help="without gdn-aot")
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    if not asked.plain:
        import gdn_aot

        gdn_aot.install(asked.artifact)  # before or after the model's code is imported
        if asked.model is not None:
            gdn_aot.preload(model=asked.model)  # the first request then waits for nothing

    import importlib.util

    if lacking := [name for name in ("torch", "transformers", "fla") if importlib.util.find_spec(name) is None]:
        sys.stderr.write(f"not installed: {', '.join(lacking)}; pip install torch transformers fla-core\n")
        return 1
    import torch

    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("there is no CUDA device here; gdn-aot doctor says what a serving process would find\n")
        return 1
    model = make(asked.model, asked.device)
    prompt = torch.randint(1, 4096, (1, 300), device=asked.device)
    for which in ("first", "second"):
        start = time.perf_counter()
        model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, min_new_tokens=8)
        sys.stdout.write(f"{which} prompt: {time.perf_counter() - start:.3f} s\n")
    if not asked.plain:
        report = gdn_aot.report()
        served, missed = sum(report.loaded.values()), len(report.misses)
        sys.stdout.write(f"served from artifacts: {served} binaries of {len(report.loaded)} kernels, {missed} misses\n")
        for line in (*filter(None, [report.problem]), *map(str, report.misses)):
            sys.stdout.write(f"  {line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

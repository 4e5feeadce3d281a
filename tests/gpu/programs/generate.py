"""Greedy generation by a small Qwen3-Next of transformers, with random weights and the true heads of its GDN layers."""

import time
from typing import Any

import torch
from gpu import calls

LAYERS = 4
"""Three GDN layers and one of attention."""
VOCABULARY = 4096
PROMPTS = (7, 100, 700)
BATCH = (33, 250, 120)
"""Lengths of prompts that go into one batch, padded on the left."""


def make_model() -> Any:
    """Return the model; the same weights in every process."""
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    config = Qwen3NextConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_conv_kernel_dim=4,
        # No mixture of experts: its kernels and their rounding are not what is tested.
        mlp_only_layers=list(range(LAYERS)),
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=64,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return Qwen3NextForCausalLM(config).to(torch.bfloat16).eval()


def prompts() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return (tokens, attention mask) of each prompt or batch of prompts."""
    source = torch.Generator().manual_seed(1)

    def draw(length: int) -> torch.Tensor:
        return torch.randint(1, VOCABULARY, (length,), generator=source)

    made = {f"{length} tokens": (draw(length)[None], torch.ones(1, length, dtype=torch.int64)) for length in PROMPTS}
    longest = max(BATCH)
    rows = torch.zeros(len(BATCH), longest, dtype=torch.int64)
    mask = torch.zeros_like(rows)
    for row, length in enumerate(BATCH):
        rows[row, longest - length :] = draw(length)
        mask[row, longest - length :] = 1
    made[f"batch of {len(BATCH)}"] = rows, mask
    return made


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Generate for every prompt; time the first token of each."""
    watch = calls.watched(options)
    import transformers
    from transformers.utils import import_utils

    import_started = time.perf_counter()
    model = make_model()
    fla_available = bool(import_utils.is_flash_linear_attention_available())
    total = sum(float(parameter.double().sum()) for parameter in model.parameters())
    model = model.to(calls.DEVICE)
    calls.synchronize()
    loading = time.perf_counter() - import_started

    def generate(tokens: torch.Tensor, mask: torch.Tensor, count: int) -> tuple[list[list[int]], float]:
        started = time.perf_counter()
        with torch.no_grad():
            found = model.generate(
                input_ids=tokens, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False
            )
        calls.synchronize()
        return found[:, tokens.shape[1] :].tolist(), time.perf_counter() - started

    tokens_of: dict[str, list[list[int]]] = {}
    first: dict[str, float] = {}
    steady: dict[str, float] = {}
    for name, (rows, mask) in prompts().items():
        on_device = rows.to(calls.DEVICE), mask.to(calls.DEVICE)
        _, first[name] = generate(*on_device, 1)
        _, steady[name] = generate(*on_device, 1)
        tokens_of[name], _ = generate(*on_device, options["new_tokens"])
    answer: dict[str, Any] = {
        "transformers": transformers.__version__,
        "fla_available": fla_available,
        "weights": total,
        "loading_seconds": loading,
        "first_token_seconds": first,
        "steady_first_token_seconds": steady,
        "tokens": tokens_of,
        "watch": watch.to_dict(),
    }
    if options["served"]:
        answer["report"] = calls.report()
    return answer


if __name__ == "__main__":
    calls.finish(main)

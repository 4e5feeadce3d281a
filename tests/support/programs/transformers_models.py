"""Call models of transformers as its users do, served in strict mode: ``ARTIFACT TARGET MODEL,... WAY...``.

Models and weights are transformers' own, on the CPU; layers are narrow and few, but heads and head dimensions are those
of the checkpoints. FLA's operators run as on a GPU, up to the driver: `launching` stands in for it. Prints for every
model and way of calling it how often each operator ran and what was launched, and what was missed.
"""

import functools
import json
import sys
from collections import Counter
from typing import Any

import launching

driver = launching.start(sys.argv[2])
counter = launching.Counter()

import fla.ops.gated_delta_rule  # noqa: E402
import fla.ops.kda  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, set_seed  # noqa: E402
from transformers.utils import logging  # noqa: E402

import gdn_aot  # noqa: E402
from gdn_aot.providers.fla import stand_in  # noqa: E402

stand_in.answer_for_tensors_on_no_device()
NARROW = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 96, "pad_token_id": 0,
    "layer_types": ["linear_attention", "full_attention"], "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "max_position_embeddings": 4096, "dtype": "bfloat16",
}  # fmt: skip
LINEAR = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")


LATENT = {
    "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16, "num_key_value_heads": 2,
    "mlp_layer_types": ["dense", "dense"], "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""Of models whose attention layers are narrow latent ones (MLA), without experts."""


def _linear(*sizes: int) -> dict[str, int]:
    return {f"linear_{name}": size for name, size in zip(LINEAR, sizes, strict=True)}


MODELS: dict[str, dict[str, Any]] = {
    "qwen3_5_text": _linear(16, 32, 128, 128),  # Qwen3.5-9B
    "qwen3_next": {  # Qwen3-Next-80B
        **_linear(16, 32, 128, 128), "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1,
    },
    "olmo_hybrid": {**_linear(30, 30, 96, 192), "num_key_value_heads": 2, "linear_allow_neg_eigval": True},
    "kimi_linear": {"linear_num_heads": 32, "linear_head_dim": 128, **LATENT},  # Kimi-Linear-48B
    "bailing_hybrid": {  # Ling-3.0-flash
        **LATENT, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
    },
}  # fmt: skip

ran: Counter[str] = Counter()


def count(operators: Any, name: str) -> None:
    """Count calls of one of FLA's operators. To be done before a model is imported: it takes what it then finds."""
    own = getattr(operators, name)

    @functools.wraps(own)
    def counted(*args: Any, **kwargs: Any) -> Any:
        ran[name] += 1
        return own(*args, **kwargs)

    setattr(operators, name, counted)


def prompt(batch: int, tokens: int) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.randint(1, 96, (batch, tokens)),
        "attention_mask": torch.ones(batch, tokens, dtype=torch.long),
    }


def pack(kind: torch.dtype) -> dict[str, Any]:
    """Return two prompts in one row, with what ``DataCollatorWithFlattening`` gives; its ends are int32."""
    ends = torch.tensor([0, 70, 200], dtype=kind)
    more = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 130, "max_length_k": 130}
    positions = torch.cat([torch.arange(70), torch.arange(130)])[None]
    return {"input_ids": torch.randint(1, 96, (1, 200)), "position_ids": positions, **more}


def generate(model: Any, *inputs: Any, **more: Any) -> Any:
    return model.generate(*inputs, do_sample=False, max_new_tokens=4, min_new_tokens=4, **more)


def prefill(model: Any) -> None:
    for tokens in (1, 63, 64, 300):
        model(**prompt(1, tokens))
        model(**prompt(1, tokens), use_cache=False)


def padded(model: Any) -> None:
    inputs = prompt(3, 130)
    inputs["attention_mask"][0, :100] = 0
    inputs["attention_mask"][1, :5] = 0
    generate(model, **inputs)


def packed(model: Any) -> None:
    for kind in (torch.int32, torch.int64):
        for use_cache in (False, True):
            model(**pack(kind), use_cache=use_cache)


def decode(model: Any) -> None:
    for batch in (1, 2, 5):
        generate(model, **prompt(batch, 20))


def turns(model: Any) -> None:
    """A second prompt goes on from the state of the first."""
    first = model(**prompt(2, 90))
    cache = first.past_key_values
    second = prompt(2, 70)
    mask = torch.ones(2, 160, dtype=torch.long)
    model(second["input_ids"], attention_mask=mask, past_key_values=cache, use_cache=True)
    mask = torch.ones(2, 161, dtype=torch.long)
    model(second["input_ids"][:, :1], attention_mask=mask, past_key_values=cache, use_cache=True)


def chunked(model: Any) -> None:
    generate(model, **prompt(1, 300), prefill_chunk_size=128)


def static(model: Any) -> None:
    generate(model, **prompt(2, 40), cache_implementation="static")


def train(model: Any) -> None:
    for inputs in (prompt(1, 200), prompt(2, 64), pack(torch.int32)):
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    layers = [module for module in model.modules() if "Delta" in type(module).__name__]
    gradients = [parameter.grad for layer in layers for parameter in layer.parameters()]
    assert gradients
    assert all(gradient is not None for gradient in gradients)


def main() -> None:
    """Call every model in every way that is asked for, and print what came of it."""
    artifact, _, models, *ways = sys.argv[1:]
    gdn_aot.install(artifact, strict=True)
    for name in ("chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule"):
        count(fla.ops.gated_delta_rule, name)
    for name in ("chunk_kda", "fused_recurrent_kda"):
        count(fla.ops.kda, name)
    logging.set_verbosity_error()
    set_seed(0)
    done: dict[str, dict[str, Any]] = {}
    for kind in models.split(","):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**NARROW, **MODELS[kind]}))
        done[kind] = {}
        for way in ways:
            ran.clear()
            driver.launched.clear()
            model.train(way == "train")
            with torch.set_grad_enabled(way == "train"):
                globals()[way](model)
            done[kind][way] = {"ran": dict(ran), "launched": Counter(entry for entry, _ in driver.launched)}
    report = gdn_aot.report().to_dict()
    more = {"transformers": transformers.__version__, "compiled": counter.compiled, "benchmarked": counter.benchmarked}
    print(json.dumps({"done": done, "report": report, **more}))


main()

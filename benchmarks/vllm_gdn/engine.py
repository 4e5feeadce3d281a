"""One fresh process with a real vLLM engine: start it, send it requests, and write down what happened.

    python engine.py SPEC.json

The specification is that of a case, see `vllm_gdn.plan.Case`, with ``model`` (folder of its configuration) and ``out``
(where the record goes). Weights are random and prompts are token ids, the same in every process. The engine runs in
this process, so that what Triton does can be counted. What is installed in it comes from the environment alone.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

STARTED = time.time()
HERE = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "TOKENIZERS_PARALLELISM": "false",
}
ENGINE = {
    "skip_tokenizer_init": True,
    "load_format": "dummy",
    "dtype": "bfloat16",
    "seed": 0,
    "gpu_memory_utilization": 0.5,
    "max_model_len": 16384,
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 64,
    "gdn_prefill_backend": "triton",
    "mamba_ssm_cache_dtype": "auto",
}
UNTUNED = ("_fused_post_conv_kernel", "_causal_conv1d_fwd_kernel", "layer_norm_fwd_kernel")
"""GDN kernels of a prefill that are not autotuned; the others are recognized by their autotuner."""
MIB = 1 << 20


class Run:
    """One process of a case, which ``spec`` describes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.record: dict[str, Any] = {"case": spec["name"], "error": None, "graphs": spec["graphs"]}
        self.record |= {"requests": [], "prefill": {}}
        self._random = random.Random(1)
        self._count = 0
        self._ballast: Any = None

    def all(self) -> None:
        """Run the case. Whatever ends it is in the record."""
        try:
            self._start()
            self._squeeze()
            for tokens in self.spec["lengths"]:
                for number in range(self.spec["repeat"]):
                    self._request(tokens, number)
            self.record["free_after"] = self._free()
            for tokens in self.spec["prefill"]:
                self.record["prefill"][str(tokens)] = self._prefill(tokens)
            if self.spec["traffic"]:
                self._traffic()
        except Exception as error:  # noqa: BLE001 - running out of memory is a result
            self.record["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        self.record["process"] = self._watch.since(self._begin)
        self.record["process"]["seconds"] = time.time() - STARTED
        self._loader()
        self.save()

    def save(self) -> None:
        """Write the record as it is now."""
        Path(self.spec["out"]).write_text(json.dumps(self.record, indent=1) + "\n")

    def _start(self) -> None:
        import torch
        import triton

        self._torch = torch
        self._watch = counters()
        self._begin = self._watch.mark()
        import vllm
        from vllm import LLM
        from vllm.model_executor.layers.mamba.gdn import qwen_gdn_linear_attn as layer

        self.record["versions"] = {"vllm": vllm.__version__, "torch": torch.__version__, "triton": triton.__version__}
        self._layer_class = layer.QwenGatedDeltaNetAttention
        self._time_warm_up()
        mark = self._watch.mark()
        self._llm = LLM(model=self.spec["model"], **{**ENGINE, **self.spec["engine"]})
        self._adapters = adapters(self.spec) if self.spec["engine"].get("enable_lora") else []
        torch.cuda.synchronize()
        self.record["init"] = self._watch.since(mark)
        self.record["ready"] = time.time() - STARTED
        self.record["device"] = torch.cuda.get_device_name(0)
        self._engine = self._llm.llm_engine
        executor = self._engine.engine_core.engine_core.model_executor
        worker = executor.driver_worker.worker
        self._model = worker.model_runner.model
        self.record["kv_blocks"] = worker.cache_config.num_gpu_blocks
        self.record["kv_bytes"] = int(getattr(worker, "available_kv_cache_memory_bytes", 0))
        self.record["free_ready"] = self._free()
        self._tuners = self._find_tuners()
        self.save()

    def _time_warm_up(self) -> None:
        """Time vLLM's own warm-up of the prefill kernels, or leave it out, as it was before it had one."""
        original = self._layer_class._warmup_prefill_kernels  # noqa: SLF001 - what the case is about
        self.record["warm_up"] = 0.0

        def warm_up(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.spec["warm_up"]:
                return None
            self._torch.cuda.synchronize()
            start = time.perf_counter()
            try:
                return original(layer, *args, **kwargs)
            finally:
                self._torch.cuda.synchronize()
                self.record["warm_up"] += time.perf_counter() - start

        self._layer_class._warmup_prefill_kernels = warm_up  # noqa: SLF001

    def _find_tuners(self) -> dict[str, Any]:
        from counting import is_gdn
        from triton.runtime.autotuner import Autotuner

        found: dict[str, Any] = {}
        for name, module in list(sys.modules.items()):
            for value in list(vars(module).values()) if module is not None and is_gdn(name) else ():
                below = value
                while below is not None and not isinstance(below, Autotuner):
                    below = getattr(below, "fn", None) if type(below).__module__.startswith("triton") else None
                if below is not None:
                    found[below.base_fn.__name__] = below
        return dict(sorted(found.items()))

    def _free(self) -> int:
        """Return the bytes that are free on the device, with nothing kept in PyTorch's pool."""
        self._torch.cuda.synchronize()
        self._torch.cuda.empty_cache()
        return int(self._torch.cuda.mem_get_info()[0])

    def _squeeze(self) -> None:
        """Leave only so much memory free as the case says, as a card has that the KV cache has filled."""
        if self.spec["leave_mib"]:
            spare = self._free() - self.spec["leave_mib"] * MIB
            self._ballast = self._torch.empty(max(spare, 0), dtype=self._torch.uint8, device="cuda")
            self.record["free_squeezed"] = int(self._torch.cuda.mem_get_info()[0])

    def _add(self, tokens: int, output: int) -> str:
        from vllm import SamplingParams

        self._count += 1
        name = f"r{self._count}"
        prompt = {"prompt_token_ids": [self._random.randrange(10, 32000) for _ in range(tokens)]}
        wanted = SamplingParams(temperature=0.0, max_tokens=output, ignore_eos=True, detokenize=False)
        adapter = self._random.choice([None, *self._adapters]) if self._adapters else None
        self._engine.add_request(name, prompt, wanted, lora_request=adapter)
        return name

    def _drive(self, start: float) -> tuple[list[float], dict[str, list[int]]]:
        """Step until nothing is left. Returns when new tokens came, in seconds from ``start``, and the tokens."""
        stamps: list[float] = []
        tokens: dict[str, list[int]] = {}
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                made = list(output.outputs[0].token_ids)
                if len(made) > len(tokens.get(output.request_id, ())):
                    stamps.append(time.perf_counter() - start)
                tokens[output.request_id] = made
        self._torch.cuda.synchronize()
        return stamps, tokens

    def _request(self, tokens: int, number: int, output: int = 8) -> None:
        mark = self._watch.mark()
        self._torch.cuda.synchronize()
        start = time.perf_counter()
        self._add(tokens, output)
        stamps, made = self._drive(start)
        self.record["requests"].append(
            {
                "tokens": tokens,
                "number": number,
                "first_token": stamps[0],
                "output": next(iter(made.values())),
                **self._watch.since(mark),
            }
        )
        self.save()

    def _prefill(self, tokens: int, repeat: int = 4) -> dict[str, Any]:
        """Return the GPU microseconds of a GDN layer's kernels in a prefill, from PyTorch's profiler."""
        from torch.profiler import ProfilerActivity, profile

        for _ in range(2):
            self._add(tokens, 1)
            self._drive(time.perf_counter())
        spent: dict[str, float] = {}
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(repeat):
                self._add(tokens, 1)
                self._drive(time.perf_counter())
        for event in profiler.events():
            if "CUDA" in str(event.device_type).upper():
                spent[event.name] = spent.get(event.name, 0.0) + event.time_range.elapsed_us() / repeat
        layers = sum(isinstance(module, self._layer_class) for module in self._model.modules())
        own = {name: spent[name] / layers for name in (*self._tuners, *UNTUNED) if name in spent}
        tuned = sum(us for name, us in own.items() if name in self._tuners)
        return {"layers": layers, "kernels": own, "tuned": tuned, "gdn": sum(own.values()), "all": sum(spent.values())}

    def _traffic(self) -> None:
        """Send what a recording should have: many lengths, batches, and prompts that join running ones."""
        for tokens in (1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 256, 500, 1024, 2000, 4096, 8192, 12000):
            self._request(tokens, 0, 3)
        for batch in (2, 3, 4, 8, 15, 16, 17, 32, 64):
            for number in range(batch):
                self._add(20 + number, 5)
            self._drive(time.perf_counter())
        self._add(300, 12)
        for _ in range(4):
            self._engine.step()
        for tokens in (700, 64, 2048):
            self._add(tokens, 4)
        self._drive(time.perf_counter())

    def _loader(self) -> None:
        """Add what the loader says, if it is in this process."""
        if "gdn_aot.serving.loader" in sys.modules:
            import gdn_aot

            self.record["loader"] = gdn_aot.report().to_dict()


def adapters(spec: dict[str, Any], count: int = 2, rank: int = 8) -> list[Any]:
    """Write adapters with random weights for the attention of the model's layers; return vLLM's requests for them."""
    import torch
    from safetensors.torch import save_file
    from vllm.lora.request import LoRARequest

    config = json.loads((Path(spec["model"]) / "config.json").read_text())
    hidden, width = config["hidden_size"], config["head_dim"] * config["num_attention_heads"]
    sizes = {"q_proj": (hidden, 2 * width), "o_proj": (width, hidden)}  # the gate of the output is a half of q_proj
    layers = [number for number, kind in enumerate(config["layer_types"]) if kind == "full_attention"]
    found = []
    for number in range(1, count + 1):
        folder = Path(spec["out"]).with_suffix(f".adapter{number}")
        folder.mkdir(exist_ok=True)
        weights = {}
        for layer in layers:
            for name, (taken, given) in sizes.items():
                path = f"base_model.model.model.layers.{layer}.self_attn.{name}"
                weights[f"{path}.lora_A.weight"] = torch.randn(rank, taken, dtype=torch.bfloat16) * 0.02
                weights[f"{path}.lora_B.weight"] = torch.randn(given, rank, dtype=torch.bfloat16) * 0.02
        save_file(weights, folder / "adapter_model.safetensors")
        about = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none"}
        (folder / "adapter_config.json").write_text(json.dumps({**about, "target_modules": [*sizes]}))
        found.append(LoRARequest(folder.name, number, str(folder)))
    return found


def counters() -> Any:
    """Return the counts of what Triton does from now on.

    The folder with benchmarks is no place for imports while an engine runs: one of its programs has the name of a
    package that numba, which vLLM imports for drafts by the prompt, looks for.
    """
    sys.path.insert(0, str(HERE))
    try:
        from counting import Counters
    finally:
        sys.path.remove(str(HERE))
    return Counters()


def main() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    run = Run(json.loads(Path(sys.argv[1]).read_text()))
    run.all()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

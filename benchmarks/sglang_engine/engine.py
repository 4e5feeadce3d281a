"""One fresh process with SGLang's engine: start it, send it requests one after the other, write down what happened.

    python engine.py SPEC.json

The specification is that of a case, see `sglang_engine.plan.specification`. Weights are random and prompts are token
ids, the same in every process. What is installed in it comes from the environment alone. The scheduler, where kernels
run, is a process that SGLang spawns, which imports this file too.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STARTED = time.time()
YARD = 200_000
"""Numbers that are squared before each request, whose time says how fast the machine is then."""
ENGINE = {
    "skip_tokenizer_init": True,
    "load_format": "dummy",
    "dtype": "bfloat16",
    "random_seed": 0,
    "mem_fraction_static": 0.2,
    "context_length": 16384,
    "chunked_prefill_size": 8192,
    "max_running_requests": 64,
    "attention_backend": "triton",
    "linear_attn_backend": "triton",
    "moe_runner_backend": "triton",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "disable_custom_all_reduce": True,
    "disable_cuda_graph": True,
    "log_level": "info",
    "host": "127.0.0.1",
}
"""Memory is for no more states of a layer than a whole model leaves room for: with more, strides have other types."""

DRAWN = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "sampling_seed": 7}
"""Sampling of the last request. SGLang heeds the seed only with ``enable_deterministic_inference``."""


class Run:
    """One process of a case, which ``spec`` describes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.record: dict[str, Any] = {"case": spec["name"], "error": None, "started": STARTED, "requests": []}
        self._random = random.Random(1)
        self._sample = ""

    def all(self) -> None:
        """Run the case. Whatever ends it is in the record."""
        try:
            self._start()
            lengths, answers = self.spec["lengths"], self.spec["answers"]
            for tokens in lengths:
                for number in range(self.spec["repeat"]):
                    with self._sampled("first" if not self.record["requests"] else ""):
                        self._request([tokens], number, 1)
            for tokens in lengths:
                for number in range(answers):
                    self._request([tokens], number, 8)
            for number in range(self.spec["batches"]):
                self._request([20, 300, 700, 64], number, 8)
            with self._sampled("answers"):
                for number in range(answers if self.spec["sampled"] else 0):
                    self._request([lengths[0]], answers + number, 8)
            self._request([lengths[0]], 0, 8, DRAWN)
            self.record["done"] = True
            self._engine.shutdown()
        except Exception as error:  # noqa: BLE001 - is a result
            self.record["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        self.save()

    def save(self) -> None:
        """Write the record as it is now."""
        place = Path(self.spec["out"])
        place.with_suffix(".new").write_text(json.dumps(self.record) + "\n")
        place.with_suffix(".new").replace(place)

    def _start(self) -> None:
        import sglang
        import torch
        import triton

        self.record["versions"] = {one.__name__: one.__version__ for one in (sglang, torch, triton)}
        self._engine = sglang.Engine(model_path=self.spec["model"], **{**ENGINE, **self.spec["options"]})
        self.record["ready_at"] = time.time()
        self.save()
        said = self._engine.get_server_info()
        self.record["pool_tokens"] = said.get("max_total_num_tokens")
        self.record["startup_time"] = said.get("startup_time")

    @contextmanager
    def _sampled(self, name: str) -> Iterator[None]:
        """Have the scheduler say where it is, see `counted.sample`, while requests of this name are answered."""
        if not (self.spec["sampled"] and name):
            yield
            return
        marker = Path(os.environ["SGLANG_ENGINE_COUNTS"], "sample")
        marker.touch()
        time.sleep(0.2)  # in which it notices, and after which it writes
        self._sample = name
        yield
        self._sample = ""
        marker.unlink()
        time.sleep(1)

    def _request(
        self, lengths: list[int], number: int, new: int, drawn: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Answer prompts of these lengths, which are sent together, with so many new tokens each, greedy or drawn."""
        prompts = [[self._random.randrange(10, 32000) for _ in range(length)] for length in lengths]
        sampling = {"temperature": 0.0, "max_new_tokens": new, "ignore_eos": True, **drawn}
        start = time.perf_counter()
        sum(number * number for number in range(YARD))
        yard = time.perf_counter() - start
        begun, start = time.time(), time.perf_counter()
        answers = self._engine.generate(input_ids=prompts, sampling_params=sampling)
        seconds = time.perf_counter() - start
        self.record["requests"].append(
            {
                "lengths": lengths,
                "number": number,
                "new": new,
                "begun": begun,
                "seconds": seconds,
                "yard_ms": 1e3 * yard,
                "sample": self._sample,
                "temperature": sampling["temperature"],
                "output": [answer["output_ids"] for answer in answers],
            }
        )
        self.save()


def main() -> None:
    run = Run(json.loads(Path(sys.argv[1]).read_text()))
    run.all()
    sys.stdout.flush()
    os._exit(0 if run.record["error"] is None else 1)


if __name__ == "__main__":
    main()

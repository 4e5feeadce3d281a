"""Drafted tokens: the drafter's model, and what a step reads of the results of kernels that do not run.

A drafter's own code reads what the kernels before it made: which tokens were accepted, and where the last of them is.
Without a card it stands here instead. All else, and every launch, is vLLM's.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from vllm.model_executor.model_loader.utils import initialize_model, process_weights_after_loading
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.sample import rejection_sampler
from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vllm.config import VllmConfig

METHODS = ("mtp", "ngram")
"""Of vLLM's ``speculative_config``: layers of the model's own checkpoint, and repetitions of the prompt."""
_META, _HOST = torch.device("meta"), torch.device("cpu")
_TOKEN = 1
"""What every accepted token is."""


def unknown(config: VllmConfig) -> list[str]:
    """Return what of a deployment's drafts is not enumerated."""
    given = config.speculative_config
    if given is None:
        return []
    if given.method not in METHODS:
        return [f"drafts of the method {given.method}"]
    beyond = {
        "a number of drafts that follows the batch": given.num_speculative_tokens_per_batch_size,
        "drafts that are made at once": given.parallel_drafting,
        "drafts by a part of the vocabulary": given.use_local_argmax_reduction,
        "drafts of another quantization": given.draft_model_config is not None
        and given.draft_model_config.quantization != config.model_config.quantization,
    }
    return [what for what, there in beyond.items() if there]


def prepare(config: VllmConfig) -> None:
    """Import what vLLM is about to: its ngram drafter runs as plain Python if what compiles it is not installed."""
    given = config.speculative_config
    if given is None or given.method != "ngram" or importlib.util.find_spec("numba") is not None:
        return
    numba: Any = ModuleType("numba")
    numba.jit = numba.njit = lambda *given, **_: given[0] if given and callable(given[0]) else lambda function: function
    numba.prange, numba.get_num_threads, numba.set_num_threads = range, lambda: 1, lambda _number: None
    sys.modules["numba"] = numba
    try:
        importlib.import_module("vllm.v1.spec_decode.ngram_proposer")
    finally:
        del sys.modules["numba"]


def load(runner: Any, model: Any) -> None:
    """Have the drafter of a runner load its model, if it has one, with no weights."""
    drafter = runner.drafter

    def make() -> Any:
        config, draft = drafter._create_draft_vllm_config(), drafter.draft_model_config  # noqa: SLF001
        with set_default_torch_dtype(draft.dtype), _META:
            made = initialize_model(config, model_config=draft)
            process_weights_after_loading(made, draft, _HOST)
        return made

    if isinstance(drafter, SpecDecodeBaseProposer):
        with mock.patch.object(drafter, "_get_model", make):
            drafter.load_model(model)


@contextlib.contextmanager
def accepting(accepted: Callable[[int], int]) -> Iterator[None]:
    """Return a block in which of so many drafts so many are accepted, as kernels of a card would say."""
    reject = rejection_sampler.rejection_sample
    following = SpecDecodeBaseProposer.prepare_next_token_ids_padded
    inputs = SpecDecodeBaseProposer.prepare_inputs_padded

    def rejected(draft_token_ids: Any, num_draft_tokens: list[int], *rest: Any, **named: Any) -> torch.Tensor:
        made: torch.Tensor = reject(draft_token_ids, num_draft_tokens, *rest, **named)
        for row, drafts in zip(made, num_draft_tokens, strict=True):
            row[: 1 + accepted(drafts)] = _TOKEN
        return made

    def followed(self: Any, sampled: torch.Tensor, requests: Any, batch: Any, discarded: torch.Tensor) -> Any:
        tokens, counts = following(self, sampled, requests, batch, discarded)
        valid = (sampled != rejection_sampler.PLACEHOLDER_TOKEN_ID).sum(1)
        counts.copy_(valid.masked_fill(discarded[: len(valid)], 0))
        return tokens.fill_(_TOKEN), counts

    def prepared(self: Any, common: Any, drafted: Any, counts: torch.Tensor) -> Any:
        made, last, rejected = inputs(self, common, drafted, counts)
        drafts = torch.tensor(drafted.num_draft_tokens, dtype=rejected.dtype)
        rejected.copy_((drafts + 1 - counts).masked_fill(drafts == 0, 0))
        last.copy_(common.query_start_loc[1 : len(last) + 1] - 1 - rejected)
        return made, last, rejected

    with (
        mock.patch.object(rejection_sampler, "rejection_sample", rejected),
        mock.patch.object(SpecDecodeBaseProposer, "prepare_next_token_ids_padded", followed),
        mock.patch.object(SpecDecodeBaseProposer, "prepare_inputs_padded", prepared),
    ):
        yield

"""vLLM's own engine core for a deployment: its scheduler and its model runner, and the model without weights.

The runner's tensors are on the CPU, as in vLLM's own runner for CPUs, and the model's on the meta device. In a step the
runner does everything but the model's layers, in whose place stands a result of the right size: layers are called by
themselves, see `gdn_aot.providers.vllm.whole.calls`.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

import torch
from vllm.config import set_current_vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.fused_moe import fused_moe
from vllm.model_executor.model_loader.utils import initialize_model, process_weights_after_loading
from vllm.model_executor.models import registry
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.engine import core
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.worker import workspace
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.gpu_worker import Worker
from vllm.v1.worker.worker_base import CompilationTimes

from gdn_aot.errors import DeploymentError
from gdn_aot.providers.vllm.whole import adapters, drafts, quantized, refused, releases, stand_ins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig

    from gdn_aot.deployment import Deployment

PAGES = 512
"""Pages of the cache. How many there are decides no launch key but those that `RELAXATIONS` names; they are never
written, so they take no memory."""
_MEMORY = 1 << 45
"""Bytes that the cache may take, of which `PAGES` are used."""
_ROUNDED = "enable_mamba_cache_stochastic_rounding"
_TILES = "VLLM_TUNED_CONFIG_FOLDER"
_META = torch.device("meta")
_HOST = torch.device("cpu")
_FIXED: dict[str, Any] = {
    "load_format": "dummy",
    "skip_tokenizer_init": True,
    "num_gpu_blocks_override": PAGES,
    "language_model_only": True,  # what reads images needs files of the checkpoint
    "enforce_eager": True,  # in graphs the same kernels run, at some of the sizes; what Inductor makes is not theirs
}
_NAMED = ("model", "tokenizer", "hf_config_path", "load_format", "skip_tokenizer_init", "num_gpu_blocks_override")
"""Engine arguments that are not the deployment's to say."""


class _Worker(Worker):  # type: ignore[misc]
    """The worker of the first rank, on this machine."""

    def __init__(self, config: VllmConfig, model: Any) -> None:
        super().__init__(config, local_rank=0, rank=0, distributed_init_method="fake://", is_driver_worker=True)
        if config.use_v2_model_runner:
            self.model_runner = releases.second_runner(config, model)
        else:
            drafts.prepare(config)
            self.model_runner = GPUModelRunner(config, _HOST)
            self.model_runner.model = adapters.wrap(self.model_runner, model)
        if config.speculative_config is not None:
            drafts.load(self.model_runner, model)
            _refuse_if(quantized.unknown(getattr(self.model_runner.drafter, "model", model)))
        current_platform.update_block_size_for_backend(config)

    def determine_available_memory(self) -> int:
        return _MEMORY

    def initialize_from_config(self, caches: list[KVCacheConfig]) -> None:
        super().initialize_from_config(caches[0])
        runner = self.model_runner
        runner.model = Hollow(runner.model, runner.model_config)
        drafter: Any = getattr(runner, "drafter", None)
        if hasattr(drafter, "model"):
            drafter.model = Hollow(drafter.model, drafter.draft_model_config)

    def compile_or_warm_up_model(self) -> CompilationTimes:
        return CompilationTimes(0.0, 0.0)


class Hollow:
    """Stands for a model whose layers are not run: a result of the right size."""

    def __init__(self, model: Any, config: Any) -> None:
        self._model, self._dtype = model, config.dtype
        self._hidden, self._vocabulary = config.get_hidden_size(), config.get_vocab_size()
        self.inner: Callable[[int], None] | None = None
        """What is run in place of the layers for so many tokens, in the forward context of the step."""

    def __call__(self, positions: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return hidden states."""
        tokens = positions.shape[-1]
        if self.inner is not None:
            self.inner(tokens)
        return self._empty(tokens, self._hidden)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits, one row for each of the hidden states."""
        return self._empty(len(hidden), self._vocabulary)

    def _empty(self, *size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=self._dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Engine:
    """An engine core, and what is needed to call its parts."""

    def __init__(self, config: VllmConfig, model: Any, name: str) -> None:
        class OneProcess(UniProcExecutor):  # type: ignore[misc]
            """The executor of a single worker."""

            def _init_executor(self) -> None:
                self.driver_worker = _Worker(config, model)

        self.config, self.model, self.name = config, model, name
        with (
            mock.patch.object(core, "enable_envs_cache"),
            mock.patch.object(core, "freeze_gc_heap"),
            mock.patch("vllm.plugins.load_general_plugins"),
        ):
            self.core = core.EngineCore(config, OneProcess, log_stats=False)
        self.runner = self.core.model_executor.driver_worker.model_runner
        self.drafter: Any = getattr(getattr(self.runner, "drafter", None), "model", None)
        """The drafter's model, if it has one."""
        self.warm_ups: list[Any] = []
        """vLLM's registries of what it compiles before it serves."""

    @property
    def resolved(self) -> dict[str, bool | int | float | str]:
        """What vLLM made of the deployment, by the names of its options."""
        config = self.config
        drafts = config.speculative_config
        found: dict[str, Any] = {
            "max_model_len": config.model_config.max_model_len,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "tensor_parallel_size": config.parallel_config.tensor_parallel_size,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "quantization": config.model_config.quantization or "none",
            "block_size": config.cache_config.block_size,
            "enable_prefix_caching": config.cache_config.enable_prefix_caching,
            "use_v2_model_runner": config.use_v2_model_runner,
            "num_speculative_tokens": drafts.num_speculative_tokens if drafts else 0,
            "attention": ", ".join(
                sorted({group.backend.get_name() for groups in self.runner.attn_groups for group in groups})
            ),
            **quantized.resolved(self.model),
            **adapters.resolved(self.runner),
        }
        return found


@contextlib.contextmanager
def engine(deployment: Deployment) -> Iterator[Engine]:
    """Make the engine of a deployment; what stands in for a machine with cards is gone when the block is left.

    Raises:
        DeploymentError: vLLM refuses the deployment, or it is of a kind whose kernels are not enumerated.
    """
    with stand_ins.card(deployment.card, dict(deployment.environment)), contextlib.ExitStack() as stack:
        stack.enter_context(quantized.surroundings())
        stack.enter_context(adapters.surroundings())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        config = _config(deployment, folder)
        stack.enter_context(set_current_vllm_config(config))
        stack.enter_context(stand_ins.ranks(config))
        stack.enter_context(torch.inference_mode())
        fused_moe.get_moe_configs.cache_clear()  # tables of the card that was before
        workspace.init_workspace_manager(_META)
        stack.callback(workspace.reset_workspace_manager)
        with _refusing():
            warm_ups = releases.warm_ups(config)
            registering = warm_ups.activate() if warm_ups is not None else contextlib.nullcontext()
            with set_default_torch_dtype(config.model_config.dtype), _META, registering:
                model = initialize_model(config, model_config=config.model_config)
                _refuse_if(quantized.unknown(model))
                process_weights_after_loading(model, config.model_config, _HOST)  # so what has content keeps it
            made = Engine(config, model, deployment.model)
            made.warm_ups = [warm_ups, made.runner.jit_warmup_registry] if warm_ups is not None else []
        stack.callback(_without_cache, made)
        by_triton = ["attention by Triton"] if "TRITON" in str(made.resolved["attention"]) else []
        _refuse_if(by_triton + adapters.unknown(model))
        yield made


def _without_cache(made: Engine) -> None:
    """Give the pages back: of a large model they are tens of GiB of addresses, and a process with them cannot fork."""
    made.runner.kv_caches.clear()
    for layer in made.config.compilation_config.static_forward_context.values():
        if hasattr(layer, "kv_cache"):
            layer.kv_cache = None
    gc.collect()


def _config(deployment: Deployment, folder: str) -> VllmConfig:
    """Return vLLM's configuration of a deployment, made by its own rules from the defaults of its server."""
    given = dict(deployment.engine)
    if _TILES in dict(deployment.environment):
        _refuse([f"tiles of their own ({_TILES})"])  # no artifact holds what is in that folder
    if taken := [name for name in _NAMED if name in given]:
        raise DeploymentError(f"a deployment cannot set the engine argument {taken[0]}", hint="leave it out")
    if given.get("language_model_only") is False:
        _refuse(["images"])
    (Path(folder) / "config.json").write_text(deployment.config, encoding="utf-8")
    with _refusing():
        tables = {name: json.loads(str(value)) for name, value in given.items() if str(value).startswith("{")}
        arguments = EngineArgs(model=folder, **{**given, **tables, **_FIXED})
        with mock.patch.object(registry._LazyRegisteredModel, "inspect_model_cls", _inspected):  # noqa: SLF001
            config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
    _check(config)
    return config


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Say what vLLM raises in the block as a refusal of the deployment."""
    try:
        yield
    except DeploymentError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {str(error).partition('[type=')[0].strip()[:1000]}"
        raise DeploymentError(f"vLLM refuses the deployment: {what}") from error


def _check(config: VllmConfig) -> None:
    """Refuse what is not enumerated: an artifact would lack kernels without a word."""
    parallel = config.parallel_config
    beyond = {
        "pooling": config.model_config.runner_type != "generate",
        "states that are rounded at random": getattr(config.cache_config, _ROUNDED, False),
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "data or expert parallelism": parallel.data_parallel_size > 1 or parallel.enable_expert_parallel,
        "context parallelism": parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1,
        **releases.beyond(config),
    }
    found = drafts.unknown(config) + [what for what, there in beyond.items() if there]
    _refuse_if(found + quantized.beyond(config) + adapters.beyond(config))


def _refuse_if(found: list[str]) -> None:
    if found:
        _refuse(found)


def _refuse(found: list[str]) -> NoReturn:
    raise refused(" and ".join(found))


def _inspected(entry: Any) -> Any:
    """Return what vLLM wants to know of a model class, which it else finds out in a process of its own."""
    return registry._ModelInfo.from_model_cls(entry.load_model_cls())  # noqa: SLF001

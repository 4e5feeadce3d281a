"""What vLLM finds out about a model class before it starts, made here with vLLM's own code.

An engine asks its registry what a class supports. To keep CUDA out of its own process the registry starts another one,
which imports vLLM and the model once more, and keeps the answer in ``VLLM_CACHE_ROOT/modelinfos``, with a digest of the
model's source (``_LazyRegisteredModel.inspect_model_cls`` in ``vllm/model_executor/models/registry.py``). The answer
follows from the class alone: its attributes and the interfaces that it has.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from vllm.model_executor.models import registry

from gdn_aot._files import file_sha256
from gdn_aot.launches import Placement, SourceFile
from gdn_aot.providers.absent import without_images
from gdn_aot.providers.layer_names import ALICE, BAILING, GLM, INTERLEAVED, K3, KIMI, OLMO, QWEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gdn_aot.catalogue.models import ModelShape

_CLASSES = {
    INTERLEAVED: ("Qwen3NextForCausalLM", "Qwen3NextMTP"),
    QWEN: (
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen3_5ForCausalLM",
        "Qwen3_5MoeForCausalLM",
        "Qwen3_5MTP",
        "Qwen3_5MoeMTP",
    ),
    OLMO: ("OlmoHybridForCausalLM",),
    KIMI: ("KimiLinearForCausalLM",),
    ALICE: ("AliceAIForCausalLM",),
    BAILING: ("BailingMoeV3ForCausalLM", "BailingMoeV3MTPModel"),
    GLM: ("Glm5NextForConditionalGeneration", "Glm5NextForCausalLM", "Glm5NextMTPModel"),
    K3: ("KimiK3ForConditionalGeneration", "KimiK3MTPModel"),
    "qwen4-exp": ("Qwen4ExpForConditionalGeneration", "Qwen4ExpForCausalLM", "Qwen4ExpMTP"),
}
"""Architectures by `ModelShape.layer`, those of drafts included, as the registries of 0.24.0 and 0.33.0 have them and
``vllm/config/speculative.py`` names those of drafts. A version need not have all."""
_OURS = "vllm."


def place(shapes: Iterable[ModelShape]) -> tuple[list[tuple[Placement, str]], list[tuple[str, str]]]:
    """Inspect the classes that serve models, those of their drafts included.

    Returns the files of ``modelinfos`` with what they hold, sorted by name, and (class, reason) for each class that
    cannot be imported here.
    """
    known: Any = registry.ModelRegistry.models
    wanted = dict.fromkeys(name for shape in shapes for name in _CLASSES.get(shape.layer, ()) if name in known)
    placed: list[tuple[Placement, str]] = []
    failed: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder, _in_this_process(Path(folder)), without_images():
        for name in wanted:
            try:
                placed.append(_inspect(known[name], Path(folder)))
            except Exception as error:  # noqa: BLE001 - whatever a model's module raises when it is imported
                failed.append((name, f"vLLM cannot inspect it here: {type(error).__name__}: {error}"))
    return sorted(placed, key=lambda one: one[0].name), failed


def _inspect(model: Any, folder: Path) -> tuple[Placement, str]:
    model.inspect_model_cls()
    file = folder / model._get_cache_filename()  # noqa: SLF001
    placement = Placement(kind="vllm-model-info", name=file.name, sources=_sources(model))
    return placement, file.read_text(encoding="utf-8")


@contextmanager
def _in_this_process(folder: Path) -> Iterator[None]:
    """Have vLLM inspect classes here, where a card stands in, and keep what it finds in a folder."""
    with (
        mock.patch.object(registry, "_run_in_subprocess", lambda inspect: inspect()),
        mock.patch.object(registry._LazyRegisteredModel, "_get_cache_dir", return_value=folder),  # noqa: SLF001
    ):
        yield


def _sources(model: Any) -> tuple[SourceFile, ...]:
    """Return the files of vLLM that have a class and what it inherits from, and those of the inspection itself."""
    asked = [getattr(one, "__module__", "") for one in vars(registry).values() if callable(one)]
    modules = {name for name in asked if name.startswith(f"{_OURS}model_executor.models.")}
    bases = model.load_model_cls().__mro__
    modules |= {model.module_name, *(base.__module__ for base in bases if base.__module__.startswith(_OURS))}
    files = {Path(str(sys.modules[name].__file__)) for name in modules}
    for file in [file for file in files if file.name == "__init__.py"]:  # vLLM's digest is of the whole package then
        files.update(file.parent.rglob("*.py"))
    site = Path(str(sys.modules["vllm"].__file__)).parent.parent
    return tuple(sorted(SourceFile(path=file.relative_to(site).as_posix(), sha256=file_sha256(file)) for file in files))

"""What covers a miss: the command for just this one, or that there is none. Imported when something was missed."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.catalogue.models import LONGEST_CONTEXT
from gdn_aot.catalogue.providers import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.store.stored import StoredArtifact

_MOST_NAMES = 4
"""Models that are named; of more it is ``all``."""
_SIZES = ("heads", "v_heads", "k_dim", "v_dim")
_SINGLE = 1
"""Value of a size that follows traffic which every artifact has."""


def advice(name: str, what: str, key: Any, found: Sequence[StoredArtifact], jit: Any, tuner: Any) -> str:
    """Return one sentence on what covers a miss of kernel ``name``, of the artifacts ``found`` that lack it.

    ``what`` is ``binary``, with a launch key, or ``choice``, with an autotune key.
    """
    header = found[0].header
    for artifact in found:
        for kernel, reason, keys in artifact.index.not_covered():
            if kernel == name and not keys:
                return f"No build covers it: {shown(reason)}"
    values, dtype = _of_launch(jit, key) if what == "binary" else _of_choice(tuner, key)
    return cover(header, values, dtype)


def cover(header: Mapping[str, Any], values: Mapping[str, Any], dtype: str = "") -> str:
    """Return the sentence for sizes by the names of a kernel's constexprs, and the dtype of its first tensor."""
    provider = PROVIDERS.get(header["provider"])
    if provider is None:
        return "No build covers it: its provider is not known here"
    base = f"gdn-aot build --arch {shown(header['target'])} --provider {provider.name}"
    models = f"{base} --model {_names(header['models'])} --tp {_tps(header['models'])}"
    batch, bucket = (values.get(name, _SINGLE) for name in (provider.batch, provider.bucket))
    if type(batch) is int and batch > header.get("max_batch", batch):
        return f"Cover it with: {models} --max-batch {batch}"
    if type(bucket) is int and bucket > _SINGLE and header.get("max_tokens", LONGEST_CONTEXT) < LONGEST_CONTEXT:
        return f"Cover it with: {models} --max-tokens {LONGEST_CONTEXT}"
    shape = {size: values[name] for name, size in provider.sizes.items() if type(values.get(name)) is int}
    if len(shape) == len(_SIZES):
        same = [row for row in header["models"] if all(row[size] == shape[size] for size in _SIZES)]
        if not same:
            return f"Cover it with: {_of_shape(provider, base, models, shape, dtype)}"
        if dtype and all(row["dtype"] != dtype for row in same):
            return f"Cover it with: {models} --dtype {dtype}"
    command = provider.serve or "COMMAND"
    return f"Cover it by recording: gdn-aot capture -o FILE -- {command}, then {models} --capture FILE"


def _of_shape(provider: ProviderInfo, base: str, models: str, shape: Mapping[str, int], dtype: str) -> str:
    if provider.catalogue_only:
        return f"{base} --model NAME (see gdn-aot models; else {provider.capture_hint})"
    wanted = ",".join(f"{size}={shape[size]}" for size in _SIZES)
    return f"{models} --shape {wanted},dtype={dtype or 'bf16'}"


def _names(rows: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(str(row["name"]) for row in rows)
    return shown(",".join(names)) if 0 < len(names) <= _MOST_NAMES else "all"


def _tps(rows: Sequence[Mapping[str, Any]]) -> str:
    return ",".join(str(size) for size in sorted({row["tp"] for row in rows} or {1}))


def _of_launch(jit: Any, key: str) -> tuple[dict[str, Any], str]:
    """Return the constants of a launch key by name, and the dtype of its first tensor; nothing of one that is odd."""
    try:
        pairs = ast.literal_eval(key[: key.rindex("]{") + 1])
        named = dict(zip(jit.arg_names, pairs, strict=False))
        pointers = [kind for kind, *_ in named.values() if str(kind).startswith("*")]
        constants = {name: value for name, (kind, value, *_) in named.items() if kind == "constexpr"}
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return {}, ""
    return constants, _plain(pointers[0][1:]) if pointers else ""


def _of_choice(tuner: Any, key: tuple[Any, ...]) -> tuple[dict[str, Any], str]:
    names = list(tuner.keys) if tuner is not None else []
    dtypes = [part for part in key if isinstance(part, str) and part.startswith("torch.")]
    return dict(zip(names, key, strict=False)), _plain(dtypes[0].removeprefix("torch.")) if dtypes else ""


def _plain(dtype: str) -> str:
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(dtype, dtype)

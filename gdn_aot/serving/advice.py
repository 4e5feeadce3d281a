"""What covers a miss: the command for just this one, or that there is none. Imported when something was missed."""

from __future__ import annotations

import ast
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.artifact.names import is_single
from gdn_aot.catalogue.kernel_names import family_of
from gdn_aot.catalogue.models import DTYPES, GDN, LONGEST_CONTEXT, all_models
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.rows import USUAL, alike, value_of
from gdn_aot.providers import builds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.store.stored import StoredArtifact

    _Divided = tuple[str, int]
    """A model of the catalogue and a tensor-parallel size."""

_MOST_NAMES = 4
"""Models that are named; of more it is ``all``."""
_SIZES = ("heads", "v_heads", "k_dim", "v_dim")
_SINGLE = 1
"""Value of a size that follows traffic which every artifact has."""


def advice(name: str, what: str, key: Any, found: Sequence[StoredArtifact], jit: Any, tuner: Any) -> str:
    """Return one sentence on what covers a miss of kernel ``name``, of the artifacts ``found`` that lack it.

    ``what`` is ``binary``, with a launch key, or ``choice``, with an autotune key.
    """
    header, relaxed = found[0].header, set[str]()
    for artifact in found:
        for kernel, reason, keys in artifact.index.not_covered():
            if kernel == name and not keys:
                return f"No build covers it: {shown(reason)}"
        relaxed |= {argument for argument, _, _ in artifact.index.relaxations(name)}
    values, dtype = _of_launch(jit, key) if what == "binary" else _of_choice(tuner, key)
    if header.get("max_batch", 0) > _SINGLE:  # else it has no binary that takes the batch as an argument
        values = {constant: value for constant, value in values.items() if constant not in relaxed}
    return cover(header, values, dtype, family_of(name.rpartition(":")[2]))


def cover(
    header: Mapping[str, Any],
    values: Mapping[str, Any],
    dtype: str = "",
    family: str = "",
    gate_bound: float | None = None,
) -> str:
    """Return the sentence for sizes by the names of a kernel's constexprs, and the dtype of its first tensor.

    ``family`` is that of the models that launch the kernel; if it is not known, it is the artifact's only one, or GDN.
    ``gate_bound`` is the bound of their gate, None if it is not known.
    """
    provider = PROVIDERS.get(header["provider"])
    if provider is None:
        return "No build covers it: its provider is not known here"
    built = {value_of(row, "family") for row in header["models"]}
    wanted = {"family": family or (built.pop() if len(built) == 1 else GDN), "gate_bound": gate_bound}
    added, others = _of_catalogue(header, provider, values, wanted)
    again, option = _again(header, provider, added), _option(header, provider, values, dtype, wanted)
    if added:
        of_fp16 = " --dtype fp16" * (dtype == "fp16")  # the catalogue's are bf16; what is fp32 may be a state
        return f"Cover it with: {again}{of_fp16}{_instead(added, others)}"
    if option:
        return f"Cover it with: {again} {option}"
    command = provider.serve or "COMMAND"
    return f"Cover it by recording: gdn-aot capture -o FILE -- {command}, then {again} --capture FILE"


def _option(
    header: Mapping[str, Any],
    provider: ProviderInfo,
    values: Mapping[str, Any],
    dtype: str,
    layers: Mapping[str, Any],
) -> str:
    """Return what to add to the command that an artifact was built by, or nothing if no option covers a miss."""
    shape = _shape(provider, values)
    if shape and dtype in ("", *DTYPES):
        same = _same(header, shape, layers)
        if not same:
            new = _sizes({**shape, "dtype": dtype or "bf16", **layers})
            return "" if provider.catalogue_only else f"--shape {new}"
        if dtype and all(row["dtype"] != dtype for row in same):
            return f"--dtype {dtype}"
    batch, bucket = (values.get(name, _SINGLE) for name in (provider.batch, provider.bucket))
    if type(batch) is int and batch > header.get("max_batch", batch):
        return f"--max-batch {batch}"
    shorter = header.get("max_tokens", LONGEST_CONTEXT) < LONGEST_CONTEXT
    return f"--max-tokens {LONGEST_CONTEXT}" if type(bucket) is int and bucket > _SINGLE and shorter else ""


def _shape(provider: ProviderInfo, values: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of a miss, or nothing if one is not known."""
    known = {size: values.get(name) for name, size in provider.sizes.items()}
    sizes = {size: value for size, value in known.items() if type(value) is int and value > 0}
    return sizes if len(sizes) == len(_SIZES) else {}


def _same(header: Mapping[str, Any], shape: Mapping[str, int], layers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of an artifact's models that have these sizes, and layers of this family and bound."""
    return [row for row in header["models"] if alike(row, {**shape, **layers})]


def _of_catalogue(
    header: Mapping[str, Any], provider: ProviderInfo, values: Mapping[str, Any], layers: Mapping[str, Any]
) -> tuple[list[_Divided], list[_Divided]]:
    """Return what of the catalogue to add to a build for sizes that the artifact lacks, and what would do as well.

    That is nothing for a provider that takes a ``--shape``. Models that the artifact has at other sizes come first.
    """
    shape = _shape(provider, values)
    if not shape or not provider.catalogue_only or _same(header, shape, layers):
        return [], []
    found: list[_Divided] = []
    for model in all_models():
        tp = model.heads // shape["heads"]
        if tp and not model.indivisible(tp) and alike(asdict(model.shape(tp)), {**shape, **layers}):
            taken = builds(provider.name, model, header["version"], tuple(header["capability"]))
            found += [(model.name, tp)] * taken
    there = {row["name"] for row in header["models"]}
    known = [one for one in found if one[0] in there]
    return (known, []) if known else (found[:1], found[1:])


def _instead(added: Sequence[_Divided], others: Sequence[_Divided]) -> str:
    """Return which other models a command may name, in parentheses, or nothing."""
    named = [f"{name} --tp {tp}" for name, tp in others[:_MOST_NAMES]] + ["..."] * (len(others) > _MOST_NAMES)
    ((first, tp), *_) = added
    return f" (of this shape too, in place of {first} --tp {tp}: {', '.join(named)})" if named else ""


def cover_shape(header: Mapping[str, Any], shape: Mapping[str, Any]) -> str:
    """Return the sentence for a shape that no artifact has, as rows of an artifact's models are."""
    provider = PROVIDERS.get(header["provider"])
    sizes = provider.sizes if provider else {}
    values = {name: shape[size] for name, size in sizes.items()}
    layers = value_of(shape, "family"), value_of(shape, "gate_bound")
    return cover(header, values, str(shape["dtype"] or ""), *layers)


def _again(header: Mapping[str, Any], provider: ProviderInfo, added: Sequence[_Divided] = ()) -> str:
    """Return the command that an artifact was built by, as far as it says; what covers a miss is added to it."""
    known = {model.name: model for model in all_models()}
    rows = [(row["name"], row["tp"]) for row in header["models"] if row["name"] in known] + [*added]
    words = [f"gdn-aot build --arch {shown(header['target'])} --provider {provider.name}"]
    if rows:
        names = list(dict.fromkeys(name for name, _ in rows))
        sizes = sorted({tp for _, tp in rows})
        words.append(f"--model {','.join(names) if len(names) <= _MOST_NAMES else 'all'} --tp {_joined(sizes)}")
    own = [row for row in header["models"] if row["name"] not in known]
    words += [f"--shape {_sizes(row)}" for row in own[:_MOST_NAMES]]
    workloads = [name for name in header["workloads"] if not is_single(name)]
    if not {*workloads} <= {*provider.workloads, *provider.training}:
        words += [f"--workload {shown(name)}" for name in workloads]
    if any(name.endswith("-train") for name in workloads):
        words.append("--mode train")
    if header.get("copy"):
        words.append("--package DIRECTORY")
    if header.get("card"):
        words.append("--deployment FILE")
    return " ".join(words)


def _sizes(row: Mapping[str, Any]) -> str:
    more = [name for name, usual in USUAL.items() if value_of(row, name) != usual]
    return ",".join(f"{size}={shown(row[size])}" for size in (*_SIZES, "dtype", *more))


def _joined(sizes: Sequence[int]) -> str:
    return ",".join(map(str, sizes))


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

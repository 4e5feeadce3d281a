"""Models: named shapes of linear-attention layers, and how the options of a build select them.

The catalogue and its sources are in ``catalogue/models.toml``.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from gdn_aot._text import suggest
from gdn_aot.catalogue import read_table
from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DTYPES = ("bf16", "fp16", "fp32")
Family = Literal["gdn", "kda"]
"""Gated Delta Net, where the state of a head decays as a whole, and Kimi Delta Attention, where each channel of the
keys has a decay of its own."""
FAMILIES: tuple[Family, ...] = get_args(Family)
GDN, KDA = FAMILIES
MAX_K_DIM = 256
"""Largest key head dimension of FLA's chunk kernels (asserted by its ``chunk_gated_delta_rule_fwd_h``)."""
MAX_V_DIM = 512
"""Twice `MAX_K_DIM`: FLA's GatedDeltaNet layer makes value heads twice as wide as key heads by default."""
LEAST_GATE_BOUND = -5.0
"""Least bound of a gate that FLA's kernels for bounded gates take (asserted by its ``chunk_kda``)."""
LONGEST_CONTEXT = 262144
"""Tokens of the longest call that is covered if nothing else is asked for: the longest context of a GDN model of the
catalogue, and that of a ``--shape``."""
CATALOGUE_TP = (1, 2, 4, 8)
"""The tensor-parallel sizes that listings show."""

_LIST_HINT = "gdn-aot models lists them; --shape builds others"
_SHAPE_HINTS = {
    GDN: "for example --shape heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16",
    KDA: "for example --shape family=kda,heads=32,k_dim=128,v_dim=128,dtype=bf16; bounded gates: gate_bound=-5",
}
_SHAPE_REQUIRED = ("heads", "v_heads", "k_dim", "v_dim", "dtype")
_SHAPE_OPTIONAL = ("conv_width", "name", "family", "gate_bound")
_SHAPE_IMPLIED = {GDN: (), KDA: ("v_heads",)}
"""Required keys that a family need not be given."""
OF_SHAPES: dict[str, dict[str, Any]] = {
    GDN: {"norm_activation": "silu", "norm_eps": 1e-6, "allow_neg_eigval": False},
    KDA: {"norm_activation": "sigmoid", "norm_eps": 1e-5, "allow_neg_eigval": False},
}
"""What every ``--shape`` of a family has, as most of the catalogue."""
_VARIANTS = re.compile(r"-(?:instruct|thinking|base|fp8|gptq-int4|awq)$")
"""Endings of repository names that change weights or their storage, not the shape of the layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """The linear-attention layers of a model, and what of the rest decides on their kernels."""

    name: str
    """Of the model."""
    family: str = field(default=GDN, repr=False)
    """Which of `FAMILIES` the layers are of; like the bound below not in the text of which seeds are made."""
    heads: int
    """Key (and query) heads."""
    v_heads: int
    """Value heads, a multiple of ``heads``."""
    k_dim: int
    """Dimension of one key head."""
    v_dim: int
    """Dimension of one value head."""
    conv_width: int
    """Taps of the short convolution."""
    dtype: str
    """``bf16``, ``fp16`` or ``fp32``."""
    hidden: int
    """Width of the residual stream; not divided."""
    norm_activation: str
    """Gate of the norm after the layer: ``silu`` or ``sigmoid``."""
    norm_eps: float
    allow_neg_eigval: bool
    """Beta is doubled, so that it lies in (0, 2)."""
    gate_bound: float = field(default=0.0, repr=False)
    """Least logarithm of the decay of one token, where the gate is bounded (KDA); 0 where it is not."""
    layer: str = ""
    """Whose layer code a serving engine runs for it; empty for a ``--shape``."""
    kv_heads: int = 0
    """Key-value heads of the full-attention layers, not divided; 0 if not known."""
    head_dim: int = 0
    """Dimension of one head of those layers."""
    state_dtype: str = "auto"
    """Of the recurrent state, as the checkpoint asks for it; ``auto`` is the model's own."""
    context: int = LONGEST_CONTEXT
    """Most tokens of one sequence that the model is made for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape(Layers):
    """A model divided by a tensor-parallel size: what one rank's kernels see."""

    tp: int
    """Tensor-parallel size that the heads are already divided by."""

    @property
    def kernel_key(self) -> tuple[object, ...]:
        """The fields that a kernel can see. Two shapes with the same key need the same binaries."""
        sizes = (self.heads, self.v_heads, self.k_dim, self.v_dim, self.conv_width)
        return (*sizes, self.dtype, self.norm_activation, self.allow_neg_eigval, self.family, self.gate_bound)

    @property
    def paged_key(self) -> tuple[object, ...]:
        """The same for kernels of an engine that keeps states in the pages of its attention cache."""
        engine = (self.tp, self.layer, self.kv_heads, self.head_dim, self.state_dtype)
        return (*self.kernel_key, *engine)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model(Layers):
    """One row of the catalogue, or one ``--shape``: undivided."""

    hub: tuple[str, ...] = ()
    """Repositories on the Hugging Face Hub; empty for a ``--shape``."""
    source: str
    """Where the figures are from."""
    confidence: str
    """``high``, ``medium`` or ``low``; the head of the catalogue says what each means."""
    attention_source: str = ""
    """Where the figures of the attention layers and the dtype of the state are from."""
    context_source: str = ""
    """Where `Layers.context` is from."""
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    """What of the checkpoint's ``config.json`` is not the default of its class in transformers; empty if not known."""
    config_source: str = ""
    """Where `config`, and that the rest is the default, is from."""

    def indivisible(self, tp: int) -> str | None:
        """Return why a tensor-parallel size does not divide this model, or None if it does."""
        for count, what in ((self.heads, "key"), (self.v_heads, "value")):
            if count % tp:
                return f"{self.name} has {count} {what} heads, which {tp} does not divide"
        return None

    def shape(self, tp: int, dtype: str | None = None) -> ModelShape:
        """Divide the model by a tensor-parallel size; its own dtype is the default.

        Raises:
            UsageError: ``tp`` does not divide the heads or is not positive, or the dtype is unknown.
        """
        if tp < 1:
            raise UsageError(f"tensor-parallel size {tp} is not positive", hint="for example --tp 1,2,4,8")
        if reason := self.indivisible(tp):
            raise UsageError(reason, hint=f"sizes that do: {', '.join(map(str, self.tps()))}")
        own = {field.name: getattr(self, field.name) for field in fields(Layers)}
        divided = {"heads": self.heads // tp, "v_heads": self.v_heads // tp, "dtype": _dtype(dtype or self.dtype)}
        return ModelShape(**{**own, **divided}, tp=tp)

    def tps(self) -> tuple[int, ...]:
        """Return those of the sizes 1, 2, 4, 8 that divide this model."""
        return tuple(tp for tp in CATALOGUE_TP if self.indivisible(tp) is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A (model, tensor-parallel size) pair that was asked for and does not exist."""

    model: str
    tp: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What a build or a coverage run works on."""

    shapes: tuple[ModelShape, ...]
    skipped: tuple[Skipped, ...]


@functools.cache
def all_models() -> tuple[Model, ...]:
    """Return the catalogue, in the order of its file."""
    return tuple(Model(**row) for row in read_table("models.toml")["model"])


def _suggest(wrong: str, known: Iterable[str], otherwise: str) -> str:
    return f"{suggest(wrong, known)} {otherwise}".lstrip()


def _dtype(text: str) -> str:
    name = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32"}.get(text.lower(), text.lower())
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {text!r}; known are {', '.join(DTYPES)}", hint="use bf16, fp16 or fp32")
    return name


def _normal(name: str) -> str:
    """Reduce a name, a Hub repository or a local path to the catalogue's way of writing."""
    parts = [part for part in name.strip().split("/") if part] or [""]
    cached = [part for part in parts if part.startswith("models--")]  # a directory of the Hub's cache
    text = cached[0].rsplit("--", 1)[-1] if cached else parts[-1]
    text = re.sub(r"[\s_]+", "-", text.lower())
    while (shorter := _VARIANTS.sub("", text)) != text:
        text = shorter
    return text


def find_model(name: str) -> Model:
    """Find a model of the catalogue.

    Case, an organization in front, ``_`` or a space for ``-``, and endings such as ``-Instruct`` or ``-FP8``
    do not matter; of a local path the last component counts.

    Raises:
        UsageError: No such model; the hint names the nearest one.
    """
    wanted = _normal(name)
    for model in all_models():
        if wanted in {model.name, *map(_normal, model.hub)}:
            return model
    hint = _suggest(wanted, (model.name for model in all_models()), _LIST_HINT)
    raise UsageError(f"unknown model {name!r}", hint=hint)


def parse_tp(text: str) -> tuple[int, ...]:
    """Turn ``1,2,4,8`` into sizes, in the order given and each once.

    Raises:
        UsageError: Something in it is not a positive integer, or there is nothing in it.
    """
    sizes = [_positive("--tp", part.strip(), "for example --tp 1,2,4,8") for part in text.split(",")]
    return tuple(dict.fromkeys(sizes))


def _positive(what: str, text: str, hint: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise UsageError(f"{what}: {text!r} is not an integer", hint=hint)
    if int(text) < 1:
        raise UsageError(f"{what}: {text} is not positive", hint=hint)
    return int(text)


def _shape_hint(text: str) -> str:
    """Return an example of a ``--shape`` of the family that a wrong one names."""
    return _SHAPE_HINTS[KDA if re.search(rf"\bfamily\s*=\s*{KDA}\b", text) else GDN]


def _shape_fields(text: str) -> dict[str, str]:
    """Split a ``--shape`` into its keys and values, all keys known, none twice, none missing, a known family."""
    known, hint = (*_SHAPE_REQUIRED, *_SHAPE_OPTIONAL), _shape_hint(text)
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UsageError(f"--shape: {part.strip()!r} is not key=value", hint=hint)
        if key not in known:
            near = _suggest(key, known, f"keys are {', '.join(known)}")
            raise UsageError(f"--shape: unknown key {key!r}", hint=near)
        if key in found:
            raise UsageError(f"--shape: {key} is given twice", hint=hint)
        found[key] = value
    family = found.setdefault("family", GDN)
    if family not in FAMILIES:
        near = _suggest(family, FAMILIES, f"families are {', '.join(FAMILIES)}")
        raise UsageError(f"--shape: unknown family {family!r}", hint=near)
    if missing := [key for key in _SHAPE_REQUIRED if key not in found and key not in _SHAPE_IMPLIED[family]]:
        raise UsageError(f"--shape: {', '.join(missing)} missing", hint=hint)
    return {**dict.fromkeys(_SHAPE_IMPLIED[family], found["heads"]), **found}


def _gate_bound(family: str, text: str) -> float:
    if family != KDA:
        raise UsageError(f"--shape: gate_bound is not for family={family}", hint=f"family={KDA}, or leave it out")
    try:
        bound = float(text)
    except ValueError:
        bound = 0.0
    if not LEAST_GATE_BOUND <= bound < 0:
        raise UsageError(
            f"--shape: gate_bound={text} is not in [{LEAST_GATE_BOUND:g}, 0)",
            hint="the least logarithm of a token's decay; leave it out where the gate has no bound",
        )
    return bound


def parse_shape(text: str) -> Model:
    """Turn ``heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16`` into a model of its own.

    Optional keys: ``family`` (default ``gdn``), ``conv_width`` (default 4), ``gate_bound`` (of ``family=kda``; default
    none) and ``name`` (default made from the other values). With ``family=kda``, ``v_heads`` is ``heads`` by default.
    The rest is as in most models of the family in the catalogue, as the gate of the norm: `OF_SHAPES`. ``hidden`` is
    ``v_heads * v_dim``.

    Raises:
        UsageError: An unknown, repeated or missing key, or a value that no kernel takes.
    """
    given, hint = _shape_fields(text), _shape_hint(text)
    numbers = ("heads", "v_heads", "k_dim", "v_dim", "conv_width")
    size: dict[str, Any] = {"conv_width": 4}
    size |= {key: _positive(f"--shape: {key}", given[key], hint) for key in numbers if key in given}
    dtype, family = _dtype(given["dtype"]), given["family"]
    bound = _gate_bound(family, given["gate_bound"]) if "gate_bound" in given else 0.0
    if size["v_heads"] % size["heads"]:
        raise UsageError(f"--shape: v_heads={size['v_heads']} is not a multiple of heads={size['heads']}", hint=hint)
    for key, limit in (("k_dim", MAX_K_DIM), ("v_dim", MAX_V_DIM)):
        if size[key] > limit:
            message = f"--shape: {key}={size[key]} is more than {limit}, the kernels' limit"
            raise UsageError(message, hint=hint)
    default = "h{heads}-hv{v_heads}-k{k_dim}-v{v_dim}-w{conv_width}".format(**size)
    default = f"{family}-" * (family != GDN) + default + f"-g{-bound:g}" * (bound != 0)
    name = given.get("name", f"{default}-{dtype}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        allowed = "use up to 64 lower-case letters, digits, dots, dashes and underscores"
        raise UsageError(f"--shape: {name!r} is not a usable name", hint=allowed)
    if any(_normal(name) == model.name for model in all_models()):
        raise UsageError(f"--shape: {name!r} is a model of the catalogue", hint="choose another name=")
    return Model(
        name=name,
        family=family,
        gate_bound=bound,
        hidden=size["v_heads"] * size["v_dim"],
        dtype=dtype,
        source="--shape",
        confidence="high",
        **size,
        **OF_SHAPES[family],
    )


def _selected_models(names: Sequence[str], shapes: Sequence[str]) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for part in (part.strip() for name in names for part in name.split(",")):
        for model in all_models() if part.lower() == "all" else (find_model(part),):
            models[model.name] = model
    for text in shapes:
        model = parse_shape(text)
        if models.setdefault(model.name, model) != model:
            raise UsageError(f"two shapes are named {model.name!r}", hint="give each its own name=")
    return models


def select_shapes(
    names: Sequence[str], tps: Sequence[int], shapes: Sequence[str] = (), dtypes: Sequence[str] | None = None
) -> Selection:
    """Turn the options of a build into the shapes to build, each once and in the order given.

    Of the names ``all`` is the whole catalogue, and commas part several in one. Each model's own dtype is the default.

    Raises:
        UsageError: A name, shape or dtype is wrong, or none is given.
        NothingSelectedError: None of the sizes divides any of the models.
    """
    models = _selected_models(names, shapes)
    if not models or not tps:
        what = "tensor-parallel size" if models else "model"
        raise UsageError(f"no {what} is given", hint=f"for example --model qwen3.5-9b --tp 1. {_LIST_HINT}")
    chosen: dict[ModelShape, None] = {}
    skipped: dict[Skipped, None] = {}
    for model in models.values():
        for tp in tps:
            if tp > 0 and (reason := model.indivisible(tp)):
                skipped[Skipped(model=model.name, tp=tp, reason=reason)] = None
                continue
            for dtype in dtypes or (model.dtype,):
                chosen[model.shape(tp, dtype)] = None
    if not chosen:
        reasons = "; ".join(skip.reason for skip in skipped)
        raise NothingSelectedError(f"nothing to build: {reasons}", hint="choose a --tp that divides the heads")
    return Selection(shapes=tuple(chosen), skipped=tuple(skipped))


def longest_context(shapes: Iterable[ModelShape]) -> int:
    """Return the most tokens of a call that is covered for models if nothing else is asked for.

    That is the most that one of them is made for, `LONGEST_CONTEXT` at most: calls of a million tokens, for which some
    models with KDA are made, need more memory than a build machine lends to tensors without content.
    """
    return max((min(shape.context, LONGEST_CONTEXT) for shape in shapes), default=LONGEST_CONTEXT)


def distinct(shapes: Iterable[ModelShape], *, paged: bool = False) -> tuple[ModelShape, ...]:
    """Keep the first of the shapes that kernels cannot tell apart; ``paged`` as in `ModelShape.paged_key`."""
    first: dict[tuple[object, ...], ModelShape] = {}
    for shape in shapes:
        first.setdefault(shape.paged_key if paged else shape.kernel_key, shape)
    return tuple(first.values())

"""The catalogue, lenient names, division by tensor-parallel size, and ``--shape``."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdn_aot.catalogue.models import (
    FAMILIES,
    GDN,
    KDA,
    LEAST_GATE_BOUND,
    LONGEST_CONTEXT,
    all_models,
    distinct,
    find_model,
    longest_context,
    parse_shape,
    parse_tp,
    select_shapes,
)
from gdn_aot.errors import NothingSelectedError, UsageError

NAMES = [model.name for model in all_models()]
GOOD = {"heads": "16", "v_heads": "32", "k_dim": "128", "v_dim": "128", "dtype": "bf16"}


def shape(**changes: str | None) -> str:
    fields = {**GOOD, **changes}
    return ",".join(f"{key}={value}" for key, value in fields.items() if value is not None)


def test_catalogue_rows() -> None:
    assert len(set(NAMES)) == len(NAMES) == 24
    for model in all_models():
        assert model.v_heads % model.heads == 0, model
        assert model.dtype == "bf16"
        assert model.conv_width == 4
        assert model.norm_activation in {"silu", "sigmoid"}
        assert model.family in FAMILIES
        assert LEAST_GATE_BOUND <= model.gate_bound <= 0
        assert model.family == KDA or not model.gate_bound
        assert model.confidence in {"high", "medium", "low"}
        assert model.source
        assert all(find_model(repository) == model for repository in model.hub)
    assert find_model("olmo-hybrid-7b").allow_neg_eigval
    assert (find_model("olmo-hybrid-7b").k_dim, find_model("olmo-hybrid-7b").v_dim) == (96, 192)
    assert find_model("qwen3.8-flash-next").norm_activation == "sigmoid"
    assert max(model.context for model in all_models() if model.family == GDN) == LONGEST_CONTEXT


def test_models_with_kimi_delta_attention() -> None:
    bounds = {model.name: (model.heads, model.gate_bound, model.layer) for model in all_models() if model.family == KDA}
    assert bounds == {
        "kimi-linear-48b-a3b": (32, 0.0, "kimi-linear"),
        "kimi-k3": (96, -5.0, "kimi-k3"),
        "ling-3.0-flash": (32, -5.0, "bailing-v3"),
        "ling-3.0-tiny": (16, -5.0, "bailing-v3"),
        "glm-5.3-flash": (64, -5.0, "glm5-next"),
        "aliceai-foundation-80b-a3b": (32, 0.0, "alice-ai"),
    }
    for model in map(find_model, bounds):
        assert (model.v_heads, model.norm_activation) == (model.heads, "sigmoid"), "as many value heads as heads"


@given(
    st.sampled_from(NAMES),
    st.sampled_from(["{}", "Qwen/{}", "/models/{}/", "./{}", "models--Qwen--{}/snapshots/0a1b", " {} "]),
    st.lists(st.sampled_from(["-Instruct", "-Thinking", "-Base", "-FP8", "-GPTQ-Int4", "-AWQ"]), max_size=3),
    st.sampled_from([str.upper, str.lower, str.title]),
    st.sampled_from(["-", "_", " "]),
)
def test_names_match_leniently(name: str, form: str, endings: list[str], case: object, dash: str) -> None:
    assert callable(case)
    written = case(name + "".join(endings)).replace("-", dash)
    assert find_model(form.format(written)).name == name


@pytest.mark.parametrize("name", ["", "/", "qwen3-9b", "llama-3-8b", "qwen3.5", "qwen3.5-9b-instruct-extra"])
def test_unknown_model(name: str) -> None:
    with pytest.raises(UsageError, match="unknown model") as caught:
        find_model(name)
    assert "gdn-aot models" in caught.value.hint


def test_division() -> None:
    divided = find_model("qwen3.5-27b").shape(8)
    assert (divided.heads, divided.v_heads, divided.hidden, divided.tp) == (2, 6, 5120, 8)
    assert find_model("qwen3.5-9b").shape(1, "fp16").dtype == "fp16"
    with pytest.raises(UsageError, match="olmo-hybrid-7b has 30 key heads, which 4 does not divide"):
        find_model("olmo-hybrid-7b").shape(4)
    for tp in (0, -1):
        with pytest.raises(UsageError, match="not positive"):
            find_model("qwen3.5-9b").shape(tp)
    with pytest.raises(UsageError, match="unknown dtype"):
        find_model("qwen3.5-9b").shape(1, "fp8")


def test_select_all_skips_only_the_indivisible_pairs() -> None:
    selection = select_shapes(["all"], [1, 2, 4, 8])
    assert len(selection.shapes) == 24 * 4 - 2
    assert [(s.model, s.tp) for s in selection.skipped] == [("olmo-hybrid-7b", 4), ("olmo-hybrid-7b", 8)]
    # 20 Qwen pairs of heads, 4 more with a sigmoid gate, 2 of OLMo
    assert len(distinct(shape for shape in selection.shapes if shape.family == GDN)) == 26
    # KDA: 32, 16, 8 and 4 heads without a bound; 96 to 12 and 64 to 2 with one
    assert len(distinct(selection.shapes)) == 26 + 4 + 4 + 6


def test_select_is_ordered_and_without_repeats() -> None:
    selection = select_shapes(
        ["qwen3.5-9b,qwen3.5-4b", "Qwen/Qwen3.5-9B"], [2, 1, 2], dtypes=["bf16", "fp16", "bfloat16"]
    )
    assert [(s.name, s.tp, s.dtype) for s in selection.shapes[:3]] == [
        ("qwen3.5-9b", 2, "bf16"),
        ("qwen3.5-9b", 2, "fp16"),
        ("qwen3.5-9b", 1, "bf16"),
    ]
    assert len(selection.shapes) == 8
    assert len(distinct(selection.shapes)) == 4  # the 4B and the 9B have the same layer


def test_select_shapes_beside_models() -> None:
    selection = select_shapes(["qwen3.5-9b"], [1], [shape(), shape(dtype="fp16"), shape(name="mine", conv_width="3")])
    assert [s.name for s in selection.shapes] == [
        *("qwen3.5-9b", "h16-hv32-k128-v128-w4-bf16", "h16-hv32-k128-v128-w4-fp16", "mine")
    ]
    assert len(distinct(selection.shapes)) == 3


def test_the_longest_call_that_is_covered() -> None:
    long, short = find_model("kimi-k3").shape(1), find_model("olmo-hybrid-7b").shape(1)
    assert (long.context, short.context) == (1048576, 65536)
    assert (longest_context([short]), longest_context([short, long]), longest_context([])) == (65536, 262144, 262144)


def test_select_nothing() -> None:
    with pytest.raises(NothingSelectedError, match="30 key heads, which 8 does not divide"):
        select_shapes(["olmo-hybrid-7b"], [8])
    for names, tps in (([], [1]), (["qwen3.5-9b"], [])):
        with pytest.raises(UsageError, match="is given"):
            select_shapes(names, tps)
    with pytest.raises(UsageError, match="two shapes"):
        select_shapes([], [1], [shape(name="a"), shape(name="a", heads="8")])
    with pytest.raises(UsageError, match="not positive"):
        select_shapes(["qwen3.5-9b"], [0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not key=value"),
        ("heads", "is not key=value"),
        (shape(heads=None), "heads missing"),
        (shape(dtype=None, k_dim=None), "k_dim, dtype missing"),
        (shape(haeds="3"), "unknown key 'haeds'"),
        (shape() + ",heads=4", "heads is given twice"),
        (shape(heads="x"), "'x' is not an integer"),
        (shape(heads="1.5"), "not an integer"),
        (shape(heads="9" * 5000), "not an integer"),
        (shape(heads="٣"), "not an integer"),  # a digit, but not an ASCII one
        (shape(heads="0"), "0 is not positive"),
        (shape(v_heads="24"), "v_heads=24 is not a multiple of heads=16"),
        (shape(k_dim="257"), "k_dim=257 is more than 256"),
        (shape(v_dim="513"), "v_dim=513 is more than 512"),
        (shape(dtype="fp8"), "unknown dtype 'fp8'"),
        (shape(name="../x"), "not a usable name"),
        (shape(name=""), "not a usable name"),
        (shape(name="qwen3.5-9b"), "is a model of the catalogue"),
        (shape(family="mamba"), "unknown family 'mamba'"),
        (shape(family="kdaa"), "unknown family 'kdaa'"),
        (shape(gate_bound="-5"), "gate_bound is not for family=gdn"),
        (shape(family="kda", v_heads=None, dtype=None), "dtype missing"),
        (shape(family="kda", heads=None, v_heads=None), "heads missing"),
        (shape(family="kda", gate_bound="0"), r"gate_bound=0 is not in \[-5, 0\)"),
        (shape(family="kda", gate_bound="-5.01"), "is not in"),
        (shape(family="kda", gate_bound="nan"), "is not in"),
        (shape(family="kda", gate_bound="low"), "gate_bound=low is not in"),
    ],
)
def test_malformed_shape(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_shape(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("family=kda,heads=30", KDA),
        ("heads=30,family = kda,heads=30", KDA),
        ("family=kda,heads=x,k_dim=128,v_dim=128,dtype=bf16", KDA),
        ("family=kda,heads=32,v_heads=33,k_dim=128,v_dim=128,dtype=bf16", KDA),
        ("family=kda,heads=32,k_dim=257,v_dim=128,dtype=bf16", KDA),
        ("family=kda,heads", KDA),
        ("heads=30", GDN),
        ("family=gdn,name=kda,heads=30", GDN),
    ],
)
def test_the_example_for_a_wrong_shape_is_of_its_family(text: str, family: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_shape(text)
    example, _, option = raised.value.hint.removeprefix("for example --shape ").partition("; bounded gates: ")
    assert parse_shape(example).family == family
    assert bool(option) == (family == KDA)
    if option:
        assert parse_shape(f"{example},{option}").gate_bound == -5.0


def test_a_shape_of_a_family() -> None:
    made = parse_shape(shape(family="kda", v_heads=None))
    assert (made.family, made.v_heads, made.gate_bound, made.norm_activation) == (KDA, 16, 0.0, "sigmoid")
    assert made.name == "kda-h16-hv16-k128-v128-w4-bf16"
    bounded = parse_shape(shape(family="kda", v_heads="32", gate_bound="-2.5"))
    assert (bounded.v_heads, bounded.gate_bound) == (32, -2.5)
    assert bounded.name == "kda-h16-hv32-k128-v128-w4-g2.5-bf16"
    assert parse_shape(shape(family="gdn")) == parse_shape(shape())
    keys = {one.shape(1).kernel_key for one in (made, bounded, parse_shape(shape(v_heads="16")))}
    assert len(keys) == 3, "kernels tell families and bounded gates apart"


@given(st.text(max_size=80))
def test_any_text_is_a_shape_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_shape(text)


def test_parse_tp() -> None:
    assert parse_tp("1,2, 4,8,2") == (1, 2, 4, 8)
    for bad in ("", "1,", "x", "0", "-2", "1.0"):
        with pytest.raises(UsageError):
            parse_tp(bad)

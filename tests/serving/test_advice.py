"""What covers a miss: the command for just this one."""

from typing import Any

import pytest

from gdn_aot.serving.advice import cover

SHAPE = {"heads": 16, "v_heads": 32, "k_dim": 128, "v_dim": 128}
SIZES = {"H": 16, "HV": 32, "K": 128, "V": 128}


def _header(provider: str = "fla", models: int = 1, **more: object) -> dict[str, Any]:
    rows = [{"name": f"m{number}", "tp": 1 + number, "dtype": "bf16", **SHAPE} for number in range(models)]
    return {"target": "sm_80", "provider": provider, "models": rows, "max_tokens": 4096, "max_batch": 64, **more}


@pytest.mark.parametrize(
    ("values", "dtype", "said"),
    [
        (
            {**SIZES, "H": 32, "B": 1},
            "bf16",
            "--model m0 --tp 1 --shape heads=32,v_heads=32,k_dim=128,v_dim=128,dtype=bf16",
        ),
        (SIZES, "fp32", "--model m0 --tp 1 --dtype fp32"),
        ({"B": 65, "H": 32}, "fp32", "--max-batch 65"),
        ({"B": 64, "D": 128}, "bf16", "capture -o FILE -- COMMAND, then gdn-aot build --arch sm_80 --provider fla"),
        ({"NB": 2, "D": 128}, "bf16", "--max-tokens 262144"),
        ({"NB": 1, "D": 128}, "bf16", "capture -o FILE -- COMMAND"),
        (SIZES, "bf16", "capture -o FILE -- COMMAND"),
        ({}, "", "capture -o FILE -- COMMAND"),
        ({**SIZES, "H": "odd", "B": None}, "", "capture -o FILE -- COMMAND"),
    ],
)
def test_a_miss_names_what_covers_it(values: dict[str, Any], dtype: str, said: str) -> None:
    got = cover(_header(), values, dtype)
    assert got.startswith("Cover it ")
    assert said in got
    assert "gdn-aot build --arch sm_80 --provider fla --model m0 --tp 1" in got


def test_longer_contexts_are_not_advised_where_the_longest_is_built() -> None:
    assert "capture" in cover(_header(max_tokens=262144), {"NB": 2}, "bf16")


def test_many_models_are_all() -> None:
    assert "--model all --tp 1,2,3,4,5,6" in cover(_header(models=6), SIZES, "fp32")


def test_a_provider_that_takes_no_shape_is_recorded() -> None:
    got = cover(_header("vllm"), {"Hg": 32, "H": 32, "K": 128, "V": 128}, "bf16")
    assert "--shape" not in got
    assert "gdn-aot capture -o FILE -- vllm serve MODEL" in got


def test_an_unknown_provider_is_said() -> None:
    assert cover(_header("other"), SIZES) == "No build covers it: its provider is not known here"

"""``gdn-aot tune`` on the command line of a machine without a card."""

from pathlib import Path

import pytest
from helpers import expect_error, gdn_aot

from gdn_aot.cli.tune import parse_duration, parse_tokens
from gdn_aot.errors import UsageError

SHAPE = "heads=2,v_heads=4,k_dim=64,v_dim=64,dtype=bf16"
NO_CARD = {"CUDA_VISIBLE_DEVICES": ""}


def test_without_a_card_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    done = gdn_aot(
        "tune", "--model", "qwen3.5-9b", "-o", tmp_path / "records", "--json", home=tmp_path, extra=NO_CARD, code=None
    )
    error = expect_error(done, 2, "usage")
    assert "--prepare" in error["hint"]
    assert not (tmp_path / "records").exists()


def test_prepare_needs_no_card_and_compiles_once(tmp_path: Path) -> None:
    arguments = ("tune", "--prepare", "--arch", "sm_90", "--shape", SHAPE, "--workload", "gated-norm")
    arguments += ("--tokens", "64,512", "--cache-dir", str(tmp_path / "cache"), "--json")
    first = gdn_aot(*arguments, home=tmp_path, extra=NO_CARD).json
    assert first["target"] == "sm_90"
    assert first["keys"] > 0
    assert first["candidates"] == 9 * first["keys"], "every candidate of the provider, for every key"
    assert first["compiled"] > 0
    again = gdn_aot(*arguments, home=tmp_path, extra=NO_CARD).json
    assert again["compiled"] == 0
    assert again["keys"] == first["keys"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "qwen3.5-9b", "--tokens", "64,x"), "--tokens"),
        (("--model", "qwen3.5-9b", "--tokens", "0"), "--tokens"),
        (("--model", "qwen3.5-9b", "--weights", "64:1"), "64:1"),
        (("--model", "qwen3.5-9b", "--weights", "64=-1"), "negative"),
        (("--model", "qwen3.5-9b", "--budget", "soon"), "--budget"),
        (("--model", "qwen3.5-9b", "--workload", "nothing-*"), "nothing-*"),
        (("--model", "qwen3.5-9000b"), "unknown model"),
        ((), "no model given"),
        (("--model", "qwen3.5-9b", "--provider", "fle"), "fle"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = gdn_aot("tune", "--prepare", "--arch", "sm_90", *arguments, "--json", home=tmp_path, code=None)
    assert said in expect_error(done, 2, "usage")["message"]


def test_tokens_are_sorted_and_each_once() -> None:
    assert parse_tokens("512, 64,512") == (64, 512)
    for wrong in ("", "64,", "-1", "1e3", "²", str(1 << 40)):
        with pytest.raises(UsageError):
            parse_tokens(wrong)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90", "90s", "20m", "1.5h")] == [90, 90, 1200, 5400]
    for wrong in ("", "m", "-5m", "0", "nan", "inf", "5d", "x"):
        with pytest.raises(UsageError):
            parse_duration(wrong)

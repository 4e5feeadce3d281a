"""``--shape`` with providers that take it, and with one that cannot know enough from it."""

from pathlib import Path

import pytest
from helpers import expect_error, gdn_aot

SHAPE = ("--shape", "heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16")
COMMANDS = {
    "build": ("build",),
    "build of one workload": ("build", "--workload", "gated-norm"),
    "build with a model": ("build", "--model", "qwen3.5-9b"),
    "tune": ("tune", "--prepare"),
    "check": ("check", "--prepare"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_engine_takes_models_of_the_catalogue_alone(name: str, tmp_path: Path) -> None:
    command, *options = COMMANDS[name]
    done = gdn_aot(command, "--provider", "vllm", "--arch", "sm_90", *SHAPE, *options, "--json", home=tmp_path, code=2)
    error = expect_error(done, 2, "usage")
    assert "does not say which layer" in error["message"]
    assert "gdn-aot capture -o FILE -- vllm serve" in error["hint"]
    assert "gdn-aot build --capture FILE" in error["hint"]


@pytest.mark.parametrize("command", ["build", "tune", "check"])
@pytest.mark.parametrize(("provider", "named"), [("fla", True), ("vllm", False)])
def test_what_is_missing_is_what_the_provider_takes(command: str, provider: str, named: bool, tmp_path: Path) -> None:
    more = () if command == "build" else ("--prepare",)
    done = gdn_aot(command, "--provider", provider, "--arch", "sm_90", "--json", *more, home=tmp_path, code=2)
    hint = expect_error(done, 2, "usage")["hint"]
    assert "--model all" in hint
    assert ("--shape" in hint) == named
    assert ("--capture" in hint) == (command == "build")


@pytest.mark.parametrize(
    ("shape", "provider", "workload", "others"),
    [
        ("kda", "fla", "transformers-prefill", "gated-norm, transformers-kda-prefill"),
        ("gdn", "fla", "transformers-kda-*", "transformers-prefill, transformers-decode"),
    ],
)
def test_a_workload_of_another_family_is_refused(
    shape: str, provider: str, workload: str, others: str, tmp_path: Path
) -> None:
    options = ("--arch", "sm_90", *SHAPE[:1], f"{SHAPE[1]},family={shape}", "--provider", provider)
    done = gdn_aot("build", *options, "--workload", workload, "--json", home=tmp_path, code=3)
    error = expect_error(done, 3, "nothing-selected")
    assert f"of no model of the family {shape}" in error["message"]
    assert others in error["hint"]

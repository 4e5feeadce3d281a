"""Descriptions of deployments: what is read, what is refused, and what ties one to an artifact."""

import json
from pathlib import Path

import factory
import pytest
from helpers import gdn_aot
from msgspec.structs import replace

from gdn_aot import deployment
from gdn_aot.artifact import names
from gdn_aot.artifact.header import header_of
from gdn_aot.artifact.manifest_json import load_manifest, to_json
from gdn_aot.errors import DeploymentError, VerificationError

TEXT = (
    "card=NVIDIA H200,max_model_len=16384,enforce-eager=true,gpu_memory_utilization=0.5,VLLM_USE_FLASHINFER_SAMPLER=0"
)
TOML = """
card = "NVIDIA H200"
environment = { VLLM_USE_FLASHINFER_SAMPLER = "0" }

[engine]
enforce_eager = true
gpu_memory_utilization = 0.5
max_model_len = 16384
"""
BUILD = ("build", "--provider", "vllm", "--model", "qwen3-next-80b-a3b", "--arch", "sm_90", "--deployment")


def built() -> deployment.Built:
    asked = deployment.complete(deployment.read(TEXT), "qwen3-next-80b-a3b", {"model_type": "qwen3_next"})
    return deployment.Built.of(asked, {"max_num_seqs": 256})


def test_flags_and_a_file_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "deployment.toml"
    path.write_text(TOML)
    assert deployment.read(str(path)) == deployment.read(TEXT)
    path.write_text(TOML.replace("environment", 'config = "checkpoint"\nenvironment'))
    assert deployment.read(str(path)).config == str(tmp_path / "checkpoint")


def test_an_option_that_is_a_table_is_kept_as_json(tmp_path: Path) -> None:
    """As on an engine's command line, and in one order whatever that of the file is."""
    path, wanted = tmp_path / "deployment.toml", {"method": "mtp", "num_speculative_tokens": 2, "since": "2026-11-30"}
    for table in (
        'speculative_config = {num_speculative_tokens = 2, method = "mtp", since = 2026-11-30}',
        '[engine.speculative_config]\nmethod = "mtp"\nsince = 2026-11-30\nnum_speculative_tokens = 2',
    ):
        path.write_text(TOML + table)
        assert deployment.read(str(path)).engine["speculative_config"] == json.dumps(wanted, sort_keys=True)
    path.write_text(TOML + 'hf_overrides = {a = {hf_token = "abc"}}')
    with pytest.raises(DeploymentError) as caught:
        deployment.read(str(path))
    assert "engine.hf_overrides: is a secret" in str(caught.value.problems[0])
    path.write_text('card = "NVIDIA H200"\nengine = 1\n')
    with pytest.raises(DeploymentError):
        deployment.read(str(path))


def test_the_digest_follows_what_decides_kernels_and_nothing_else() -> None:
    one, config = deployment.read(TEXT), {"b": 1, "a": [2]}
    first = deployment.complete(one, "m", config)
    assert first.digest == deployment.complete(one, "m", {"a": [2], "b": 1}).digest
    other = deployment.read(TEXT.replace("H200", "H100 80GB HBM3"))
    assert first.digest != deployment.complete(other, "m", config).digest
    assert first.digest != deployment.complete(one, "m", {"a": [2], "b": 2}).digest
    assert deployment.Built.of(first, {"max_num_seqs": 1}).asked == first


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("max_model_len=1", "card"),
        ("card=NVIDIA H200,hf_token=abc", "engine.hf_token"),
        ("card=NVIDIA H200,VLLM_API_KEY=abc", "environment.VLLM_API_KEY"),
        ("card=NVIDIA H200,gpu_memory_utilization=nan", "engine.gpu_memory_utilization"),
        ("card=NVIDIA H200,VLLM_lower=1", "environment"),
    ],
)
def test_problems_are_named(text: str, where: str) -> None:
    with pytest.raises(DeploymentError) as caught:
        deployment.read(text)
    assert where in str(caught.value.problems[0])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["card=NVIDIA H200,=1", "card=a,card=b", "card=a,b", "nowhere.toml"])
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(DeploymentError):
        deployment.read(text)


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff"])
def test_a_config_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(DeploymentError):
        deployment.read_config(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*BUILD[:3], "--model", "qwen3.5-9b,qwen3.5-4b", "--deployment", "card=NVIDIA H200"), "one --model"),
        ((*BUILD, "card=NVIDIA A100-SXM4-80GB"), "is sm_80, and --arch says sm_90"),
        ((*BUILD, "card=Voodoo 2"), "is no known card"),
        ((*BUILD, "card=NVIDIA H200", "--tp", "1,2"), "one --tp"),
        (("build", "--model", "qwen3.5-9b", "--deployment", "card=NVIDIA H200"), "which is no engine"),
        (("build", "--provider", "vllm", "--model", "qwen3.5-4b", "--deployment", "card=NVIDIA H200"), "config.json"),
    ],
)
def test_a_build_says_what_cannot_be(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = gdn_aot(*options, "-o", tmp_path, home=tmp_path, code=2)
    assert said in done.err
    assert not [*tmp_path.glob("*.zst")]


def test_a_manifest_holds_what_it_was_built_for() -> None:
    plain = factory.full_manifest()
    assert b'"deployment"' not in to_json(plain), "files of before have no such key"
    found = built()
    workloads = (*plain.workloads, names.DEPLOYMENT + found.asked.digest)
    parts = plain.provider.name, plain.provider.version, plain.triton.version, plain.target.name
    identifier = names.make_identifier(*parts, workloads)
    made = replace(plain, deployment=found, workloads=workloads, identifier=identifier)
    data = to_json(made)
    assert load_manifest(data).deployment == found
    assert header_of({**json.loads(data), "kernels": []}, "", "")["card"] == "NVIDIA H200"
    assert "card" not in header_of({**factory.plain(), "kernels": []}, "", "")
    for wrong in (replace(made, deployment=None), replace(made, deployment=replace(found, card="NVIDIA H100"))):
        with pytest.raises(VerificationError):
            load_manifest(to_json(wrong))

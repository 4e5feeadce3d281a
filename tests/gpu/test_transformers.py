"""A model of transformers generates the same tokens, without the wait at the first one."""

import importlib.util
from pathlib import Path

import pytest
from gpu import fla_configs, served
from gpu.conftest import Loaded, Program, Record, build_command

pytestmark = pytest.mark.gpu

NEW_TOKENS = 24
V_HEADS = 32


def key_heads() -> int:
    """Return how many key heads the GDN layer hands to FLA: up to transformers 5.22 it repeats them."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        pytest.skip("transformers is not installed")
    source = Path(found.origin).parent / "models" / "qwen3_next" / "modeling_qwen3_next.py"
    if not source.exists():
        pytest.skip("this version of transformers has no Qwen3-Next")
    repeated = "query.repeat_interleave(self.num_v_heads // self.num_k_heads" in source.read_text(encoding="utf-8")
    return V_HEADS if repeated else 16


def test_generate(program: Program, artifact: Loaded, tmp_path: Path, record: Record) -> None:
    heads = key_heads()
    if not artifact.has_shape(heads, V_HEADS):
        pytest.skip(
            f"this transformers calls FLA with {heads} key heads, which the artifact lacks; make it with: "
            + build_command(artifact.manifest.target.name)
        )
    fla_configs.export(fla_configs.read_choices(artifact.path), tmp_path / "configs")
    forced = fla_configs.environment(tmp_path / "configs")
    with_artifact = program("generate", served=True, new_tokens=NEW_TOKENS)
    same_choices = program("generate", served=False, new_tokens=NEW_TOKENS, extra=forced)
    plain = program("generate", served=False, new_tokens=2)
    runs = {"gdn-aot": with_artifact, "plain, the artifact's choices": same_choices, "plain": plain}
    record(
        transformers=with_artifact["transformers"],
        key_heads=heads,
        first_token_seconds={name: run["first_token_seconds"] for name, run in runs.items()},
        steady_first_token_seconds={name: run["steady_first_token_seconds"] for name, run in runs.items()},
        compiled={name: len(run["watch"]["compiled"]) for name, run in runs.items()},
        benchmarked={name: run["watch"]["benchmarked"] for name, run in runs.items()},
        loaded=with_artifact["report"]["loaded"],
        tokens=with_artifact["tokens"],
    )
    assert all(run["fla_available"] for run in runs.values())
    served.check_all(with_artifact)
    assert {*served.CHUNK_KERNELS, served.DECODE_KERNEL} == served.loaded_kernels(with_artifact["report"])
    assert len(same_choices["watch"]["of_fla"]) >= len(served.CHUNK_KERNELS)
    assert same_choices["watch"]["benchmarked"] == 0
    assert plain["watch"]["benchmarked"] > 0
    assert with_artifact["weights"] == same_choices["weights"]
    assert with_artifact["tokens"] == same_choices["tokens"]
    assert all(len(row) == NEW_TOKENS for rows in with_artifact["tokens"].values() for row in rows)
    assert len({token for rows in with_artifact["tokens"].values() for row in rows for token in row}) > 1

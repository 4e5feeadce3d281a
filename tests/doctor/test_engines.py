"""``gdn-aot doctor`` on a machine that serves with vLLM: is the loader installed there, and what does it serve."""

import os
from pathlib import Path
from typing import Any

import factory
import pytest
from doctoring import distribution, doctor, in_the_way
from helpers import ROOT, expect_error, gdn_aot, python
from msgspec.structs import replace

from gdn_aot._files import parse_toml
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.names import make_identifier
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.doctor.next_start import next_starts
from gdn_aot.machine import installed
from gdn_aot.providers.vllm.engine import conditions
from gdn_aot.store.install import install
from gdn_aot.store.store import Store

PREFILL = "vllm.third_party.flash_linear_attention.ops.chunk_o:chunk_fwd_kernel_o"
OLD_PREFILL = "vllm.model_executor.layers.fla.ops.solve_tril:merge_16x16_to_64x64_inverse_kernel"
DECODE = "vllm.model_executor.layers.fla.ops.fused_recurrent:packed_decode"
UPDATE = (
    "vllm.third_party.flash_linear_attention.ops.fused_sigmoid_gating:fused_sigmoid_gating_delta_rule_update_kernel"
)
KERNELS = (PREFILL, OLD_PREFILL, DECODE)
SERVED = (
    ("chunk_delta_h", "chunk_gated_delta_rule_fwd_kernel_h_blockdim64"),
    ("chunk_o", "chunk_fwd_kernel_o"),
    ("l2norm", "l2norm_fwd_kernel"),
)


@pytest.mark.parametrize(
    ("version", "capability", "expected"),
    [
        ("0.17.1", (9, 0), "this version has no option"),
        ("0.24.0", (9, 0), "takes FlashInfer for prefill on this card; with --gdn-prefill-backend triton"),
        ("0.24.0", (10, 0), "if key heads have 128 dimensions and CUDA is 13"),
        ("0.20.2", (10, 0), None),
        ("0.24.0", (12, 0), None),
        ("0.33.0", (12, 0), "if key heads have 128 dimensions"),
        ("0.33.0", (8, 0), None),
        ("0.33.0", (8, 9), None),
        ("0.33.0", (7, 0), None),
    ],
)
def test_which_kernels_vllm_launches(version: str, capability: tuple[int, int], expected: str | None) -> None:
    found = conditions("vllm", version, capability, KERNELS)
    if expected is None:
        assert found == ()
        return
    assert found[0].kernels == (PREFILL, OLD_PREFILL)
    assert expected in found[0].reason


@pytest.mark.parametrize(
    ("version", "capability", "expected"),
    [("0.33.0", (8, 0), True), ("0.33.0", (12, 0), True), ("0.33.0", (7, 5), False), ("0.24.0", (9, 0), False)],
)
def test_where_vllm_has_an_operator_of_its_own_for_drafts(
    version: str, capability: tuple[int, int], *, expected: bool
) -> None:
    found = [one for one in conditions("vllm", version, capability, (UPDATE, DECODE)) if UPDATE in one.kernels]
    assert len(found) == expected
    assert all(one.kernels == (UPDATE,) and "VLLM_GDN_DECODE_KERNEL=triton" in one.reason for one in found)


@pytest.mark.parametrize(
    ("version", "capability", "expected"), [((0, 33), (9, 0), 2), ((0, 33), (10, 3), 2), ((0, 33), (8, 9), 0)]
)
def test_where_prompts_of_bounded_gates_are_flashkda(
    version: tuple[int, int], capability: tuple[int, int], expected: int
) -> None:
    package = "vllm.models.{}.nvidia.ops.third_party.kda.{}"
    prompts = (
        package.format("glm5next", "kernels:chunk_gla_fwd_kernel_o"),
        package.format("kimi_k3", "chunk_intra:chunk_kda_fwd_kernel_inter_solve_fused"),
    )
    decode = package.format("kimi_k3", "fused_recurrent:fused_recurrent_kda_packed_decode_kernel")
    found = conditions("vllm", "{}.{}.0".format(*version), capability, (*prompts, decode))
    assert [one.kernels for one in found] == [prompts] * (expected // 2)
    assert all("kda_prefill_backend" in one.reason for one in found)


def test_other_distributions_have_no_condition() -> None:
    assert conditions("fla-core", "0.6.0", (9, 0), KERNELS) == ()


@pytest.fixture
def vllm(tmp_path: Path) -> Any:
    """A store with an artifact of vLLM 0.24.0 that has some of its names, and vLLM in the environment."""
    plain = factory.make_manifest()
    triton = installed.version("triton") or ""
    cubin = factory.kernel_of(b"code", target="sm_90")
    made = replace(
        plain,
        identifier=make_identifier("vllm", "0.24.0", triton, "sm_90"),
        target=m.GPU(name="sm_90", capability=(9, 0), warp_size=32, max_shared=232448),
        provider=replace(plain.provider, name="vllm", distribution="vllm", version="0.24.0"),
        triton=replace(plain.triton, version=triton),
        kernels=tuple(
            replace(
                factory.make_kernel(factory.make_binary(cubin, target="sm_90"), qualname=name),
                module=f"vllm.model_executor.layers.fla.ops.{module}",
                sources=(),
            )
            for module, name in SERVED
        ),
    )
    path = tmp_path / "vllm.tar.zst"
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, cubin)}
    install(Store(str(tmp_path / "home")), open_artifact(write_artifact(made, blobs, path).path))
    distribution(tmp_path / "site", "vllm", "0.24.0")
    package = tmp_path / "site/vllm/model_executor/layers/fla/ops"
    package.mkdir(parents=True)
    (tmp_path / "site/vllm/__init__.py").touch()
    for module, _ in SERVED:
        (package / f"{module}.py").touch()

    def vllm(*, code: int = 0, entry_point: bool = True, **extra: str) -> Any:
        groups = parse_toml((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
        value = groups["vllm.general_plugins"]["gdn_aot"]
        if not (tmp_path / "ours").exists():  # found before the distribution that the tests run from
            ours = f"[vllm.general_plugins]\ngdn_aot = {value}\n" if entry_point else ""
            distribution(tmp_path / "ours", "gdn_aot", "0.1.0", ours)
        path = os.pathsep.join(map(str, (tmp_path / "site", tmp_path / "ours", ROOT)))
        return doctor(tmp_path / "home", code=code, PYTHONPATH=path, **extra)

    return vllm


def test_an_installed_entry_point_is_fine_and_prefill_is_conditional(vllm: Any, tmp_path: Path) -> None:
    document = vllm()
    (plugin, _) = document["hooks"]["plugins"]
    assert (plugin["installed"], plugin["value"]) == (True, "gdn_aot.plugins.vllm:register")
    (start,) = document["next_start"]
    (condition,) = start["conditional"]
    assert condition["kernels"] == [
        "vllm.model_executor.layers.fla.ops.chunk_delta_h:chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
        "vllm.model_executor.layers.fla.ops.chunk_o:chunk_fwd_kernel_o",
    ]
    assert set(condition["kernels"]) < set(start["served"])
    path = os.pathsep.join(map(str, (tmp_path / "site", tmp_path / "ours", ROOT)))
    shown = gdn_aot("doctor", home=tmp_path / "home", extra={"PYTHONPATH": path}).out
    assert "of those served, launched only under a condition: 2" in shown
    assert "vLLM takes FlashInfer for prefill on this card" in shown


def test_vllm_plugins_without_us_is_in_the_way(vllm: Any) -> None:
    document = vllm(code=4, VLLM_PLUGINS="other")
    assert in_the_way(document) == "hooks: VLLM_PLUGINS=other leaves gdn_aot out, so that vllm 0.24.0 does not load it"
    assert document["obstacles"][0]["hint"] == "add gdn_aot to VLLM_PLUGINS, or unset it"
    assert vllm(VLLM_PLUGINS="other,gdn_aot", entry_point=False)["ok"]


def test_a_filter_that_leaves_us_out_does_not_hide_that_there_is_no_entry_point(vllm: Any) -> None:
    obstacles = vllm(code=4, entry_point=False, VLLM_PLUGINS="other")["obstacles"]
    assert [(obstacle["where"], obstacle["what"].partition(" leaves ")[0]) for obstacle in obstacles] == [
        ("hooks", "vllm 0.24.0 finds no entry point gdn_aot of vllm.general_plugins, so that it does not load it"),
        ("hooks", "VLLM_PLUGINS=other"),
    ]


@pytest.mark.parametrize("only", [True, False])
def test_the_advice_builds_for_the_providers_that_are_installed(tmp_path: Path, only: bool) -> None:
    """What it says is a command that goes as far as asking for a model's name."""
    path = distribution(tmp_path / "site", "vllm", "0.24.0")
    code = (
        "import gdn_aot.doctor.process as process;"
        "real = process.installed.version;"
        f"process.installed.version = lambda name: None if {only} and name == 'fla-core' else real(name);"
        "import json; from gdn_aot.doctor import diagnose; found = diagnose().document();"
        "print(json.dumps([found['next_start'][0]['commands'], found['obstacles'][0]['hint']]))"
    )
    commands, hint = python(code, home=tmp_path / "home", extra=path)
    names = ["vllm"] if only else ["fla", "vllm"]
    assert commands == [f"gdn-aot build --arch TARGET --provider {name} --model NAME" for name in names]
    assert hint == f"gdn-aot fetch --arch TARGET, or {' or '.join(commands)}, then set GDN_AOT_ARTIFACT to its file"
    words = commands[0].replace("TARGET", "sm_90").replace("NAME", "no-such-model").split()[1:]
    error = expect_error(gdn_aot(*words, "--json", home=tmp_path / "home", extra=path, code=2), 2, "usage")
    assert "no-such-model" in error["message"]


def test_without_a_provider_the_advice_asks_for_one() -> None:
    (start,) = next_starts((), (), "")
    assert start.commands == ("gdn-aot build --arch TARGET --provider PROVIDER --model NAME",)

"""Which models and workloads a binary is for, against builds of each of them alone."""

from collections.abc import Callable
from functools import partial

from builds import Built

from gdn_aot.artifact.manifest import Binary, Manifest


def _launches(manifest: Manifest) -> dict[tuple[str, str], Binary]:
    return {(kernel.name, binary.launch_key): binary for kernel in manifest.kernels for binary in kernel.binaries}


def test_models_and_workloads_are_those_that_ask_for_the_binary_when_built_alone(build: Callable[..., Built]) -> None:
    workloads = ("transformers-decode", "gated-norm", "short-conv")
    selected = ("qwen3.5-4b", "qwen3.5-9b")
    make = partial(build, "--arch", "sm_120", "--max-tokens", 64, "--max-batch", 2)
    models = [item for name in selected for item in ("--model", name)]
    together = make(*models, "--tp", "1,2", *(item for name in workloads for item in ("--workload", name)))
    alone = {
        (tp, name): set(_launches(make("--model", selected[1], "--tp", tp, "--workload", name).manifest))
        for tp in (1, 2)
        for name in together.manifest.workloads
    }
    manifest = together.manifest
    assert sorted((model.name, model.tp) for model in manifest.models) == [
        (name, tp) for name in selected for tp in (1, 2)
    ]
    binaries = _launches(manifest)
    assert set(binaries) == set().union(*alone.values())
    for launch, binary in binaries.items():
        askers = [asker for asker, launches in alone.items() if launch in launches]
        tps, names = {tp for tp, _ in askers}, {name for _, name in askers}
        assert {index for index, model in enumerate(manifest.models) if model.tp in tps} == set(binary.models)
        assert [name for name in manifest.workloads if name in names] == [
            manifest.workloads[index] for index in binary.workloads
        ]
    # The check is worth something only if binaries of one size and of both, of one workload and of several were seen.
    assert len({binary.models for binary in binaries.values()}) == 3
    assert len({binary.workloads for binary in binaries.values()}) >= 3

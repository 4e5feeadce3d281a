"""Keys of which every candidate of the provider spills, with kernels that compile for minutes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tuning_tasks import quiet

from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.proxy import proxy_for
from gdn_aot.launches import SOUND_LOCAL
from gdn_aot.measuring import plan


def test_where_the_providers_own_spill_sound_ones_are_measured_too(task: Callable[..., Any]) -> None:
    """On sm_70 every candidate of FLA's fwd_o spills kilobytes."""
    made, target = task(tokens=(128,)), get_target("sm_70")
    wanted = replace(
        made,
        job=replace(
            made.job,
            proxy=proxy_for(target, get_target("sm_90")),
            wanted=replace(made.job.wanted, workloads=("transformers-prefill",)),
        ),
        target=target,
        method=replace(made.method, target=target.name),
        search="relieved",
        kernels=("chunk_fwd_kernel_o",),
    )
    (output,) = (state for state in plan.prepare(wanted, quiet).keys.values() if not state.idle)
    own, derived = output.objects[: output.offered], output.objects[output.offered :]
    assert all(made is not None and made.local > SOUND_LOCAL for made in own)
    assert derived
    assert all(made is not None and made.local <= SOUND_LOCAL for made in derived)
    assert len(output.configs) == len(output.objects)

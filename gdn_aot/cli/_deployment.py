"""What ``--deployment`` and ``--compile-cache`` come to, beside the other options of a build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot._text import plural, shown
from gdn_aot.cli._output import note
from gdn_aot.errors import DeploymentError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.building.compile_cache import ReadCache
    from gdn_aot.catalogue.models import Model
    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.deployment import Deployment, DeploymentFile
    from gdn_aot.tracing.captured import CapturedKernels

_DTYPE = "dtype"
_SIZE = "tensor_parallel_size"


def selected_deployment(provider: ProviderInfo, options: dict[str, Any]) -> tuple[Deployment, dict[str, Any]]:
    """Return the deployment that ``--deployment`` describes, and the options that follow from it.

    The size of tensor parallelism and the dtype are those of the description, if they are there: kernels of the gated
    delta rule are built for the same.

    Raises:
        DeploymentError: The description is malformed, or is not one of this model and this target.
        UsageError: The provider is no engine, or the other options name more than one model, size or target.
    """
    from msgspec.structs import replace

    from gdn_aot.catalogue.cards import target_of
    from gdn_aot.catalogue.models import find_model
    from gdn_aot.deployment import complete, read

    if not provider.serve:
        raise UsageError(
            f"--deployment is not for provider {provider.name}, which is no engine", hint="--provider vllm"
        )
    file = read(options["deployment"])
    target = target_of(file.card)
    if target is None:
        hint = "nvidia-smi -L prints it, as NVIDIA H200; gdn_aot/catalogue/cards.toml has the known ones"
        raise DeploymentError(f"card: {file.card!r} is no known card", hint=hint)
    archs = options["arch"] or (target,)
    names = [name for value in options["model"] for name in value.split(",")]
    sizes, dtypes = options["tp"].split(","), options["dtype"]
    for what, values in (("--model", names), ("--tp", sizes), ("--arch", archs)):
        if len(values) != 1 or values[0] == "all":
            raise UsageError(f"--deployment is of one {what}, not of {len(values)}", hint=f"give one {what}")
    if archs[0] != target:
        raise DeploymentError(f"card: {file.card} is {target}, and --arch says {archs[0]}", hint=f"--arch {target}")
    model = find_model(names[0])
    engine = {_SIZE: int(sizes[0]), **({_DTYPE: dtypes[0]} if dtypes else {}), **file.engine}
    config = _config(file, model)
    changed = {"arch": archs, "tp": str(engine[_SIZE])}
    if engine.get(_DTYPE, "auto") != "auto":
        changed[_DTYPE] = (str(engine[_DTYPE]),)
    return complete(replace(file, engine=engine), model.name, config), changed


def selected_cache(
    folder: Path | None,
    provider: ProviderInfo,
    targets: Sequence[Target],
    captured: CapturedKernels | None,
    deployment: Deployment | None,
) -> ReadCache | None:
    """Return the compile cache that ``--compile-cache`` names, for the one deployment that is built for.

    Raises:
        UsageError: It is none or cannot be packed, is of another GPU than the deployment, or the other options do not
            say one deployment.
    """
    if folder is None:
        return None
    from gdn_aot.artifact.cached import ENGINE, SWITCH
    from gdn_aot.building.compile_cache import read_cache

    if provider.name != ENGINE:
        raise UsageError(f"--compile-cache is not for provider {provider.name}", hint=f"--provider {ENGINE}")
    if captured is None and deployment is None:
        why = "a compile cache is of one deployment"
        raise UsageError(f"--compile-cache stands alone, and {why}", hint="add --capture FILE or --deployment FILE")
    if len(targets) != 1:
        raise UsageError(f"--compile-cache is of one GPU, not of {len(targets)} targets", hint="give one --arch")
    found = read_cache(folder)
    record = found.record
    if deployment is not None and record.card not in ("", deployment.card):
        what = f"{folder} was made on {shown(record.card)}, and the deployment is on {deployment.card}"
        raise UsageError(what, hint="record on the GPU on which you serve")
    files = f"{plural(len(record.files), 'file')}, {found.size / 2**20:.1f} MiB"
    note(f"packing vLLM's compile cache ({files}) of {record.origin}: code for the host of servers with {SWITCH}=1")
    return found


def _config(file: DeploymentFile, model: Model) -> dict[str, Any]:
    """Return the ``config.json`` of the checkpoint: the one that is named, or that of the catalogue."""
    from gdn_aot.deployment import read_config

    if file.config:
        return read_config(Path(file.config))
    if not model.config:
        raise DeploymentError(
            f"the catalogue has not the whole config.json of {model.name}, which decides kernels beside its layers",
            hint="config = the path of the checkpoint's config.json",
        )
    note(f"{model.name}: config.json by {model.config_source}; config = PATH takes the checkpoint's own")
    return dict(model.config)

"""Load all kernels of a model onto a device, and make the first calls, before there is traffic.

Afterwards nothing is loaded or allocated by a launch: memory that is free stays free, CUDA graphs can be captured, and
the first request takes as long as the next.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from gdn_aot._text import shown
from gdn_aot.artifact.names import is_single
from gdn_aot.catalogue.rows import alike
from gdn_aot.errors import GdnAotError, UsageError
from gdn_aot.machine.full import lacks_memory
from gdn_aot.serving import loader, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.serving.state import State
    from gdn_aot.store.stored import StoredArtifact


_KEPT = 256 << 20
"""Bytes that small calls may make PyTorch's allocator grow by before it is told to give back what it does not use."""


def preload(model: str | None = None, tp: int | None = None, device: int | None = None, tokens: int = 0) -> int:
    """Load a model's kernels from artifacts, and call the provider in the small ways that they cover.

    The calls use small tensors of their own. They make PyTorch load the kernels that the provider's Python code uses
    (``arange``, ``repeat_interleave`` ...), which it does lazily too and which takes longer than all of ours. Of SGLang
    each step has a pool of states of its own, and steps are not made whose pool would take more than 1 GiB; their
    binaries are loaded all the same. A call for which the device lacks memory is left out. Of vLLM no step with drafts
    is made. When small calls have made PyTorch's allocator grow by more than 256 MiB, it gives back all that nobody
    uses.

    Args:
        model: Name of a model, as in ``gdn-aot models``; by default all models of the artifacts.
        tp: Tensor-parallel size; by default all sizes of the artifacts.
        device: Number of the CUDA device; by default the current one.
        tokens: Also make one call of each kind with a prompt of this many tokens, so that PyTorch's pool holds the
            memory for such a call.

    Returns:
        Bytes of device memory that this call took besides PyTorch's allocator, which are logged too: the decrease of
        free memory, less the growth of that allocator. They include modules, PyTorch's own kernels among them, and the
        memory that the driver keeps once a kernel with local memory is launched (``docs/explanation/memory.md``). They
        include neither the CUDA context nor the memory that ``tokens`` adds to PyTorch's pool. Memory that other
        processes take or give back meanwhile counts as well. 0 if the result is negative, or if PyTorch cannot say how
        much memory is free.

    Raises:
        UsageError: No artifact was built for this model and tensor-parallel size.
    """
    state = loader.state()
    if not state.active:
        log.warn(f"nothing to preload: {state.problem or 'no artifact fits this process'}")
        return 0
    import torch

    device = torch.cuda.current_device() if device is None else _number(device)
    model = model and _catalogue_name(model)
    with torch.cuda.device(device):
        before = _left(device)
        for module in loader.provider_modules():
            _import(module)
        own = [found for found in state.found if not found.elsewhere]
        rows = [(found, number, row) for found in own for number, row in _rows(state, found, device)]
        chosen = [one for one in rows if model in (None, one[2]["name"]) and tp in (None, one[2]["tp"])]
        if rows and not chosen:
            built = ", ".join(sorted({f"{row['name']} tp {row['tp']}" for _, _, row in rows}))
            raise UsageError(f"no artifact was built for {model} tp {tp}", hint=f"built for: {built}")
        for found, number, _ in chosen:
            for binaries in _binaries(state, found, [number]):
                list(_load_binaries(state, found, binaries, device))
        called = [(found.header, row) for found, _, row in chosen]
        _touch(called, device)
        if tokens:
            _touch(called, device, tokens)
        taken = _taken(before, device)
    if taken is not None:
        log.notice(f"preload took {taken / (1 << 20):.1f} MiB of device {device} beside PyTorch's own memory")
    return taken or 0


class Loaded(NamedTuple):
    """What `load_shape` did."""

    artifacts: tuple[str, ...]
    """Identifiers of those that are for the device."""
    captured: bool
    """One of them holds what a capture asked for."""
    models: int
    """Rows of artifacts' models that have the shape."""
    kernels: int
    """Kernels that binaries were loaded of."""
    modules: int
    """Modules that were loaded onto the device."""
    bytes: int
    """Device memory that they took beside PyTorch's, as `preload` counts it. No kernel was launched: local memory that
    the first launch of one takes is not in it."""


def load_shape(shape: Mapping[str, object] | None) -> Loaded:
    """Load onto the current device what artifacts have for the models of one shape, and what captures asked for.

    No call is made. Of a kernel whose module is not imported yet, the module is imported.

    Args:
        shape: Values that the row of a model must have, by name; None in place of a value that is not known. None for
            nothing but what captures asked for.
    """
    import torch

    state = loader.state()
    if not state.active:
        return Loaded(artifacts=(), captured=False, models=0, kernels=0, modules=0, bytes=0)
    device = torch.cuda.current_device()
    before, left = len(state.modules), _left(device)
    models, kernels, captured = 0, set[str](), False
    artifacts = []
    for found in state.found:
        if found.elsewhere or not state.fits(found, device):
            continue
        artifacts.append(shown(found.header["identifier"]))
        numbers = [number for number, row in _rows(state, found, device) if shape and alike(row, shape)]
        models += len(numbers)
        wanted = _binaries(state, found, numbers)
        captured = captured or any(wanted[len(numbers) :])
        for binaries in wanted:
            for module in dict.fromkeys(name.partition(":")[0] for name in binaries):
                _import(module)
            kernels.update(_load_binaries(state, found, binaries, device))
    return Loaded(
        artifacts=tuple(artifacts),
        captured=captured,
        models=models,
        kernels=len(kernels),
        modules=len(state.modules) - before,
        bytes=_taken(left, device) or 0,
    )


def _left(device: int) -> int | None:
    """Return the bytes of a device that are free or in the pools of PyTorch's allocator, or None if it cannot tell."""
    import torch

    try:
        torch.cuda.synchronize(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))
    except Exception as error:  # noqa: BLE001 - what cannot be measured is loaded all the same
        log.info(f"how much memory is free is not known: {type(error).__name__}: {shown(error)}")
        return None


def _taken(before: int | None, device: int) -> int | None:
    """Return how much less `_left` is now, 0 if it is not less; None if that is not known."""
    after = _left(device)
    return None if before is None or after is None else max(before - after, 0)


def _number(device: Any) -> int:
    """Return the number of a device that was given as one, as ``torch.device`` or as ``"cuda:1"``."""
    import torch

    if isinstance(device, int):
        return device
    named = torch.device(device)
    return torch.cuda.current_device() if named.index is None else int(named.index)


def _catalogue_name(model: str) -> str:
    """Return the catalogue's name of a model, or that of a ``--shape`` unchanged."""
    from gdn_aot.catalogue.models import find_model

    try:
        return find_model(model).name
    except UsageError:
        return model


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except GdnAotError:
        raise
    except Exception as error:  # noqa: BLE001 - a module that this deployment does not use may want what is not there
        log.info(f"{shown(module)} cannot be imported: {type(error).__name__}: {shown(error)}")


def _rows(state: State, found: StoredArtifact, device: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if state.fits(found, device):
        yield from enumerate(found.header["models"])


def _binaries(state: State, found: StoredArtifact, models: list[int]) -> list[Mapping[str, list[str]]]:
    """Return the names of the binaries that an artifact has for each of its models, and at last for captures.

    Of each kernel those that one of the workloads that serving causes uses; nothing of an artifact that is damaged.
    """
    try:
        places = _inference_places(found)
        return [
            {
                name: [binary for binary, workloads in binaries if not places.isdisjoint(workloads)]
                for name, binaries in wanted.items()
            }
            for wanted in (*map(found.index.model, models), found.index.captured())
        ]
    except Exception as error:  # noqa: BLE001 - the index may hold anything
        state.damaged(found, error)
        return []


def _load_binaries(state: State, found: StoredArtifact, wanted: Mapping[str, list[str]], device: int) -> Iterator[str]:
    """Load binaries of an artifact; yield the kernels they are of."""
    for name, binaries in wanted.items():
        kernel = state.kernels.get(name)
        if kernel is None:
            continue
        ready = kernel.cache(device)
        for binary in binaries:
            try:
                key = found.index.binary_by_name(binary).launch_key
            except Exception as error:  # noqa: BLE001 - as above
                state.damaged(found, error)
                continue
            ready.get(key)
            yield name


def _inference_places(found: StoredArtifact) -> set[int]:
    """Return the indices of an artifact's workloads that serving causes."""
    header = found.header
    names = _inference(header["provider"])
    return {place for place, name in enumerate(header["workloads"]) if name in names or is_single(name)}


def _inference(provider: str) -> set[str]:
    from gdn_aot.catalogue.providers import get_provider

    return set(get_provider(provider).inference)


def _touch(rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], device: int, tokens: int = 0) -> None:
    """Make the small calls of providers that artifacts cover, or, of their headers and rows of models, large ones.

    Of small calls PyTorch's allocator gives back what nobody uses when it has grown by more than `_KEPT`.
    """
    import torch

    most = _reserved(device) + _KEPT

    def give_back() -> None:
        if not tokens and _reserved(device) > most:
            torch.cuda.empty_cache()

    for header, row in rows:
        with torch.random.fork_rng(devices=[device]), torch.device("cuda", device):
            for name, workload, shape in _workloads(header, row):
                _make(name, workload, shape, tokens, give_back)


def _workloads(header: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[tuple[str, Any, ModelShape]]:
    """Yield the workloads of an artifact that serving causes and that make calls for a model, and its shape."""
    from gdn_aot.catalogue.providers import get_provider
    from gdn_aot.catalogue.rows import shape_of
    from gdn_aot.providers import load, makes

    provider = get_provider(header["provider"])
    inference = _inference(provider.name)
    module = load(provider.name)
    shape = shape_of(row)
    for name in header["workloads"]:
        if name in inference and name in module.WORKLOADS:
            workload = module.WORKLOADS[name]()
            if makes(provider.name, workload, shape):
                yield name, workload, shape


def _make(name: str, workload: Any, shape: ModelShape, tokens: int, then: Callable[[], None]) -> None:
    """Make the small calls of a workload, or those of ``tokens``; leave out those for which the device lacks memory."""
    full = 0
    try:
        small = [*workload.warm(shape, 0)]
        for call in [*workload.warm(shape, tokens)][len(small) :] if tokens else small:  # large ones come last
            try:
                workload.run(shape, call)
            except Exception as error:
                if not lacks_memory(error):
                    raise
                full += 1
            finally:
                then()
        if full:
            log.warn(f"preload: the device is full: {full} calls of {shown(name)} were not made")
    except GdnAotError:
        raise
    except Exception as error:  # noqa: BLE001 - warming up must not end a serving process
        log.warn(f"preload: {shown(name)} failed: {type(error).__name__}: {shown(error)}")


def _reserved(device: int) -> int:
    """Return the bytes of a device that PyTorch's allocator has, or 0 if it cannot tell."""
    import torch

    try:
        return int(torch.cuda.memory_reserved(device))
    except Exception as error:  # noqa: BLE001 - then it keeps what it has
        log.detail(error)
        return 0

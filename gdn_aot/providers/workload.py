"""What the rest of the package sees of a provider's functions: workloads, the calls they make, relaxations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gdn_aot.catalogue.providers import SMALL

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import torch

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.deployment import Deployment
    from gdn_aot.launches import Placement
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one workload: plain numbers and flags, so that it can be printed and sent."""

    workload: str
    arguments: tuple[tuple[str, object], ...]

    @classmethod
    def of(cls, workload: str, **arguments: object) -> Call:
        """Build a call from keyword arguments."""
        return cls(workload, tuple(arguments.items()))

    def __str__(self) -> str:
        return f"{self.workload}({', '.join(f'{name}={value}' for name, value in self.arguments)})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """A declaration that one binary of a kernel serves every value of one of its constexprs.

    It holds for the texts that were read for it and no other: with another the value is baked in as usual.
    """

    kernel: str
    """``module:qualname``."""
    argument: str
    value: int | None
    """What the kernel is compiled with; None if it is an argument of the binary."""
    sources: tuple[str, ...]
    """SHA-256 of each text of the function for which this was checked, as in `gdn_aot.launches.Kernel`."""
    reason: str
    """Why every value may be served; goes into the manifest."""


def there(tensors: Tensors, name: str) -> torch.Tensor:
    """Return a tensor of a call.

    Raises:
        ValueError: The call has none of this name.
    """
    found = tensors[name]
    if found is None:
        raise ValueError(f"the call has no {name}")
    return found


class Workload(Protocol):
    """One call pattern of a provider's public functions that real traffic makes."""

    name: str
    """Name used in manifests and on the command line."""
    kind: str
    """What its results are judged as, see `reference.tolerance`: chunk, recurrent, norm, conv or layer."""

    def applies(self, shape: ModelShape) -> bool:
        """Say whether a model of the workload's families makes such calls; `gdn_aot.providers.makes` asks this."""
        del shape
        return True

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield calls that together cause every launch the workload can cause within ``limits``."""
        ...

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield small calls after which real ones find every kernel loaded, and some of ``tokens`` tokens if given.

        Small ones are for PyTorch's kernels too: it loads them when they are first used, and has several for one
        operation by size. Large ones, which come last, are for the memory that its pool then holds.
        """
        del tokens
        return self.cases(shape, SMALL)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return one random call, as traffic makes it."""
        ...

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield calls of about ``tokens`` tokens in all, with every autotune key that so many tokens can have.

        Natural calls come first. Keys that only other lengths have (row buckets) come with the first of those lengths
        in (tokens / 4, tokens], so that lengths a factor 4 apart have all of them together. Nothing is longer than
        ``limits`` allow.
        """
        del shape, tokens, limits
        return iter(())

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Return everything that `apply` needs. What ``draw`` does not make is made on PyTorch's default device.

        For training the gradients of results are among it.
        """
        ...

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Make the call through the provider's public function, and return what came back by name.

        For training also backwards; then the gradients of inputs came back too (`gdn_aot.providers.gradients`).
        Where that function works in place (a convolution's cache in decode), the inputs change.
        """
        ...

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return in float64 what `apply` should, from the same inputs before they change."""
        ...

    def run(self, shape: ModelShape, call: Call) -> None:
        """Make the call on tensors without content, of PyTorch's default device; for training also backwards."""
        from gdn_aot.providers.draw import EMPTY

        self.apply(shape, call, self.inputs(shape, call, EMPTY))


class Deployed(Protocol):
    """An engine as a deployment has it, without a card: what of it launches kernels can be called."""

    resolved: dict[str, bool | int | float | str]
    """What the engine made of its arguments."""

    def calls(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield calls, each with its name, that together cause every launch which the engine can cause itself."""
        ...

    def samples(self, rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield random ones without end, as traffic makes them."""
        ...


class ProviderModule(Protocol):
    """What `gdn_aot.providers.load` returns."""

    WORKLOADS: Mapping[str, Callable[[], Workload]]
    """Name -> factory, for the workloads that the installed version can make."""
    deployed: Callable[[Deployment], AbstractContextManager[Deployed]]
    """Makes the engine of a deployment; a module of no engine does not have this.

    Raises `gdn_aot.errors.DeploymentError` if the engine refuses it."""
    RELAXATIONS: tuple[Relaxation, ...]
    """What may be relaxed; a module without any need not have this."""
    lacks: Callable[[ModelShape], str]
    """Says why the installed version has nothing for a model, or nothing; a module without such need not have this."""
    ARGUMENTS: Mapping[str, str]
    """Constexprs that kernels are to take as arguments, with the reason; a module without any need not have this."""

    def place(self, shapes: Iterable[ModelShape]) -> tuple[list[tuple[Placement, str]], list[tuple[str, str]]]:
        """Return files of an engine's cache for models with what they hold, and (what, reason) for those not made.

        A provider that is no engine need not have this.
        """
        ...

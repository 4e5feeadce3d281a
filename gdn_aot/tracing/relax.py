"""Which constexprs of a kernel are relaxed in this process: declared by the provider, for the texts that are here."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

from gdn_aot import triton_internals
from gdn_aot.launches import Relaxed
from gdn_aot.triton_internals import relaxing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gdn_aot.launches import Json
    from gdn_aot.providers.workload import Relaxation


class Relaxer:
    """Answers for each kernel which constants it is compiled with whatever a call has, as its provider declares."""

    def __init__(self, declared: Iterable[Relaxation]) -> None:
        self._declared = tuple(declared)
        self._known: dict[int, tuple[Any, tuple[Relaxation, ...]]] = {}

    @classmethod
    def of(cls, module: Any) -> Relaxer:
        """Return one for a provider's module."""
        return cls(getattr(module, "RELAXATIONS", ()))

    def constants(self, jit: Any) -> dict[str, int]:
        """Return constexpr -> value it is compiled with."""
        return {relaxation.argument: relaxation.value for relaxation in self._of(jit)} if self._declared else {}

    def declared(self, jit: Any) -> tuple[Relaxed, ...]:
        """Return what is declared, as a trace and a manifest keep it."""
        return tuple(Relaxed(found.argument, found.value, found.reason) for found in self._of(jit))

    def relax(self, jit: Any, key: str, specialization: dict[str, Json]) -> tuple[str, dict[str, Json]]:
        """Return the launch key and the specialization of a recorded launch, with the values that stand for all.

        Raises:
            ValueError: The key is not as known.
        """
        for argument, value in self.constants(jit).items():
            position = relaxing.constant_position(jit, argument)
            relaxed = relaxing.relaxed_key(key, position, value)
            if relaxed is None:
                raise ValueError(f"the launch key {key} has no constant at {position}")
            key = relaxed
            constants = cast("list[list[Json]]", specialization["constants"])
            changed: list[Json] = [[path, value if path == [position] else old] for path, old in constants]
            specialization = {**specialization, "constants": changed}
        return key, specialization

    def _of(self, jit: Any) -> tuple[Relaxation, ...]:
        if id(jit) not in self._known:
            name = triton_internals.kernel_name(jit)
            mine = [relaxation for relaxation in self._declared if relaxation.kernel == name]
            text = triton_internals.source_text(jit) if mine else None
            digest = hashlib.sha256(text.encode()).hexdigest() if text is not None else ""
            self._known[id(jit)] = jit, tuple(found for found in mine if digest in found.sources)
        return self._known[id(jit)][1]

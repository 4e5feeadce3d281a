"""Find where Triton would look for an artifact's binaries and choices. The worker's side of ``gdn-aot seed``.

Runs in a process that imported the provider under the stub driver, so that its autotuners have the configurations of
the target's card; they are part of the key of a choice. Compiles and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gdn_aot import triton_internals
from gdn_aot.catalogue.targets import get_target
from gdn_aot.triton_internals import disk_cache
from gdn_aot.triton_internals.autotune_keys import MOST_VALUES, with_alike
from gdn_aot.triton_internals.relaxing import RUN_TIME

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Places:
    def __init__(self, capability: int) -> None:
        self._capability = capability
        self.binaries: list[dict[str, Any]] = []
        self.choices: list[dict[str, Any]] = []
        self._skipped: Counter[tuple[str, str, str]] = Counter()

    def add(self, kernel: dict[str, Any]) -> None:
        """Add all of a kernel, or say why not."""
        name = f"{kernel['module']}:{kernel['qualname']}"
        jit, tuner, refusal = _find(kernel)
        if refusal is not None:
            self._skip(name, refusal, "binaries", len(kernel["binaries"]))
            self._skip(name, refusal, "choices", len(kernel["choices"]))
            return
        binaries, choices = kernel["binaries"], [(tuple(key), config) for key, config in kernel["choices"]]
        relaxations = [tuple(relaxation) for relaxation in kernel.get("relaxations", ())]
        for argument, value, place in relaxations:
            most = max((key[place] for key, _ in choices), default=0) if place is not None else 0
            values = range(1, min(most, MOST_VALUES) + 1)
            usable = [binary for binary in binaries if binary["specialization"]["signature"].get(argument) != RUN_TIME]
            kept = [made for binary in usable for made in _with_values(binary, argument, value, values)]
            left = [binary for binary in binaries if binary not in usable or not values]
            self._skip(name, f"one binary serves every {argument}: only the loader can use it", "binaries", len(left))
            binaries = kept
        self._add_binaries(name, jit, binaries)
        self._add_choices(name, tuner, with_alike(choices, relaxations))

    def _add_binaries(self, name: str, jit: Any, binaries: list[dict[str, Any]]) -> None:
        for binary in binaries:
            try:
                found = disk_cache.binary_entry(jit, binary["specialization"], binary["metadata"], self._capability)
            except ValueError as error:
                self._skip(name, str(error), "binaries")
            else:
                self.binaries.append({"place": asdict(found[0]), "metadata": found[1], "cubin": binary["cubin"]})

    def _add_choices(self, name: str, tuner: Any, choices: list[Any]) -> None:
        if not choices:
            return
        refusal = disk_cache.choice_refusal(tuner)
        if refusal is not None:
            self._skip(name, refusal, "choices", len(choices))
            return
        for key, config in choices:
            found = disk_cache.choice_file(tuner, key, config)
            if found is None:
                self._skip(name, "Triton keeps no choice for such a key on disk", "choices")
            else:
                self.choices.append({"place": asdict(found[0]), "text": found[1]})

    def _skip(self, kernel: str, reason: str, what: str, count: int = 1) -> None:
        if count:
            self._skipped[kernel, reason, what] += count

    def skipped(self) -> list[dict[str, Any]]:
        """Return how many binaries and choices of each kernel were left out, and why."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for (kernel, reason, what), count in self._skipped.items():
            row = {"kernel": kernel, "reason": reason, "binaries": 0, "choices": 0}
            rows.setdefault((kernel, reason), row)[what] = count
        return list(rows.values())


def _with_values(binary: dict[str, Any], argument: str, value: int | None, values: Sequence[int]) -> list[Any]:
    """Return a binary for each value of a constexpr: Triton's cache has an entry for each.

    Without a ``value`` that stands for all it was compiled for the one that it has.
    """
    if value is None:
        return [binary]
    specialization = binary["specialization"]
    position = list(specialization["signature"]).index(argument)
    made = []
    for other in values:
        constants = [[path, other if path == [position] else old] for path, old in specialization["constants"]]
        made.append({**binary, "specialization": {**specialization, "constants": constants}})
    return made


def _find(kernel: dict[str, Any]) -> tuple[Any, Any, str | None]:
    """Return the kernel, its autotuner or None, and why it cannot be seeded or None."""
    try:
        jit, tuner = triton_internals.find_kernel(kernel["module"], kernel["qualname"])
        differs = triton_internals.cache_key(jit) != kernel["cache_key"]
    except (ImportError, AttributeError, TypeError) as error:
        return None, None, f"the kernel is not found: {error}"
    return jit, tuner, "the kernel's source differs from the artifact's" if differs else None


def places(request: dict[str, Any]) -> dict[str, Any]:
    """Serve a seed request: find the places of binaries and choices, and what is skipped.

    ``relaxations`` of a kernel are the constexprs of which its binaries serve every value; see `relaxing`.

    Raises:
        UnsupportedTritonError: The installed Triton keeps its cache in another way than is known here.
    """
    disk_cache.check_disk_cache()
    found = _Places(get_target(request["target"]).arch_number)
    for kernel in request["kernels"]:
        found.add(kernel)
    return {"binaries": found.binaries, "choices": found.choices, "skipped": found.skipped()}

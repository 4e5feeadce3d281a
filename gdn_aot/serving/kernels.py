"""One kernel of a provider in this process, served from the artifacts that have it."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import GdnAotError, MissError
from gdn_aot.machine.variables import changed_code_variable
from gdn_aot.serving import log
from gdn_aot.serving.state import Miss
from gdn_aot.triton_internals import compiled_text, current_device, launching, relaxing, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gdn_aot.serving.state import State
    from gdn_aot.store.index_records import BinaryRecord, ChoiceRecord
    from gdn_aot.store.stored import StoredArtifact

_VERBS = {"binary": "compiles", "choice": "benchmarks"}
_OTHER_FLAG = 4.0
"""Distance of two flags that differ: as much as a size 16 times as large."""


class ServedKernel:
    """Seeds one kernel, ``module:qualname``, and answers what Triton then asks, from artifacts of the same source.

    In strict mode ``refusal`` may say why none may serve it; every lookup then raises.
    """

    def __init__(
        self, state: State, name: str, jit: Any, tuner: Any, found: list[StoredArtifact], refusal: str = ""
    ) -> None:
        self.name, self.jit, self.tuner = name, jit, tuner
        self._state, self._found, self._refusal = state, found, refusal
        self._choices: dict[int, dict[tuple[Any, ...], Any]] = {}
        self._globals: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._text = compiled_text(jit)
        self._first = True
        """No binary was handed out yet."""

    def seed(self, values: dict[str, tuple[Any, dict[str, Any]]]) -> None:
        """Put the lookups where Triton looks; ``values`` are the globals that the kernel reads."""
        self._globals = {name: (copy.deepcopy(value), holder) for name, (value, holder) in values.items()}
        serving.seed_kernels(self.jit, self._on_device, lambda: self._state.lock, self._state.give_up)
        if self.tuner is not None:
            serving.seed_choices(self.tuner, self._choose)

    def cache(self, device: int) -> Any:
        """Return Triton's dictionary of this kernel's binaries on the current device, ready to be asked."""
        return self.jit.device_caches[device][0]

    def prepare(self, device: int) -> None:
        """Do for the current device what its first launch would wait for, short of loading code onto it."""
        self.cache(device)
        if self.tuner is not None:
            self._device_choices(device)

    def fitting(self, device: int) -> list[StoredArtifact]:
        """Return the artifacts made for a device's architecture."""
        return [found for found in self._found if self._state.fits(found, device)]

    def _on_device(self, device: int) -> Callable[[str], Any | None]:
        try:
            found, problem = self.fitting(device), ""
        except Exception as error:  # noqa: BLE001 - a serving process must go on
            self._state.unexpected(self.name, error)
            found, problem = [], f"{type(error).__name__}: {error}"
        ready: dict[str, Any] = {}

        def find(key: str) -> Any | None:
            with self._state.lock:
                if key not in ready:  # else another thread was first
                    ready[key] = self._find(found, problem, device, key)
                return ready[key]

        return find

    def _find(self, found: list[StoredArtifact], problem: str, device: int, key: str) -> Any | None:
        reason = self._refusal or problem or f"no artifact is for the architecture of device {device}"
        hint, told = "", not found
        if found and self._first:
            reason = self._changed()
            found = [] if reason else found
        for artifact in found:
            reason, hint = "no artifact has a binary for this launch", self._state.cover_hint()
            try:
                record = self._binary(artifact, key)
                if record is not None:
                    return self._load(artifact, record, device)
            except (GdnAotError, OSError) as error:
                reason, told = f"its binary is damaged: {error}", True
                self._state.damaged(artifact, error)
            except RuntimeError as error:
                reason, hint = f"its binary cannot be loaded: {error}", ""
            except Exception as error:  # noqa: BLE001 - a serving process must go on
                self._state.unexpected(self.name, error)
                reason, hint = f"its binary cannot be used: {type(error).__name__}: {error}", ""
        self._missed("binary", key, reason, "error" if self._state.strict else "triton", hint, told=told)
        return None

    def _binary(self, artifact: StoredArtifact, key: str) -> BinaryRecord | None:
        """Look a launch key up, with the value that stands for all where the artifact has a relaxation."""
        wanted: str | None = key
        for kernel in artifact.index.kernels():
            if kernel.name == self.name:
                for argument, value in kernel.relaxations:
                    position = relaxing.constant_position(self.jit, argument)
                    wanted = relaxing.relaxed_key(wanted, position, value) if wanted is not None else None
        return artifact.index.binary(self.name, wanted) if wanted is not None else None

    def _changed(self) -> str:
        """Return what has changed between the import of the kernel and its first launch, or nothing."""
        for name, (value, holder) in self._globals.items():
            if repr(holder.get(name)) != repr(value):
                return f"the global {name} was changed to {holder.get(name)!r}"
        if compiled_text(self.jit) is not self._text:
            return "its source was replaced"
        asked = changed_code_variable()  # setting one of triton.knobs sets its variable
        return f"{asked} asks for other code than Triton makes by default" if asked else ""

    def _load(self, artifact: StoredArtifact, record: BinaryRecord, device: int) -> Any:
        state = self._state
        place = (device, record.cubin, record.metadata["name"])
        code = artifact.read_blob(record.cubin)
        if place not in state.modules:
            state.modules[place] = launching.load_binary(state.native, record, code, device)
        kernel = launching.make_kernel(state.native, self.jit, record, code, state.modules[place])
        if self._first:
            self._first = False
            serving.remember_globals(self.jit, self._globals)
        state.loaded[self.name] = state.loaded.get(self.name, 0) + 1
        return kernel

    def _choose(self, key: tuple[Any, ...]) -> Any | None:
        with self._state.lock:
            problem, stand_ins, told = "", [], False
            try:
                device = current_device()
                choices = self._device_choices(device)
                told = not self.fitting(device)
                if key in choices:
                    self._state.chosen += 1
                    return choices[key]
                if self._state.on_miss == "nearest":
                    stand_ins = [choices[other] for other in nearest(key, choices)]
            except Exception as error:  # noqa: BLE001 - a serving process must go on
                self._state.unexpected(self.name, error)
                problem = f"its choices cannot be used: {type(error).__name__}: {error}"
            if stand_ins:
                reason = f"no choice for this key; that of the closest, {stand_ins[0]}, is taken"
                self._missed("choice", str(key), reason, "nearest", self._state.cover_hint())
                distinct = {str(config): config for config in (*stand_ins, *self.tuner.configs)}
                return serving.try_configs(self.tuner, key, [*distinct.values()])
            must_not_tune = self._state.strict or self._state.on_miss == "error"
            reason = self._refusal or problem or "no choice for this key"
            answer = "error" if must_not_tune else "triton"
            self._missed("choice", str(key), reason, answer, self._state.cover_hint(), told=told)
            return None

    def _device_choices(self, device: int) -> dict[tuple[Any, ...], Any]:
        if device not in self._choices:
            records = [record for found in self.fitting(device) for record in self._choice_records(found)]
            configs = {record.key: serving.find_config(self.tuner, record.config) for record in reversed(records)}
            self._choices[device] = {record.key: configs[record.key] for record in records}
        return self._choices[device]

    def _choice_records(self, found: StoredArtifact) -> list[ChoiceRecord]:
        try:
            return found.index.choices(self.name)
        except (GdnAotError, OSError, ValueError) as error:
            self._state.distrust(found, error)
            self._found = [other for other in self._found if other is not found]
            return []

    def _missed(self, what: str, key: str, reason: str, answer: str, hint: str, *, told: bool = False) -> None:
        """Note a miss, and say so; ``told`` is for what the user was warned of for all kernels at once."""
        miss = Miss(self.name, what, key, reason, answer)
        self._state.misses.setdefault((self.name, what, key), miss)
        if answer == "error":
            raise MissError(f"{self.name}: {reason} ({what} key {key})", hint=hint or None)
        done = "one binary may be compiled" if answer == "nearest" else f"Triton {_VERBS[what]} it"
        (log.info if told else log.warn)(f"{self.name}: {reason}; {done}. {hint}".rstrip())


def nearest(key: tuple[Any, ...], known: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the known keys that may stand for ``key``, the closest first.

    Keys hold sizes, flags and the dtypes of tensors. A key of other dtypes or another form may not: its configuration
    need not fit. Sizes are compared by their ratio, so that 64 is as far from 32 as from 128; ties go to the first.
    """
    ranked = [(_distance(key, other), place, other) for place, other in enumerate(known)]
    return [other for distance, _, other in sorted(ranked, key=lambda item: item[:2]) if distance < math.inf]


def _distance(key: tuple[Any, ...], other: tuple[Any, ...]) -> float:
    return sum(map(_part, key, other)) if len(key) == len(other) else math.inf


def _part(wanted: Any, known: Any) -> float:
    if wanted == known and type(wanted) is type(known):
        return 0.0
    if isinstance(wanted, str) or isinstance(known, str):
        return math.inf
    flags = isinstance(wanted, bool) or isinstance(known, bool) or wanted is None or known is None
    return _OTHER_FLAG if flags or min(wanted, known) <= 0 else abs(math.log2(wanted / known))

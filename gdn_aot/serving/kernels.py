"""One kernel of a provider in this process, served from the artifacts that have it."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.artifact.names import MAX_CHOICES
from gdn_aot.errors import GdnAotError, MissError, UnsupportedTritonError
from gdn_aot.machine.variables import changed_code_variable
from gdn_aot.serving import log
from gdn_aot.serving.state import Miss
from gdn_aot.triton_internals import compiled_text, launching, relaxing, serving, spellings
from gdn_aot.triton_internals.autotune_keys import alike, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from gdn_aot.serving.state import State
    from gdn_aot.store.index_records import BinaryRecord, ChoiceRecord
    from gdn_aot.store.stored import StoredArtifact

_VERBS = {"binary": "compiles", "choice": "benchmarks"}
_MAX_BITS = 64
"""Of an integer in an autotune key."""


class ServedKernel:
    """Seeds one kernel, ``module:qualname``, and answers what Triton then asks, from artifacts of the same source.

    A provider sets some of the globals that its kernels read by what the first device is. Artifacts ``elsewhere`` are
    of the same source with other values of them; they serve devices of another architecture than the first, provided
    that the values here are those that one of ``found`` has for the architecture of the first.

    In strict mode ``refusal`` may say why none may serve it; every lookup then raises. ``recorded`` is its name in the
    artifacts where that is another: of a copy in another package.
    """

    def __init__(
        self,
        state: State,
        name: str,
        jit: Any,
        tuner: Any,
        found: list[StoredArtifact],
        elsewhere: Sequence[StoredArtifact] = (),
        *,
        refusal: str = "",
        recorded: str = "",
    ) -> None:
        self.name, self.jit, self.tuner = name, jit, tuner
        self._recorded = recorded or name
        self._state, self._found, self._elsewhere, self._refusal = state, found, elsewhere, refusal
        self._choices: dict[int, dict[tuple[Any, ...], Any]] = {}
        self._failed: set[tuple[int, tuple[Any, ...]]] = set()
        """Devices and autotune keys whose choice could not be launched."""
        self._ready: dict[int, dict[str, Any]] = {}
        """Device -> launch key -> binary, or None for what is left to Triton."""
        self._options: dict[str, list[str]] = {}
        """Place of an artifact -> texts of the options in its launch keys; known once one was not found."""
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
        state = self._state
        found = [found for found in self._found if state.fits(found, device)]
        if not found and self._elsewhere:
            first = state.capability(0)
            known = any(tuple(one.header["capability"]) == first for one in self._found)
            if known and first != state.capability(device):
                return [found for found in self._elsewhere if state.fits(found, device)]
        return found

    def _on_device(self, device: int) -> Callable[[str], Any | None]:
        try:
            found, problem = self.fitting(device), ""
        except Exception as error:  # noqa: BLE001 - a serving process must go on
            self._state.unexpected(self.name, error)
            found, problem = [], _told(error)
        ready = self._ready[device] = {}

        def find(key: str) -> Any | None:
            with self._state.lock:
                if key not in ready:  # else another thread was first
                    ready[key] = self._find(found, problem, device, key)
                return ready[key]

        return find

    def _find(self, found: list[StoredArtifact], problem: str, device: int, key: str) -> Any | None:
        reason = self._refusal or problem or _nowhere(device)
        lacking: list[StoredArtifact] = []
        told = not found
        if found and self._first:
            reason = self._changed()
            found = [] if reason else found
        for artifact in found:
            reason, lacking = "no artifact has a binary for this launch", found
            try:
                record = self._binary(artifact, key, device)
                if record is not None:
                    return self._load(artifact, record, device, key)
            except UnsupportedTritonError:
                raise
            except (GdnAotError, OSError) as error:
                reason, told = f"its binary is damaged: {shown(error)}", True
                self._state.damaged(artifact, error)
            except Exception as error:  # noqa: BLE001 - a serving process must go on
                reason, lacking = f"its binary cannot be loaded: {_told(error)}", []
                log.detail(error)
        answer = "error" if self._state.strict else "triton"
        self._missed("binary", key, reason, answer, lacking=lacking, told=told)
        return None

    def _binary(self, artifact: StoredArtifact, key: str, device: int) -> BinaryRecord | None:
        """Look a launch key up, then what stands for it: with relaxed constants, with options in other words."""
        wanted = relaxing.keys_to_look_up(self.jit, key, artifact.index.relaxations(self._recorded))
        for one in wanted:
            record = artifact.index.binary(self._recorded, one)
            if record is not None:
                return record
        return self._respelled(artifact, wanted, device)

    def _respelled(self, artifact: StoredArtifact, keys: list[str], device: int) -> BinaryRecord | None:
        """Look a launch up whose options an artifact writes in another way, as that of compiled code."""
        if artifact.place not in self._options:
            known = artifact.index.launch_keys(self._recorded)
            self._options[artifact.place] = [*dict.fromkeys(map(spellings.options_text, known))]
        backend, texts = serving.backend_of(self.jit, device), self._options[artifact.place]
        for other in [other for key in keys for other in spellings.respelled_keys(backend, key, texts)]:
            record = artifact.index.binary(self._recorded, other)
            if record is not None:
                return record
        return None

    def _changed(self) -> str:
        """Return what has changed between the import of the kernel and its first launch, or nothing."""
        try:
            for name, (value, holder) in self._globals.items():
                if repr(holder.get(name)) != repr(value):
                    return f"the global {name} was changed to {shown(repr(holder.get(name)))}"
        except Exception as error:  # noqa: BLE001 - of a foreign object's repr
            return f"the globals that it reads cannot be compared: {_told(error)}"
        if compiled_text(self.jit) is not self._text:
            return "its source was replaced"
        asked = changed_code_variable(ieee=_lacks_tf32(self._state.capability(0)))  # triton.knobs set variables too
        return f"{asked} asks for other code than Triton makes by default" if asked else ""

    def _load(self, artifact: StoredArtifact, record: BinaryRecord, device: int, key: str) -> Any:
        state = self._state
        place = (device, record.cubin, record.metadata["name"])
        code = artifact.read_blob(record.cubin)
        launching.check_record(self.jit, record, code)
        if place not in state.modules:
            state.modules[place] = launching.load_binary(state.native, record, code, device)
        kernel = launching.make_kernel(state.native, self.jit, record, code, state.modules[place])

        def failing(error: Exception) -> AbstractContextManager[None]:
            return self._binary_failing(device, key, kernel, error)

        launching.guard(kernel, self.jit, device, key, failing)
        if self._first:
            self._first = False
            serving.remember_globals(self.jit, self._globals)
        state.loaded[self.name] = state.loaded.get(self.name, 0) + 1
        return kernel

    @contextmanager
    def _binary_failing(self, device: int, key: str, kernel: Any, error: Exception) -> Iterator[None]:
        """Leave a launch key to Triton. If Triton fails too, it is not the binary's fault, which is then kept."""
        state, ready, cache = self._state, self._ready[device], self.cache(device)
        reason = f"its binary cannot be launched: {_told(error)}"
        with state.lock:
            if state.strict:
                self._missed("binary", key, reason, "error", cause=error)
            mine = ready[key] is kernel  # else another thread was first
            ready[key] = None
            if dict.get(cache, key) is kernel:
                del cache[key]
        try:
            yield
        except BaseException:
            ready[key] = cache[key] = kernel
            raise
        with state.lock:
            state.loaded[self.name] -= mine
            self._missed("binary", key, reason, "triton")

    def _choose(self, key: tuple[Any, ...], device: int) -> Any | None:
        with self._state.lock:
            if (device, key) in self._failed:
                return None
            problem, configs = "", []
            fitting: list[StoredArtifact] | None = None
            try:
                choices = self._device_choices(device)
                fitting = self.fitting(device)
                own = key if key in choices else self._alike(key, choices, fitting)
                if own is not None:
                    self._state.chosen += 1
                    return self._try(device, key, [choices[own]], own=True)
                if self._state.on_miss == "nearest":
                    configs = [choices[other] for other in nearest(key, choices)]
            except Exception as error:  # noqa: BLE001 - a serving process must go on
                self._state.unexpected(self.name, error)
                problem = f"its choices cannot be used: {_told(error)}"
            if configs:
                reason = f"no choice for this key; using that of the closest, {shown(configs[0])}"
                self._missed("choice", key, reason, "nearest", lacking=fitting)
                distinct = {str(config): config for config in (*configs, *self.tuner.configs)}
                return self._try(device, key, [*distinct.values()], own=False)
            reason = self._refusal or problem or ("no choice for this key" if fitting else _nowhere(device))
            answer = "error" if self._must_not_tune() else "triton"
            self._missed("choice", key, reason, answer, lacking=fitting, told=fitting == [])
            return None

    def _alike(self, key: tuple[Any, ...], choices: Any, fitting: list[StoredArtifact]) -> Any:
        """Return the key whose choice is one for ``key`` too, which has another value of a relaxed constant."""
        return alike(key, choices, [one for found in fitting for one in found.index.relaxations(self._recorded)])

    def _must_not_tune(self) -> bool:
        return self._state.strict or self._state.on_miss == "error"

    def _try(self, device: int, key: tuple[Any, ...], configs: list[Any], *, own: bool) -> Any:
        def failing(error: Exception) -> AbstractContextManager[None]:
            return self._choice_failing(device, key, error, own=own)

        return serving.try_configs(self.tuner, key, configs, lambda: self._state.lock, failing)

    @contextmanager
    def _choice_failing(self, device: int, key: tuple[Any, ...], error: Exception, *, own: bool) -> Iterator[None]:
        """Leave an autotune key of the current device to Triton. If Triton fails too, the choice is kept."""
        state = self._state
        reason = f"its choice cannot be launched: {_told(error)}"
        if self._must_not_tune():
            if isinstance(error, (TypeError, ValueError, OverflowError)):
                raise error  # of the arguments: names and types of the choice are those of the provider's own
            self._missed("choice", key, reason, "error", cause=error)
        with state.lock:
            self._failed.add((device, key))
            self.tuner.cache.pop(key, None)
            state.chosen -= own
        try:
            yield
        except BaseException:
            self._failed.discard((device, key))
            self.tuner.cache.pop(key, None)
            raise
        with state.lock:
            self._missed("choice", key, reason, "triton")

    def _device_choices(self, device: int) -> dict[tuple[Any, ...], Any]:
        if device not in self._choices:
            made: dict[tuple[Any, ...], Any] = {}
            for found in self.fitting(device):
                for key, config in self._usable_choices(found):
                    made.setdefault(key, config)
            self._choices[device] = made
        return self._choices[device]

    def _usable_choices(self, found: StoredArtifact) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Yield an artifact's choices that Triton can be asked to launch with; say what is wrong with the others."""
        records, wrong, what = self._choice_records(found), 0, ""
        if len(records) > MAX_CHOICES:
            wrong, what, records = len(records), f"they are more than {MAX_CHOICES}", []
        for record in records:
            try:
                config = serving.find_config(self.tuner, record.config)
                _check_key(record.key)
            except Exception as error:  # noqa: BLE001 - the record may hold anything
                wrong, what = wrong + 1, what or (str(error) if isinstance(error, ValueError) else _told(error))
                continue
            yield record.key, config
        if wrong:
            number = f"{wrong} of {max(wrong, len(records))} choices"
            identifier = shown(found.header["identifier"])
            log.warn(f"{self.name}: {number} of artifact {identifier} are not used: {what}")

    def _choice_records(self, found: StoredArtifact) -> list[ChoiceRecord]:
        try:
            return found.index.choices(self._recorded)
        except Exception as error:  # noqa: BLE001 - the index may hold anything
            self._state.distrust(found, error)
            self._found = [other for other in self._found if other is not found]
            self._elsewhere = [other for other in self._elsewhere if other is not found]
            return []

    def _missed(
        self,
        what: str,
        key: Any,
        reason: str,
        answer: str,
        *,
        lacking: Sequence[StoredArtifact] | None = None,
        told: bool = False,
        cause: Exception | None = None,
    ) -> None:
        """Note a miss, and say so.

        ``lacking`` are artifacts that could have had it, ``told`` is for what the user was warned of for all kernels at
        once, ``cause`` for what was raised.
        """
        hint = self._advice(what, key, lacking) if lacking else ""
        text = str(key)
        self._state.misses.setdefault((self.name, what, text), Miss(self.name, what, text, reason, answer))
        if answer == "error":
            raise MissError(f"{self.name}: {reason} ({what} key {text})", hint=hint or None) from cause
        done = "one binary may be compiled" if answer == "nearest" else f"Triton {_VERBS[what]} it"
        (log.info if told else log.warn)(f"{self.name}: {reason}; {done}. {hint}".rstrip())

    def _advice(self, what: str, key: Any, lacking: Sequence[StoredArtifact]) -> str:
        """Return what covers a miss."""
        try:
            from gdn_aot.serving.advice import advice

            return advice(self._recorded, what, key, lacking, self.jit, self.tuner)
        except Exception as error:  # noqa: BLE001 - a serving process must go on
            log.detail(error)
            return ""


def _nowhere(device: int) -> str:
    return f"no artifact is for the architecture of device {device}; gdn-aot doctor names it and what to fetch"


def _lacks_tf32(capability: tuple[int, int] | None) -> bool:
    return capability is not None and capability < (8, 0)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {shown(error)}"


def _check_key(key: tuple[Any, ...]) -> None:
    """Check that an autotune key of an artifact is made of what Triton's are.

    Raises:
        ValueError: It is not.
    """
    for part in key:
        if isinstance(part, int):
            known = part.bit_length() <= _MAX_BITS
        else:
            known = part is None or isinstance(part, str) or (isinstance(part, float) and math.isfinite(part))
        if not known:
            raise ValueError(f"{shown(repr(part))} is in a key")

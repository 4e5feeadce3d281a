"""Record what a provider launches: each kernel, autotune key, candidate and launch key, once.

Runs in the process that imported the provider under the stub driver. Nothing is compiled.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict, replace

from gdn_aot import triton_internals
from gdn_aot._files import file_sha256
from gdn_aot.launches import Config, Dependency, Global, Kernel, SourceFile, Specialization
from gdn_aot.tracing.records import Trace, TracedLaunch, Tuning
from gdn_aot.tracing.relax import Relaxer
from gdn_aot.triton_internals import interception, naming
from gdn_aot.triton_internals.observing import config_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.launches import Json, Key
    from gdn_aot.tracing.records import Users

    More = Callable[[Kernel, list[Config]], list[Config]]


class TraceRecorder:
    """Collects launches into a `Trace`.

    ``more``, given a kernel and the provider's candidates for a key, returns further ones to record after them.
    """

    def __init__(self, trace: Trace, *, more: More | None = None, relaxer: Relaxer | None = None) -> None:
        self.trace = trace
        self._more = more
        self._relaxer = relaxer or Relaxer()
        self._kernels: dict[int, int] = {}
        self._alive: list[Any] = []
        self._launches: dict[tuple[int, str], int] = {}
        self._tunings: dict[tuple[int, Key], tuple[int, Tuning, dict[int, Users]]] = {}
        """Index of a key in the trace, what is known of it, and the users of each variant by its first launch."""
        self._user = (-1, -1)
        self._keys: dict[int, None] = {}
        self._last = -1

    def record(self, call: Callable[[], object], user: tuple[int, int]) -> list[int]:
        """Run ``call`` with Triton's launches replaced by recording them as those of ``user``; see `Users`.

        Returns indices into `Trace.tunings` of the autotune keys that it had.
        """
        self._user, self._keys = user, {}
        with interception.intercept(self._on_autotune, self._on_plain):
            call()
        self.trace.calls += 1
        return list(self._keys)

    def take(self, jit: Any, key: str, specialization: dict[str, Json], user: tuple[int, int]) -> int:
        """Record a launch that is not made here, of a kernel that is not autotuned. Returns its index."""
        key, specialization = self._relaxer.relax(jit, key, specialization)
        index = self._known(self._kernel(jit), key, lambda: specialization)
        self.trace.plain.setdefault(index, set()).add(user)
        return index

    def take_choice(
        self,
        jit: Any,
        tuner: Any,
        key: Key,
        config: Config,
        launch: tuple[str, dict[str, Json]],
        user: tuple[int, int],
    ) -> None:
        """Record a launch that is not made here, as the only thing known of a configuration for an autotune key.

        If the key is known already, the launch is recorded as one without a key.
        """
        launch_key, specialization = self._relaxer.relax(jit, *launch)
        kernel = self._kernel(jit, tuner)
        known = self._tunings.get((kernel, key))
        if known is not None and known[1].candidates != [config]:
            self.take(jit, *launch, user)
            return
        index = self._known(kernel, launch_key, lambda: specialization)
        self._use(kernel, key, index, user, lambda: ([config], 0), lambda _configs: [])

    def _use(
        self,
        kernel: int,
        key: Key,
        first: int,
        user: tuple[int, int],
        candidates: Callable[[], tuple[list[Config], int]],
        rest: Callable[[list[Config]], list[int]],
    ) -> int:
        """Record that a user has a variant of a key. Returns the index of the key in the trace.

        ``candidates`` gives those of a new key, and how many the provider does not offer; ``rest`` what those after the
        first would launch, if the variant is new.
        """
        if (kernel, key) not in self._tunings:
            configs, derived = candidates()
            new = Tuning(kernel=kernel, key=key, candidates=configs, derived=derived)
            self._tunings[kernel, key] = len(self.trace.tunings), new, {}
            self.trace.tunings.append(new)
        place, tuning, variants = self._tunings[kernel, key]
        users = variants.setdefault(first, set())
        if not users:
            tuning.variants.append([first, *rest(tuning.candidates[1:])])
            tuning.users.append(users)
        users.add(user)
        return place

    def _on_plain(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        index = self._launch(jit, args, kwargs)
        self.trace.plain.setdefault(index, set()).add(self._user)

    def _on_autotune(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(tuner.configs) == 1:
            return triton_internals.run_config(tuner, args, kwargs, tuner.configs[0])
        offered = triton_internals.candidates(tuner, args, kwargs)
        key = triton_internals.autotune_key(tuner, args, kwargs)
        first = self._candidate_launch(tuner, args, kwargs, offered[0])
        kernel = self._kernel(triton_internals.layers(tuner)[0])

        def candidates() -> tuple[list[Config], int]:
            configs = [_config(config) for config in offered]
            derived = self._more(self.trace.kernels[kernel], configs) if self._more else []
            return configs + derived, len(derived)

        def rest(configs: list[Config]) -> list[int]:
            return [self._candidate_launch(tuner, args, kwargs, triton_config(config)) for config in configs]

        self._keys[self._use(kernel, key, first, self._user, candidates, rest)] = None
        return None

    def _candidate_launch(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any], config: Any) -> int:
        def on_launch(jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._last = self._launch(jit, args, kwargs, tuner)

        with interception.intercept(self._on_autotune, on_launch):
            triton_internals.run_config(tuner, args, kwargs, config)
        return self._last

    def _launch(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tuner: Any = None) -> int:
        constants = self._relaxer.constants(jit, lambda: triton_internals.Launch(jit, args, kwargs).specialization())
        launch = triton_internals.Launch(jit, args, kwargs, constants)
        return self._known(self._kernel(jit, tuner), launch.key, launch.specialization)

    def _known(self, kernel: int, key: str, specialization: Callable[[], dict[str, Json]]) -> int:
        index = self._launches.get((kernel, key))
        if index is None:
            index = len(self.trace.launches)
            self._launches[kernel, key] = index
            needed = msgspec.convert(specialization(), Specialization)
            self.trace.launches.append(TracedLaunch(kernel=kernel, key=key, specialization=needed))
        return index

    def _kernel(self, jit: Any, tuner: Any = None) -> int:
        index = self._kernels.get(id(jit))
        if index is None:
            described = replace(describe_kernel(jit), relaxations=self._relaxer.declared(jit, tuner))
            index = len(self.trace.kernels)
            self._kernels[id(jit)] = index
            self._alive.append(jit)
            self.trace.kernels.append(described)
        return index


def _config(config: Any) -> Config:
    return Config(**{**config_fields(config), "kwargs": tuple(config.kwargs.items())})


def triton_config(config: Config) -> Any:
    """Return the ``triton.Config`` of a recorded configuration."""
    return triton_internals.make_config(**asdict(config))


def describe_kernel(jit: Any) -> Kernel:
    """Return a kernel's identity: Triton's hash, the files its text is in, its callees and globals."""
    cache_key = triton_internals.cache_key(jit)
    called, builtins = _callees(jit)
    functions = [jit, *(function for _, function in called)]
    files = {_place(function): inspect.getfile(function.fn) for function in functions}
    dependencies = {
        Dependency(name, naming.recorded(function.fn.__module__), function.fn.__qualname__, _text_sha256(function))
        for name, function in called
    }
    dependencies |= {Dependency(name, value.__module__, value.__qualname__, "") for name, value in builtins}
    return Kernel(
        module=naming.recorded(jit.fn.__module__),
        qualname=jit.fn.__qualname__,
        cache_key=cache_key,
        source_sha256=_text_sha256(jit),
        sources=tuple(SourceFile(place, file_sha256(path)) for place, path in sorted(files.items())),
        dependencies=tuple(sorted(dependencies)),
        globals=tuple(Global(name, value) for name, value in triton_internals.used_globals(functions)),
    )


_USUAL = ("tl", "triton")
"""Names by which kernels call Triton's own modules."""


def _callees(jit: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Return (name, function) for all that ``jit`` calls, directly or not: JIT functions, and Triton's.

    Of the latter those are left out that are called as ``tl.NAME`` or ``triton.NAME``: they are what the version has.
    """
    found: list[tuple[str, Any]] = []
    builtins: list[tuple[str, Any]] = []
    pending, seen = [jit], {id(jit)}
    while pending:
        function = pending.pop()
        scope = function.get_capture_scope()
        for node in ast.walk(function.parse()):
            name, value = _resolve(node, scope)
            plain = getattr(value, "fn", value)
            if not name or not callable(plain) or not hasattr(plain, "__qualname__"):
                continue
            if plain.__module__.startswith("triton."):
                usual = isinstance(node, ast.Attribute) and name.partition(".")[0] in _USUAL
                builtins += [(name, plain)] if not usual and not isinstance(plain, type) else []
                continue
            if not hasattr(value, "cache_key"):
                continue
            found.append((name, value))
            if id(value) not in seen:
                seen.add(id(value))
                pending.append(value)
    return found, builtins


def _resolve(node: ast.AST, scope: dict[str, Any]) -> tuple[str, Any]:
    match node:
        case ast.Name(id=name):
            return name, scope.get(name)
        case ast.Attribute(value=ast.Name(id=base), attr=attribute):
            return f"{base}.{attribute}", getattr(scope.get(base), attribute, None)
        case _:
            return "", None


def _place(function: Any) -> str:
    """Return where a function's file is in the provider's site-packages; of a copy, where it would be."""
    module, path = function.fn.__module__, Path(inspect.getfile(function.fn))
    if not naming.is_copy(module):
        return _relative(str(path.resolve()))
    place = naming.recorded(module).replace(".", "/")
    return f"{place}/__init__.py" if path.name == "__init__.py" else f"{place}.py"


def _relative(path: str) -> str:
    roots = [str(Path(root).resolve()) for root in sys.path if root]
    inside = [root for root in roots if path.startswith(root + "/")]
    return path[len(max(inside, key=len)) + 1 :] if inside else Path(path).name


def _text_sha256(function: Any) -> str:
    text = triton_internals.source_text(function)
    if text is None:
        raise TypeError(f"{function!r} has no source text")
    return hashlib.sha256(text.encode()).hexdigest()

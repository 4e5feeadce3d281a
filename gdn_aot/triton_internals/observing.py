"""The part of `gdn_aot.triton_internals` that sees launches pass by in a process that someone else runs.

Nothing is replaced that Triton's callers or the loader rely on: what is wrapped is the binder of each function, which
knows the specialization and the options of a launch, and ``Autotuner.run``, which knows the key and the choice.

What is relied on beyond the list in the package:

* every launch calls the binder that ``JITFunction.create_binder`` returned, once
* ``Autotuner.run`` benchmarks through ``Autotuner._bench`` alone, and leaves its choice in ``Autotuner.cache``
"""

from __future__ import annotations

import sys
import threading

from gdn_aot.triton_internals import autotune_key, cache_key, kernel_name, pack_launch, source_text

TYPE_CHECKING = False  # as in typing: this is imported into every process of a deployment
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Note = Callable[["Seen"], None]

JIT, AUTOTUNER = "triton.runtime.jit", "triton.runtime.autotuner"
"""The modules after whose import `Observer.watch_jit` and `Observer.watch_autotuner` are to be called."""

OBSERVED = "_gdn_aot_observed"
"""Attribute of a wrapper of ours: the function of Triton's that it calls."""


GUARDED = "_gdn_aot_guarded"
"""The same of a wrapper of `gdn_aot.triton_internals.guarding`."""


class Seen:
    """One launch, when it was first seen: what it needs to be compiled elsewhere. Holds no tensor."""

    __slots__ = ("_bound", "jit", "target", "tuning")

    def __init__(self, jit: Any, target: Any, bound: tuple[Any, ...]) -> None:
        self.jit, self.target, self._bound = jit, target, bound
        self.tuning: SeenTuning | None = None
        """Which autotune key it was a choice for, if any."""

    @property
    def kernel(self) -> str:
        """``module:qualname``."""
        return kernel_name(self.jit)

    def launch(self) -> tuple[str, dict[str, Any]]:
        """Return the launch key and the specialization in JSON form.

        Raises:
            TypeError: A constant is of a type that JSON cannot carry.
        """
        key, specialization = pack_launch(self.jit, *self._bound)
        return key, specialization

    def identity(self) -> tuple[str | None, str | None]:
        """Return the kernel's text as Triton read it, and Triton's hash of all it depends on; None where unknown."""
        try:
            return source_text(self.jit), cache_key(self.jit)
        except Exception:  # noqa: BLE001 - of whatever kind its source is
            return None, None


class SeenTuning:
    """What an ``Autotuner`` had to do with a launch.

    Args:
        key: The autotune key; None where the only configuration was taken without one.
        config: The configuration, as `config_fields` gives it.
        positional: Number of arguments that the caller gave by position.
        keywords: Names of the others in the caller's order, ``grid`` and ``warmup`` left out.
    """

    __slots__ = ("config", "key", "keywords", "positional")

    def __init__(self, key: tuple[Any, ...] | None, config: Any, positional: int, keywords: list[str]) -> None:
        self.key, self.config, self.positional, self.keywords = key, config, positional, keywords


class _Frame:
    """One call of ``Autotuner.run`` on this thread."""

    __slots__ = ("benchmarking", "fresh", "seen")

    def __init__(self) -> None:
        self.benchmarking = self.fresh = False
        self.seen: Seen | None = None


class Observer:
    """Calls ``note`` with each launch that was not seen before: another launch key, or the same for another choice.

    Launches that an autotuner makes to compare configurations are left out. A launch seen before costs a set lookup.
    ``note`` is called on the launching thread. What it raises, or goes wrong in here, goes to ``problem``; the launch
    goes on.
    """

    def __init__(self, note: Note, problem: Callable[[BaseException], None]) -> None:
        self._note, self._problem = note, problem
        self._local = threading.local()

    def watch_jit(self) -> None:
        """Wrap the binders of functions that are made from now on."""
        jit: Any = sys.modules[JIT]
        original = jit.JITFunction.create_binder
        if _observed(original):
            return

        def create_binder(function: Any) -> Any:
            made = original(function)
            try:
                *rest, target, backend, binder = made
                return (*rest, target, backend, self._binder(function, target, backend, binder))
            except Exception as error:  # noqa: BLE001 - a Triton of another form goes on unseen
                self._problem(error)
                return made

        setattr(create_binder, OBSERVED, original)
        jit.JITFunction.create_binder = create_binder

    def watch_autotuner(self) -> None:
        """Wrap ``Autotuner.run`` and its benchmarks."""
        tuners: Any = sys.modules[AUTOTUNER]
        run, bench = tuners.Autotuner.run, tuners.Autotuner._bench  # noqa: SLF001
        if hasattr(run, OBSERVED):
            return
        local = self._local

        def observed_run(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            outer, frame = getattr(local, "frame", None), _Frame()
            local.frame = frame
            try:
                result = run(tuner, *args, **kwargs)
            finally:
                local.frame = outer
            self._after_run(tuner, frame, args, kwargs)
            return result

        def observed_bench(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            frame = getattr(local, "frame", None)
            if frame is None:
                return bench(tuner, *args, **kwargs)
            before, frame.benchmarking = frame.benchmarking, True
            try:
                return bench(tuner, *args, **kwargs)
            finally:
                frame.benchmarking = before

        setattr(observed_run, OBSERVED, run)
        setattr(observed_bench, OBSERVED, bench)
        tuners.Autotuner.run, tuners.Autotuner._bench = observed_run, observed_bench  # noqa: SLF001

    def _binder(self, function: Any, target: Any, backend: Any, binder: Callable[..., Any]) -> Callable[..., Any]:
        known: set[Any] = set()
        local = self._local

        def observed(*args: Any, **kwargs: Any) -> Any:
            result = binder(*args, **kwargs)
            try:
                frame = getattr(local, "frame", None)
                if frame is not None and frame.benchmarking:
                    return result
                bound, specialization, options = result
                key = (tuple(specialization), str(options))
                fresh = key not in known
                if not fresh and frame is None:
                    return result
                known.add(key)
                # Tensors live in ``bound`` and ``kwargs``: a `Seen` is dropped before the launch's caller goes on.
                seen = Seen(function, target, (backend, kwargs, bound, list(specialization), options))
                if frame is not None:
                    frame.seen, frame.fresh = seen, fresh
                else:
                    self._note(seen)
            except Exception as error:  # noqa: BLE001 - someone else's launch goes on
                self._problem(error)
            return result

        return observed

    def _after_run(self, tuner: Any, frame: _Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen, frame.seen = frame.seen, None
        try:
            keys = len(tuner.cache)
            if seen is None or not (frame.fresh or keys != tuner.__dict__.get(OBSERVED)):
                return
            setattr(tuner, OBSERVED, keys)
            plain = {name: value for name, value in kwargs.items() if name not in ("grid", "warmup")}
            key = autotune_key(tuner, args, plain) if len(tuner.configs) > 1 else None
            config = tuner.configs[0] if key is None else tuner.cache.get(key, tuner.best_config)
            seen.tuning = SeenTuning(key, config_fields(config), len(args), list(plain))
            self._note(seen)
        except Exception as error:  # noqa: BLE001 - someone else's launch goes on
            self._problem(error)


def config_fields(config: Any) -> dict[str, Any]:
    """Return what makes a ``triton.Config``, by the names of `gdn_aot.triton_internals.make_config`'s arguments."""
    return {
        "kwargs": list(config.kwargs.items()),
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "num_ctas": config.num_ctas,
        "maxnreg": config.maxnreg,
    }


def described_target(target: Any) -> str:
    """Return Triton's description of a target as ``sm_90``, or as ``hip gfx942`` where it is not CUDA's."""
    return f"sm_{target.arch}" if target.backend == "cuda" else f"{target.backend} {target.arch}"


def unwrapped(function: Any) -> Any:
    """Return the function of Triton's that wrappers of ours call, or ``function`` itself."""
    while (within := getattr(function, OBSERVED, getattr(function, GUARDED, None))) is not None:
        function = within
    return function


def _observed(function: Any) -> bool:
    return hasattr(function, OBSERVED) or hasattr(getattr(function, GUARDED, None), OBSERVED)

"""The part of `gdn_aot.triton_internals` that serving processes use: ready binaries and choices put where Triton looks.

What is relied on beyond the list in the package, checked by `check_serving`:

* ``JITFunction.run`` reads ``self.device_caches[device]``, calls ``.get(key, None)`` on its first member, and launches
  what it gets by ``.launch_metadata(...)`` and ``.run(...)`` with ``.function`` and ``.packed_metadata``
* ``Autotuner.run`` asks ``key in self.cache`` and reads ``self.cache[key]``

Not checked there, as nothing is lost without it: ``jit.mangle_type`` specializes an argument as binders do.
"""

from __future__ import annotations

import functools
import sys
from _thread import get_ident
from collections import defaultdict
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.artifact.names import CONFIG_BOUNDS
from gdn_aot.errors import GdnAotError
from gdn_aot.triton_internals import (
    active_driver,
    autotune_key,
    changed,
    check_version,
    current_device,
    layers,
    make_config,
)
from gdn_aot.triton_internals.guarding import SERVED
from gdn_aot.triton_internals.observing import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from gdn_aot.store.index_records import ConfigRecord

    _Prepare = Callable[[int], Callable[[str], Any | None]]
    _Failing = Callable[[Exception], AbstractContextManager[None]]


def check_serving() -> None:
    """Check the internals of the imported Triton that serving relies on. Cheap: looks at names, calls nothing.

    Raises:
        UnsupportedTritonError: One is not as known.
    """
    import triton
    from triton.compiler import CompiledKernel
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    version = str(triton.__version__)
    check_version(version)
    expected = {
        "JITFunction.run": (JITFunction, "run", {"device_caches", "get", "launch_metadata", "function"}),
        "JITFunction.create_binder": (JITFunction, "create_binder", {"get_current_target"}),
        "Autotuner.run": (Autotuner, "run", {"cache", "configs", "keys", "arg_names"}),
        "CompiledKernel.launch_metadata": (CompiledKernel, "launch_metadata", {"launch_enter_hook", "src"}),
    }
    other = [
        what
        for what, (owner, name, used) in expected.items()
        if not used <= set(getattr(getattr(unwrapped(getattr(owner, name, None)), "__code__", None), "co_names", ()))
    ]
    if other:
        raise changed(version, other)


@functools.cache
def ready_binder() -> None:
    """Have Triton import what it would at the first launch of a process, Gluon for one: 40 modules and more.

    Its binder does so before it looks at its first argument. If it cannot, the first launch says why; it is not tried
    again here.
    """
    from triton.runtime import jit

    with suppress(Exception):
        jit.mangle_type(0)


def ready_device() -> int | None:
    """Return the current device if this process has initialized CUDA already, else None. Never initializes it."""
    torch = sys.modules.get("torch")
    return current_device() if torch is not None and torch.cuda.is_initialized() else None


def device_capability(device: int) -> tuple[int, int] | None:
    """Return the compute capability of a device, or None where the active driver is not CUDA's."""
    driver = active_driver()
    if device != driver.get_current_device():
        import torch

        major, minor = torch.cuda.get_device_capability(device)
        return major, minor
    target = driver.get_current_target()
    return divmod(target.arch, 10) if target.backend == "cuda" else None


def device_name(device: int) -> str:
    """Return the product name of a CUDA device as PyTorch has it, or nothing where it cannot be had."""
    import torch

    try:
        return str(torch.cuda.get_device_name(device))
    except (RuntimeError, AssertionError):
        return ""


def backend_of(jit: Any, device: int) -> Any:
    """Return Triton's backend for a device on which a ``JITFunction`` is being launched."""
    return jit.device_caches[device][3]


class KernelCache(dict[str, Any]):
    """Triton's dictionary of ready kernels on one device, which asks ``find`` for keys that it lacks.

    ``find`` is called once per key that Triton asks for; what it raises reaches whoever launched.
    """

    def __init__(self, ready: Mapping[str, Any], find: Callable[[str], Any | None]) -> None:
        super().__init__(ready)
        self._find = find

    def get(self, key: str, default: Any = None) -> Any:
        """Return the kernel, or ``default`` if the artifact has none and Triton has not compiled it."""
        try:
            return self[key]
        except KeyError:
            return default

    def __missing__(self, key: str) -> Any:
        kernel = self._find(key)
        if kernel is None:
            raise KeyError(key)
        return self.setdefault(key, kernel)


class _DeviceCaches(defaultdict[int, tuple[Any, ...]]):
    """``JITFunction.device_caches`` that prepares a device's dictionary when the device is first used."""

    def __init__(
        self, jit: Any, prepare: _Prepare, lock: Callable[[], Any], unsupported: Callable[[str], None]
    ) -> None:
        super().__init__(jit.create_binder)
        self._jit, self._prepare, self._lock, self._unsupported = jit, prepare, lock, unsupported
        setattr(self, SERVED, True)

    def __missing__(self, device: int) -> tuple[Any, ...]:
        with self._lock():
            if device not in self:
                self[device] = self._ready(device, self._jit.create_binder())
        return self[device]

    def adopt(self, device: int, entry: tuple[Any, ...]) -> None:
        """Take over what Triton already has for a device."""
        self[device] = self._ready(device, entry)

    def _ready(self, device: int, entry: tuple[Any, ...]) -> tuple[Any, ...]:
        kernels, *rest = entry
        if not isinstance(kernels, dict) or len(rest) != 4:  # noqa: PLR2004
            self._unsupported("Triton has changed JITFunction.device_caches, which gdn-aot relies on")
            return entry
        return (KernelCache(kernels, self._prepare(device)), *rest)


def seed_kernels(jit: Any, prepare: _Prepare, lock: Callable[[], Any], unsupported: Callable[[str], None]) -> None:
    """Let a ``JITFunction`` find its binaries through us.

    ``prepare`` is called with a device when that is first used, and returns what looks a launch key up. ``lock``
    returns the reentrant lock to hold meanwhile; a forked child has a new one. ``unsupported`` is told what is wrong if
    Triton's entry for a device has another form, which is then left as it is.
    """
    caches = _DeviceCaches(jit, prepare, lock, unsupported)
    for device, entry in list(jit.device_caches.items()):
        caches.adopt(device, entry)
    jit.device_caches = caches


class ChoiceCache(MutableMapping[Any, Any]):
    """``Autotuner.cache`` of the current device, which asks ``answer`` for keys that it lacks.

    Triton keeps one dictionary for all devices, so that the choice of the first would be launched on every other. Here
    each has its own: what is answered, what Triton tuned and what others put in. None leaves a key to Triton.
    """

    def __init__(self, tuner: Any, answer: Callable[[Any, int], Any | None]) -> None:
        from triton.runtime.driver import driver

        self._driver, self._tuner, self._answer = driver, tuner, answer
        self._kept: defaultdict[int, dict[Any, Any]] = defaultdict(dict)
        if isinstance(tuner.cache, ChoiceCache):
            self._kept.update(tuner.cache._kept)  # noqa: SLF001
        elif tuner.cache:  # tuned by Triton, for devices which have a kernel since
            used = [device for device, (kernels, *_) in layers(tuner)[0].device_caches.items() if kernels]
            self._kept.update((device, dict(tuner.cache)) for device in used or [self.device()])

    def device(self) -> int:
        """Return the number of the current device."""
        return int(self._driver.active.get_current_device())

    def __contains__(self, key: object) -> bool:
        device = self.device()
        kept = self._kept[device]
        if key in kept:
            return True
        trial = self._tuner.fn
        config = None if isinstance(trial, Trial) and trial.tunes() else self._answer(key, device)
        if config is None:
            return False
        kept[key] = config
        return True

    def __getitem__(self, key: Any) -> Any:
        return self._kept[self.device()][key]

    def __setitem__(self, key: Any, config: Any) -> None:
        self._kept[self.device()][key] = config

    def __delitem__(self, key: Any) -> None:
        del self._kept[self.device()][key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._kept[self.device()])

    def __len__(self) -> int:
        return len(self._kept[self.device()])


def seed_choices(tuner: Any, answer: Callable[[Any, int], Any | None]) -> None:
    """Let an ``Autotuner`` find its configurations through us; ``answer`` is called with a key and the device."""
    tuner.cache = ChoiceCache(tuner, answer)


def find_config(tuner: Any, wanted: ConfigRecord) -> Any:
    """Return the autotuner's own configuration that equals ``wanted``, or a new one of the form that its own have.

    Raises:
        ValueError: It is of another form, or out of range.
    """
    for config in tuner.configs:
        found = (config.kwargs, config.num_warps, config.num_stages, config.num_ctas, config.maxnreg)
        if found == tuple(wanted):
            return config
    _check_names(tuner.configs, wanted.kwargs)
    for name, (least, most) in CONFIG_BOUNDS.items():
        number = getattr(wanted, name)
        if number is None and name == "maxnreg":
            continue
        if type(number) is not int or not least <= number <= most:
            raise ValueError(f"{name} is {shown(repr(number))}, expected {least} to {most}")
    if wanted.num_warps & (wanted.num_warps - 1):
        raise ValueError(f"num_warps is {wanted.num_warps}, expected a power of two")
    hooks = {config.pre_hook for config in tuner.configs}
    if len(hooks) > 1:
        raise ValueError("the provider's configurations have hooks of their own, and it is none of them")
    made = make_config(*wanted)
    made.pre_hook = hooks.pop()
    return made


def _check_names(configs: list[Any], kwargs: Any) -> None:
    names = {frozenset(config.kwargs) for config in configs}
    if not isinstance(kwargs, dict) or frozenset(kwargs) not in names:
        expected = " or ".join(sorted(", ".join(sorted(each)) or "nothing" for each in names))
        said = shown(", ".join(kwargs)) or "nothing"
        raise ValueError(f"one sets {said}, the provider's own set {expected}")
    for name, value in kwargs.items():
        types = {type(config.kwargs[name]) for config in configs if name in config.kwargs}
        if type(value) not in types:
            said = " or ".join(sorted(one.__name__ for one in types))
            raise ValueError(f"{name} is {shown(repr(value))}, expected {said}")


class Trial:
    """Stands in an ``Autotuner`` for what it wraps, until each configuration that Triton did not choose has launched.

    What fails must not reach the caller. For an error that Triton's autotuner drops a candidate for, the next
    configuration of the key is taken, and kept; for any other, and when there is no other configuration, Triton tunes.
    What is raised then reaches the caller: it is what he did wrong.
    """

    def __init__(self, tuner: Any, lock: Callable[[], Any]) -> None:
        self.fn = tuner.fn
        self._tuner, self._lock = tuner, lock
        self._names = {name for config in tuner.configs for name in config.kwargs}
        self._pending: dict[tuple[int, Any], tuple[list[Any], _Failing]] = {}
        """By device and autotune key."""
        self._tuning: set[int] = set()
        """Threads in which Triton tunes in place of a configuration that failed."""

    def __getattr__(self, name: str) -> Any:
        if name == "fn":
            raise AttributeError(name)
        return getattr(self.fn, name)

    def add(self, key: Any, configs: list[Any], failing: _Failing) -> None:
        """Try configurations at the next launch of a key on the current device. The lock is held."""
        self._pending[current_device(), key] = configs, failing
        self._tuner.fn = self

    def tunes(self) -> bool:
        """Say whether Triton tunes in this thread, in place of a configuration that failed."""
        return get_ident() in self._tuning

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Launch with the first configuration that the device can run."""
        untuned = {name: value for name, value in kwargs.items() if name not in self._names}
        key = autotune_key(self._tuner, args, untuned)
        configs, failing = self._pending.get((current_device(), key), ((), None))
        if not configs or failing is None or self.tunes():
            return self.fn.run(*args, **kwargs)
        given = configs[0].all_kwargs()
        call = {name: value for name, value in kwargs.items() if name not in given}
        for number, config in enumerate(configs):
            if number and config.pre_hook is not None:  # that of the first was called by the autotuner
                config.pre_hook({**dict(zip(self._tuner.arg_names, args, strict=False)), **call, **config.all_kwargs()})
            try:
                result = self.fn.run(*args, **call, **config.all_kwargs())
            except GdnAotError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it may be that of the configuration
                if config is not configs[-1] and isinstance(error, _dropped()):
                    continue
                with failing(error):
                    return self._tune(key, args, call)
            self._done(key, config)
            return result
        raise AssertionError("unreachable")

    def _tune(self, key: Any, args: tuple[Any, ...], call: dict[str, Any]) -> Any:
        thread = get_ident()
        self._tuning.add(thread)
        try:
            result = self._tuner.run(*args, **call)
        finally:
            self._tuning.discard(thread)
        self._done(key, None)
        return result

    def _done(self, key: Any, config: Any) -> None:
        with self._lock():
            self._pending.pop((current_device(), key), None)
            if config is not None:
                self._tuner.cache[key] = config
            if not self._pending:
                self._tuner.fn = self.fn


def _dropped() -> tuple[type[Exception], ...]:
    """Return the errors that Triton's autotuner drops a candidate for."""
    from triton.compiler.errors import CompileTimeAssertionFailure
    from triton.runtime.errors import OutOfResources, PTXASError

    return OutOfResources, CompileTimeAssertionFailure, PTXASError


def try_configs(tuner: Any, key: Any, configs: list[Any], lock: Callable[[], Any], failing: _Failing) -> Any:
    """Return the first of ``configs`` for an ``Autotuner`` to launch with, and see that others follow if it fails.

    ``failing`` is called with the error when all did; in its context Triton must find no configuration for ``key``.
    ``lock`` is that of `seed_kernels`, and is held.
    """
    trial = tuner.fn if isinstance(tuner.fn, Trial) else Trial(tuner, lock)
    trial.add(key, configs, failing)
    return configs[0]


def remember_globals(jit: Any, values: Mapping[str, tuple[Any, dict[str, Any]]]) -> None:
    """Have Triton raise, as it does for what it compiled itself, when a global that the kernel read changes later.

    ``values`` are name -> (value, the dictionary that holds it).
    """
    for name, (value, holder) in values.items():
        jit.used_global_vals.setdefault((name, id(holder)), (value, holder))

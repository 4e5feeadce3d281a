"""The part of `gdn_aot.triton_internals` that serving processes use: ready binaries and choices put where Triton looks.

What is relied on beyond the list in the package, checked by `check_serving`:

* ``JITFunction.run`` reads ``self.device_caches[device]``, calls ``.get(key, None)`` on its first member, and launches
  what it gets by ``.launch_metadata(...)`` and ``.run(...)`` with ``.function`` and ``.packed_metadata``
* ``Autotuner.run`` asks ``key in self.cache`` and reads ``self.cache[key]``
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from gdn_aot.triton_internals import active_driver, changed, check_version, current_device, make_config
from gdn_aot.triton_internals.observing import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gdn_aot.store.index_records import ConfigRecord

    _Prepare = Callable[[int], Callable[[str], Any | None]]


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


class ChoiceCache(dict[Any, Any]):
    """``Autotuner.cache`` that asks ``answer`` for keys that it lacks; None leaves a key to Triton."""

    def __init__(self, ready: Mapping[Any, Any], answer: Callable[[Any], Any | None]) -> None:
        super().__init__(ready)
        self._answer = answer

    def __contains__(self, key: object) -> bool:
        if super().__contains__(key):
            return True
        config = self._answer(key)
        if config is None:
            return False
        self[key] = config
        return True


def seed_choices(tuner: Any, answer: Callable[[Any], Any | None]) -> None:
    """Let an ``Autotuner`` find its configurations through us."""
    tuner.cache = ChoiceCache(tuner.cache, answer)


def find_config(tuner: Any, wanted: ConfigRecord) -> Any:
    """Return the autotuner's own configuration that equals ``wanted``, or a new one."""
    for config in tuner.configs:
        found = (config.kwargs, config.num_warps, config.num_stages, config.num_ctas, config.maxnreg)
        if found == tuple(wanted):
            return config
    return make_config(*wanted)


class Trial:
    """Stands in an ``Autotuner`` for what it wraps while configurations are tried that were not made for this key.

    What Triton's autotuner drops a candidate for must not reach the caller: the next configuration is taken then, and
    kept. Nothing has run when such an error is raised.
    """

    def __init__(self, tuner: Any, key: Any, configs: list[Any]) -> None:
        self.fn = tuner.fn
        self._tuner, self._key, self._configs = tuner, key, configs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fn, name)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Launch with the first configuration that the device can run."""
        from triton.compiler.errors import CompileTimeAssertionFailure
        from triton.runtime.errors import OutOfResources, PTXASError

        first = self._configs[0].all_kwargs()
        if any(kwargs.get(name) != value for name, value in first.items()):
            return self.fn.run(*args, **kwargs)  # another key, in another thread
        for config in self._configs[:-1]:
            try:
                return self._keep(config, self.fn.run(*args, **{**kwargs, **config.all_kwargs()}))
            except (OutOfResources, CompileTimeAssertionFailure, PTXASError):
                continue
        config = self._configs[-1]
        return self._keep(config, self.fn.run(*args, **{**kwargs, **config.all_kwargs()}))

    def _keep(self, config: Any, result: Any) -> Any:
        self._tuner.cache[self._key] = config
        self._tuner.fn = self.fn
        return result


def try_configs(tuner: Any, key: Any, configs: list[Any]) -> Any:
    """Return the first of ``configs`` for an ``Autotuner`` to launch with, and see that another follows if it fails."""
    if not isinstance(tuner.fn, Trial):
        tuner.fn = Trial(tuner, key, configs)
    return configs[0]


def remember_globals(jit: Any, values: Mapping[str, tuple[Any, dict[str, Any]]]) -> None:
    """Have Triton raise, as it does for what it compiled itself, when a global that the kernel read changes later.

    ``values`` are name -> (value, the dictionary that holds it).
    """
    for name, (value, holder) in values.items():
        jit.used_global_vals.setdefault((name, id(holder)), (value, holder))

"""All contact with Triton's internals, for the build machine and for the serving process.

Nothing else in this package reads a private or undocumented attribute of Triton. What is relied on, checked by
`check_supported` and by ``tests/triton_versions`` on every supported version:

* ``JITFunction.device_caches[device] -> (kernel cache, key cache, target, backend, binder)``,
  ``binder(*args, **kwargs) -> (bound arguments, specialization, options)``, ``compute_cache_key``, ``_pack_args``
* ``Autotuner.arg_names / keys / configs / cache / nargs / prune_configs`` and the layout of its key
* ``ASTSource(fn, signature, constexprs, attrs).make_ir`` and ``triton.compile``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.errors import UnsupportedTritonError
from gdn_aot.triton_internals import naming
from gdn_aot.triton_internals.encoding import decode, encode, plain, plain_metadata, tuples
from gdn_aot.triton_internals.relaxing import FOLDED, RUN_TIME, constant_position

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gdn_aot.launches import Json

SUPPORTED = ((3, 6), (3, 9))
"""First and last supported minor version of Triton, both included."""

_RUN_PARAMETERS = ("self", "args", "grid", "warmup", "kwargs")
_IMPLIED_OPTIONS = ("debug", "instrumentation_mode")
"""Options that ``JITFunction.run`` adds by itself; they are part of the launch key."""


def check_version(version: str) -> None:
    """Check a version of Triton, which need not be imported for it.

    Raises:
        UnsupportedTritonError: It is out of range.
    """
    number = tuple(int(part) for part in version.partition("+")[0].split(".")[:2])
    if not SUPPORTED[0] <= number <= SUPPORTED[1]:
        low, high = (".".join(map(str, bound)) for bound in SUPPORTED)
        raise UnsupportedTritonError(f"Triton {version} is installed; gdn-aot supports {low} to {high}")


def check_supported() -> str:
    """Check that the installed Triton is one whose internals this module knows. Returns its version.

    Raises:
        UnsupportedTritonError: Version out of range, or an internal has changed its shape.
    """
    import inspect

    import triton
    from triton.compiler import ASTSource
    from triton.runtime import jit
    from triton.runtime.autotuner import Autotuner

    version = str(triton.__version__)
    check_version(version)
    missing = [
        what
        for what, there in {
            "JITFunction.run": tuple(inspect.signature(jit.JITFunction.run).parameters) == _RUN_PARAMETERS,
            "JITFunction.create_binder": hasattr(jit.JITFunction, "create_binder"),
            "JITFunction._pack_args": hasattr(jit.JITFunction, "_pack_args"),
            "jit.compute_cache_key": hasattr(jit, "compute_cache_key"),
            "Autotuner.prune_configs": hasattr(Autotuner, "prune_configs"),
            "ASTSource.make_ir": hasattr(ASTSource, "make_ir"),
        }.items()
        if not there
    ]
    if missing:
        raise changed(version, missing)
    return version


def changed(version: str, what: Iterable[str], purpose: str = "") -> UnsupportedTritonError:
    """Return the error that names the internals of Triton which are not as known."""
    return UnsupportedTritonError(
        f"Triton {version} has changed {', '.join(what)}, which gdn-aot relies on{purpose}",
        hint="install a Triton version that docs/reference/coverage.md lists, or upgrade gdn-aot",
    )


_MOST_LAYERS = 32


def layers(kernel: Any) -> tuple[Any, Any]:
    """Return the ``JITFunction`` under any stack of ``Heuristics`` and ``Autotuner``, and the ``Autotuner`` or None.

    Raises:
        TypeError: It is not a Triton kernel.
    """
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    seen, tuner = kernel, None
    for _ in range(_MOST_LAYERS):  # an object may have an ``fn`` without end
        if isinstance(seen, JITFunction):
            return seen, tuner
        tuner = seen if isinstance(seen, Autotuner) else tuner
        seen = getattr(seen, "fn", None)
    raise TypeError(f"{type(kernel).__name__} is not a Triton kernel")


def find_kernel(module: str, qualname: str) -> tuple[Any, Any]:
    """Import ``module`` and return the `layers` of the kernel called ``qualname`` in it.

    Raises:
        ImportError: The module cannot be imported.
        AttributeError: It has no such attribute.
        TypeError: The attribute is not a Triton kernel.
    """
    import importlib

    found: Any = importlib.import_module(naming.imported(module))
    for part in qualname.split("."):
        found = getattr(found, part)
    return layers(found)


def kernel_name(jit: Any) -> str:
    """Return ``module:qualname`` of a ``JITFunction``, as records have it."""
    return f"{naming.recorded(jit.fn.__module__)}:{jit.fn.__qualname__}"


def compiled_text(function: Any) -> Any:
    """Return the text that Triton would compile a JIT function from; the same object until it is given another."""
    return getattr(function, "src", None)


def source_text(function: Any) -> str | None:
    """Return the text of a JIT function as Triton read it, or None if it is none or was given another text since.

    Two functions of one name in one file, chosen by an environment variable, differ in it.
    """
    lines = getattr(function, "raw_src", None)
    if not isinstance(lines, list):
        return None
    text = "".join(lines)
    compiled = compiled_text(function)
    import textwrap

    return text if isinstance(compiled, str) and textwrap.dedent(text).endswith(compiled) else None


def cache_key(jit: Any) -> str:
    """Return Triton's own hash of a kernel's source, callees, globals and first line (64 hex digits)."""
    return str(jit.cache_key)


def used_globals(functions: Iterable[Any]) -> list[tuple[str, str]]:
    """Return (name, repr) of each global that functions read, sorted: those of a kernel and of all that it calls.

    Only meaningful after `cache_key`, which is what collects them; a kernel need not get those of what it calls by it.
    """
    return sorted({(name, repr(value)) for one in functions for (name, _), (value, _) in one.used_global_vals.items()})


def autotune_key(tuner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key under which an ``Autotuner`` looks a configuration up.

    The values of the names in ``key=`` that are present, then the dtype of every argument that has one, in the
    order: positional arguments by signature, then keyword arguments as the caller wrote them
    (triton/runtime/autotuner.py, ``Autotuner.run``).
    """
    given = {**dict(zip(tuner.arg_names, args, strict=False)), **kwargs}
    known = {name: value for name, value in given.items() if name in tuner.arg_names}
    key = [known[name] for name in tuner.keys if name in known]
    key += [str(value.dtype) for value in known.values() if hasattr(value, "dtype")]
    return tuple(key)


def looked_up(tuner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """Return the name of an ``Autotuner``'s kernel, and the key that it looks a configuration up by."""
    return kernel_name(layers(tuner)[0]), autotune_key(tuner, args, kwargs)


def candidates(tuner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the configurations that the ``Autotuner`` would benchmark for this call, in its order."""
    tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
    try:
        return list(tuner.prune_configs(kwargs))
    finally:
        tuner.nargs = None


def make_config(kwargs: Mapping[str, Any], num_warps: int, num_stages: int, num_ctas: int, maxnreg: int | None) -> Any:
    """Return a ``triton.Config``."""
    import triton

    return triton.Config(dict(kwargs), num_warps=num_warps, num_stages=num_stages, num_ctas=num_ctas, maxnreg=maxnreg)


class Launch:
    """One launch as ``JITFunction.run`` sees it, bound but neither compiled nor launched."""

    def __init__(
        self, jit: Any, args: Sequence[Any], kwargs: Mapping[str, Any], constants: Mapping[str, Any] | None = None
    ) -> None:
        """Bind a launch. ``constants`` are constexprs to take in place of what the call has; see `relaxing`."""
        from triton import knobs
        from triton.runtime.jit import compute_cache_key

        self.jit = jit
        self._kwargs = dict(kwargs)
        # As in JITFunction.run: both are set before binding, in this order, and so end up in the key.
        self._kwargs["debug"] = self._kwargs.get("debug", jit.debug) or knobs.runtime.debug
        self._kwargs["instrumentation_mode"] = knobs.compilation.instrumentation_mode
        device = current_device()
        _, key_cache, _, self._backend, binder = jit.device_caches[device]
        self._bound, self._specialization, self._options = binder(*args, **self._kwargs)
        for name, value in (constants or {}).items():
            position = constant_position(jit, name)
            if value is not None:
                self._bound[name] = value
                self._specialization[position] = (self._specialization[position][0], value)
            elif self._bound[name] != FOLDED:
                self._specialization[position] = (RUN_TIME, None)
        self.key: str = compute_cache_key(key_cache, self._specialization, self._options)

    @property
    def arguments(self) -> dict[str, Any]:
        """The kernel's parameters by name, in order, as a launcher takes them."""
        return dict(self._bound)

    def specialization(self) -> dict[str, Json]:
        """Return what `make_source` needs to compile this launch anywhere, as JSON.

        Raises:
            TypeError: A constant is of a type that JSON cannot carry.
        """
        return _pack(self.jit, self._backend, self._kwargs, self._bound, self._specialization, self._options)


def pack_launch(
    jit: Any, backend: Any, kwargs: dict[str, Any], bound: Any, specialization: Any, options: Any
) -> tuple[str, dict[str, Json]]:
    """Return the launch key and the specialization, as JSON, of a launch that a binder has bound.

    ``backend`` is Triton's, of the target; ``kwargs`` is what the binder was called with by name, the last three are
    what it returned.

    Raises:
        TypeError: A constant is of a type that JSON cannot carry.
    """
    from triton.runtime.jit import compute_cache_key

    packed = _pack(jit, backend, kwargs, bound, specialization, options)
    return str(compute_cache_key({}, specialization, options)), packed


def _pack(
    jit: Any, backend: Any, kwargs: dict[str, Any], bound: Any, specialization: Any, options: Any
) -> dict[str, Json]:
    parsed, signature, constants, attributes = jit._pack_args(  # noqa: SLF001
        backend, kwargs, bound, specialization, options
    )
    # Triton parses options from all that is passed by name, also from constexprs of the kernel.
    own = {name: value for name, value in kwargs.items() if name in vars(parsed) and signature.get(name) == "constexpr"}
    given = {**options, **own}
    return {
        "signature": {name: plain(kind) for name, kind in signature.items()},
        "constants": [[list(path), encode(value)] for path, value in constants.items()],
        "attributes": [[list(path), plain(value)] for path, value in attributes.items()],
        "options": {name: plain(value) for name, value in given.items() if value or name not in _IMPLIED_OPTIONS},
    }


def active_driver() -> Any:
    """Return Triton's active driver."""
    from triton.runtime.driver import driver

    return driver.active


def current_architecture() -> int:
    """Return the number of the architecture that Triton's active driver answers for, as 90."""
    return int(active_driver().get_current_target().arch)


def current_device() -> int:
    """Return the number of the current device."""
    return int(active_driver().get_current_device())


def make_source(jit: Any, specialization: Mapping[str, Any]) -> Any:
    """Return the ``ASTSource`` of a kernel for a specialization written by `Launch.specialization`."""
    from triton.compiler import ASTSource

    return ASTSource(
        jit,
        {name: tuples(kind) for name, kind in specialization["signature"].items()},
        {tuple(path): decode(value) for path, value in specialization["constants"]},
        {tuple(path): value for path, value in specialization["attributes"]},
    )


def source_ir(source: Any, options: Mapping[str, Any], capability: int) -> str:
    """Return the IR that the front end makes of a source, without locations.

    Two launches with the same text and options compile to the same machine code: an unused constexpr leaves no
    trace in it. The source keeps the IR: `compile_source` goes on from there and does not run the front end again.
    """
    from triton._C.libtriton import ir

    target, backend = _target(capability)
    parsed = backend.parse_options({**options, **source.parse_options()})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    module = source.make_ir(
        target, parsed, backend.get_codegen_implementation(parsed), backend.get_module_map(), context
    )
    text = str(module.str_nodebug())
    source.make_ir = lambda *_: (context, module)[1]  # the context must live as long as its module
    return text


def compile_source(source: Any, options: Mapping[str, Any], capability: int) -> tuple[bytes, dict[str, Json], str]:
    """Compile a source with Triton's own ``compile``.

    Returns the cubin; Triton's metadata without what belongs to the build machine: the disk-cache hash, library paths
    and environment variables; and the PTX that the cubin was assembled from.
    """
    import triton

    target, _ = _target(capability)
    compiled = triton.compile(source, target=target, options=dict(options))
    metadata = compiled.metadata._asdict()
    metadata["target"] = {"backend": target.backend, "arch": target.arch, "warp_size": target.warp_size}
    kept = {
        name: plain_metadata(value)
        for name, value in sorted(metadata.items())
        if name not in ("hash", "extern_libs", "triton_version") and not name.isupper()
    }
    return bytes(compiled.asm["cubin"]), kept, str(compiled.asm["ptx"])


def _target(capability: int) -> tuple[Any, Any]:
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    target = GPUTarget("cuda", capability, 32)
    return target, make_backend(target)


_PTXAS_LIMITS = r"uses too much|requires \.target|not supported on \.target"
"""What ptxas says when code does not fit a target, as against when it breaks."""


def front_end_errors() -> tuple[type[Exception], ...]:
    """Return what the front end raises for a kernel that it does not take."""
    from triton.compiler.errors import CompilationError

    return (CompilationError,)


def is_rejection(error: BaseException) -> bool:
    """Say whether an error means that a candidate does not fit the target, not that the compiler is broken.

    Triton's own autotuner drops a candidate for the same errors. It does so for every error of ptxas; here a ptxas
    that crashed or refused for another reason than the target's limits is a failure.
    """
    import re

    from triton.compiler.errors import CompileTimeAssertionFailure
    from triton.runtime.errors import OutOfResources, PTXASError

    if isinstance(error, PTXASError):
        return re.search(_PTXAS_LIMITS, str(error)) is not None
    return isinstance(error, (OutOfResources, CompileTimeAssertionFailure))


def compiler_message(error: BaseException) -> str:
    """Return an error's type and text, without the command line and temporary paths that Triton adds."""
    import re

    text = str(error).partition("Repro command:")[0].strip()
    text = re.sub(r"(?:/[^\s/:'\"]+)+/([^\s/:'\"]+)", r"\1", text)
    text = re.sub(r"\btmp\w+\.ptx", "kernel.ptx", text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def stands_in() -> bool:
    """Say whether Triton's active driver was given to `set_driver` in place of a device's."""
    return bool(getattr(active_driver(), "stands_in", False))


def set_driver(driver_object: Any) -> None:
    """Make ``driver_object`` Triton's active driver."""
    from triton.runtime.driver import driver

    driver.set_active(driver_object)


def run_config(tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any], config: Any) -> Any:
    """Run what an ``Autotuner`` wraps with one configuration, as it does itself after choosing."""
    return tuner.fn.run(*args, **kwargs, **config.all_kwargs())

"""Triton's disk cache: where it looks for a compiled kernel or an autotuner's winner, and what it must find there.

No key is computed here. Triton is asked, through a cache manager of ours in place of its own
(``knobs.cache.manager_class``): ``triton.compile`` tells it where it would look for a kernel, and
``Autotuner.check_disk_cache`` hands it the very file it would write. So the keys are those of a process with the same
Triton and the same environment variables. What is relied on, checked by `check_disk_cache`:

* ``compile`` asks ``get_cache_manager(hash).get_group("<name>.json")`` before it compiles, and takes the kernel from
  the files in the answer; ``check_disk_cache`` asks ``get_file`` and then calls ``put``
* managers are made from the base32 form of a SHA-256, and ``FileCacheManager`` keeps a group of files in a directory of
  that name, listed with absolute paths in ``__grp__<name>.json``
* a kernel's metadata are hash, target, options, environment and version, then what compiling adds
"""

from __future__ import annotations

import base64
import copy
import inspect
import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot import triton_internals
from gdn_aot._files import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gdn_aot.errors import UnsupportedTritonError

_PARAMETERS = {
    "compile": ("src", "target", "options", "_env_vars"),
    "CompiledKernel": ("self", "src", "metadata_group", "hash"),
    "Autotuner.check_disk_cache": ("self", "tuning_key", "configs", "bench_fn"),
}
_MAX_FILE = 64 << 20
"""Bytes of a file in Triton's cache."""
_MANAGER = {"get_file", "get_group", "put", "put_group"}
_CHANGED_BY_COMPILING = ("num_warps",)
"""Options whose value in the metadata the compiler may change: warp specialization adds warps."""
_NO_TIME = [0.0, 0.0, 0.0]
"""In place of the quantiles of a benchmark. It is no measurement: nothing was timed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where Triton looks: a directory in its cache, and the name of a file there."""

    directory: str
    """Base32 form of a SHA-256."""
    name: str


class _Answer(Exception):  # noqa: N818
    """Carries the place that ``triton.compile`` asked for out of it, before it compiles."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


def check_disk_cache() -> None:
    """Check that the installed Triton keeps its cache as this module knows it.

    Raises:
        UnsupportedTritonError: It does not.
    """
    from triton import knobs
    from triton.compiler import compiler
    from triton.runtime import cache
    from triton.runtime.autotuner import Autotuner

    calls = {
        "compile": getattr(compiler, "compile", None),
        "CompiledKernel": getattr(getattr(compiler, "CompiledKernel", None), "__init__", None),
        "Autotuner.check_disk_cache": getattr(Autotuner, "check_disk_cache", None),
    }
    there = {
        name: call is not None and tuple(inspect.signature(call).parameters) == _PARAMETERS[name]
        for name, call in calls.items()
    }
    there["CacheManager"] = getattr(getattr(cache, "CacheManager", None), "__abstractmethods__", None) == _MANAGER
    there["get_cache_invalidating_env_vars"] = hasattr(compiler, "get_cache_invalidating_env_vars")
    there["knobs.cache"] = {"dir", "manager_class"} <= set(dir(knobs.cache)) and hasattr(knobs.cache, "scope")
    missing = [name for name, found in there.items() if not found]
    if not missing and not _same_layout():
        missing = ["the layout of its cache directory"]
    if missing:
        raise _changed(*missing)


def _same_layout() -> bool:
    """Let Triton write a group of files into a scratch directory and compare it with ours."""
    from triton import knobs
    from triton.runtime.cache import FileCacheManager

    place = Place(directory="A" * 52, name="kernel.json")
    with tempfile.TemporaryDirectory() as root, knobs.cache.scope():
        knobs.cache.dir = root
        manager = FileCacheManager(place.directory)
        paths = {name: manager.put(b"{}", name) for name in (cubin_name(place), place.name)}
        manager.put_group(place.name, paths)
        path = Path(root, place.directory, group_name(place))
        try:
            return bool(json.loads(path.read_bytes()) == json.loads(group_text(root, place)))
        except (OSError, ValueError):
            return False


def _changed(*what: str) -> UnsupportedTritonError:
    import triton

    return triton_internals.changed(str(triton.__version__), what, " to write its cache")


def group_name(place: Place) -> str:
    """Return the name of the file that lists an entry's files. Triton sees an entry once this file is there."""
    return f"__grp__{place.name}"


def cubin_name(place: Place) -> str:
    """Return the name of an entry's machine code."""
    return f"{place.name.removesuffix('.json')}.cubin"


def group_text(root: str, place: Place) -> str:
    """Return the list of an entry's files, in the cache at the absolute path ``root``."""
    names = (cubin_name(place), place.name)
    return json.dumps({"child_paths": {name: str(Path(root, place.directory, name)) for name in names}})


def kernel_hash(place: Place) -> str:
    """Return the hash that a directory's name stands for, 64 hex digits; it is in the metadata, too.

    Raises:
        ValueError: The name is not one of Triton's.
    """
    return base64.b32decode(place.directory + "=" * (-len(place.directory) % 8)).hex()


def read_entry(root: Path, place: Place) -> bytes | None:
    """Return the cubin that Triton would load from an entry, or None if the entry is not there or not whole.

    Whole means: the list is there, every file in it is, and the metadata belong to this place.
    """
    try:
        group = json.loads(read_regular(root / place.directory / group_name(place), _MAX_FILE))["child_paths"]
        if not all(Path(path).is_file() for path in group.values()):
            return None
        metadata = json.loads(read_regular(group[place.name], _MAX_FILE))
        if metadata["hash"] != kernel_hash(place) or not {"name", "shared", "target"} <= set(metadata):
            return None
        return read_regular(group[cubin_name(place)], _MAX_FILE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keeps_choice(stored: bytes, text: str) -> bool:
    """Say whether the content of an ``.autotune.json`` is to stay when ``text`` is to be seeded.

    It stays if it is the same or holds times that somebody measured. What does not, is broken or was seeded before.
    """
    try:
        pairs = [(config, time) for config, time in json.loads(stored)["configs_timings"]]
        if not pairs or not all({"kwargs", "num_warps"} <= set(config) for config, _ in pairs):
            return False
        return stored == text.encode() or any(time != _NO_TIME for _, time in pairs)
    except (ValueError, KeyError, TypeError):
        return False


def choice_refusal(tuner: Any) -> str | None:
    """Say why no stored choice can be found by an ``Autotuner``, whatever its key; None if it can."""
    if tuner is None:
        return "its autotuner is not found under the kernel's name"
    if len(tuner.configs) == 1:
        return "its autotuner has one configuration here and looks for no other"
    if tuner.early_config_prune is not None or tuner.perf_model is not None:
        return "its autotuner narrows its configurations by the arguments of a call, and they are part of the key"
    if any(config.pre_hook for config in tuner.configs):
        return "a configuration of it has a hook, so Triton keeps no choice on disk"
    if not tuner.cache_results:
        return "its autotuner does not read the disk cache in this environment (FLA_CACHE_RESULTS)"
    return None


def choice_file(tuner: Any, key: Sequence[Any], config: Mapping[str, Any]) -> tuple[Place, str] | None:
    """Return place and content of the ``.autotune.json`` by which an ``Autotuner`` takes ``config`` for ``key``.

    The file holds this configuration alone, so it wins. Its times are zero: nothing was measured. None if Triton keeps
    no choice for such a key.
    """
    from triton import knobs

    written: list[tuple[Place, str]] = []
    made = triton_internals.make_config(**config)
    asked = copy.copy(tuner)
    asked.cache = {}
    benchmark = partial(setattr, asked, "configs_timings", {made: _NO_TIME})
    with knobs.cache.scope():
        knobs.cache.manager_class = _manager(
            on_group=lambda _: None, on_put=lambda place, data: written.append((place, str(data)))
        )
        asked.check_disk_cache(tuple(key), list(tuner.configs), benchmark)
    return written[0] if written else None


def binary_entry(
    jit: Any, specialization: Mapping[str, Any], metadata: Mapping[str, Any], capability: int
) -> tuple[Place, str]:
    """Return where Triton here looks for a launch, and the metadata file to put there, as it would have written it.

    ``specialization`` is as `gdn_aot.triton_internals.Launch.specialization` writes it, ``metadata`` as
    `gdn_aot.triton_internals.compile_source` returned it where the kernel was compiled; ``capability`` is 90 for sm_90.

    Raises:
        ValueError: This environment asks the compiler for something else than was compiled.
        UnsupportedTritonError: Triton did not ask its cache.
    """
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import compiler

    target = GPUTarget("cuda", capability, 32)
    backend = compiler.make_backend(target)
    implied = {
        "debug": specialization["options"].get("debug", jit.debug) or knobs.runtime.debug,
        "instrumentation_mode": knobs.compilation.instrumentation_mode,
    }
    # As in JITFunction.run and compile: parsed once by each.
    options = backend.parse_options({**specialization["options"], **implied})
    place = _asked_place(triton_internals.make_source(jit, specialization), target, options.__dict__)
    options = backend.parse_options(dict(options.__dict__)).__dict__
    differing = [
        f"{name}={value!r} here, {metadata[name]!r} in the artifact"
        for name, value in json.loads(json.dumps(options)).items()
        if name in metadata and name not in _CHANGED_BY_COMPILING and value != metadata[name]
    ]
    if differing:
        raise ValueError(f"this environment compiles it with other options: {', '.join(differing)}")
    written = {
        "hash": kernel_hash(place),
        "target": target,
        **options,
        **compiler.get_cache_invalidating_env_vars(),
        "triton_version": triton.__version__,
        **{name: value for name, value in metadata.items() if name != "target"},
    }
    return place, json.dumps(written, default=vars)


def _answer(place: Place) -> None:
    raise _Answer(place)


def _refuse(*_: object) -> None:
    raise _changed("compile")


def _asked_place(source: Any, target: Any, options: Mapping[str, Any]) -> Place:
    import triton
    from triton import knobs

    with knobs.cache.scope():
        knobs.cache.manager_class = _manager(on_group=_answer, on_put=_refuse)
        try:
            triton.compile(source, target=target, options=dict(options))
        except _Answer as found:
            return found.place
    raise _changed("compile")


def _manager(on_group: Callable[[Place], None], on_put: Callable[[Place, Any], None]) -> type[Any]:
    """Return a cache manager that holds nothing and reports which group it is asked for and what it is given."""
    from triton.runtime.cache import CacheManager

    class Reporting(CacheManager):  # type: ignore[misc]
        def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
            del override, dump
            self._directory = key

        def get_group(self, filename: str) -> None:
            on_group(Place(directory=self._directory, name=filename))

        def get_file(self, filename: str) -> None:
            del filename

        def put(self, data: Any, filename: str, binary: bool = True) -> str:
            del binary
            on_put(Place(directory=self._directory, name=filename), data)
            return filename

        def put_group(self, filename: str, group: Mapping[str, str]) -> None:
            del filename, group

    return Reporting

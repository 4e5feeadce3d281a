"""What surrounds the loader in a process started here: versions, settings, compiler, and what would install it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass

from gdn_aot._version import __version__
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.errors import UnsupportedTritonError
from gdn_aot.machine import installed
from gdn_aot.machine.variables import changed_code_variable
from gdn_aot.serving import log
from gdn_aot.serving.settings import read_settings
from gdn_aot.triton_internals import check_version

_PLUGIN = "gdn_aot"
"""Name of our entry points, by which the variables in `_HOSTS` select them."""
_HOSTS = (
    ("vllm", "vllm.general_plugins", "VLLM_PLUGINS"),
    ("sglang", "sglang.srt.plugins", "SGLANG_PLUGINS"),
)
"""Distribution, group of entry points, and the variable that holds the names of those to load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Versions:
    """Installed versions, from distribution metadata; None where a distribution is not installed."""

    gdn_aot: str
    python: str
    executable: str
    triton: str | None
    triton_problem: str
    """Why this Triton is not one that gdn-aot supports, or empty."""
    torch: str | None
    zstandard: str | None
    huggingface_hub: str | None
    providers: dict[str, str | None]
    """By distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """The settings as the loader reads them, and Triton's that matter to it."""

    enabled: bool
    home: str
    artifact: str | None
    strict: bool
    on_miss: str
    log: str | None
    problems: tuple[str, ...]
    """Settings that cannot be understood and are ignored."""
    triton_cache_dir: str | None
    """``TRITON_CACHE_DIR``; vLLM and SGLang set their own."""
    changed_code_variable: str | None
    """A variable by which the user changes what Triton compiles: with it set the loader serves nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiler:
    """What a launch needs that Triton builds at run time: a C compiler, or the extension that stands in for it."""

    path: str | None
    """The compiler that Triton would call: ``$CC``, gcc or clang."""
    headers: bool
    """``Python.h`` is where Triton looks for it."""
    native_launcher: bool
    """``gdn_aot.triton_internals._launch`` can be imported."""
    native_problem: str
    can_launch: bool
    meaning: str
    """What follows, in one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugin:
    """Our entry point for one serving engine."""

    host: str
    host_version: str | None
    group: str
    installed: bool
    value: str | None
    """The function that it names."""
    variable: str
    filter: str | None
    """Value of ``variable``, an allow-list of names."""
    left_out: bool
    """The filter leaves our entry point out, without a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What installs the loader."""

    active: bool
    """It is installed in this very process."""
    automatic: bool
    """``gdn_aot.auto`` was imported when this interpreter started: by a ``sitecustomize`` or a ``.pth`` file."""
    plugins: tuple[Plugin, ...]


def read_versions() -> Versions:
    """Look versions up where the loader does."""
    triton = installed.version("triton")
    return Versions(
        gdn_aot=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        triton=triton,
        triton_problem=_triton_problem(triton),
        torch=installed.version("torch"),
        zstandard=installed.version("zstandard"),
        huggingface_hub=installed.version("huggingface_hub"),
        providers={info.distribution: installed.version(info.distribution) for info in PROVIDERS.values()},
    )


def _triton_problem(version: str | None) -> str:
    if version is None:
        return "Triton is not installed"
    try:
        check_version(version)
    except UnsupportedTritonError as error:
        return error.message
    except ValueError:
        return f"Triton's version {version!r} is not a number"
    return ""


def read_environment() -> Environment:
    """Read the environment with the loader's own functions."""
    problems: list[str] = []
    settings = read_settings(problems)
    if settings.log and log.level_of(settings.log) is None:
        problems.append(f"GDN_AOT_LOG={settings.log} is no level of Python's logging")
    return Environment(
        enabled=settings.enabled,
        home=settings.home,
        artifact=settings.artifact,
        strict=settings.strict,
        on_miss=settings.on_miss,
        log=settings.log,
        problems=tuple(problems),
        triton_cache_dir=os.environ.get("TRITON_CACHE_DIR") or None,
        changed_code_variable=changed_code_variable(),
    )


def read_compiler() -> Compiler:
    """Look for a compiler as ``triton/runtime/build.py`` does, and import our launcher."""
    command = os.environ.get("CC")
    path = shutil.which(command if command is not None else "gcc")
    if path is None and command is None:
        path = shutil.which("clang")
    scheme = sysconfig.get_default_scheme()
    include = sysconfig.get_paths(scheme="posix_prefix" if scheme == "posix_local" else scheme)["include"]
    headers = os.path.isfile(f"{include}/Python.h")
    try:
        importlib.import_module("gdn_aot.triton_internals._launch")
    except ImportError as error:
        native, problem = False, str(error)
    else:
        native, problem = True, ""
    lacks = f"CC={command}, which is not there" if command is not None else "no gcc and no clang"
    missing = lacks if path is None else "" if headers else f"no Python.h in {include}"
    return Compiler(
        path=path,
        headers=headers,
        native_launcher=native,
        native_problem=problem,
        can_launch=native or not missing,
        meaning=_meaning(native, missing),
    )


def _meaning(native: bool, missing: str) -> str:
    if native and not missing:
        return "launches need no compiler; Triton can compile what no artifact has"
    if native:
        return f"launches need no compiler; Triton cannot launch what no artifact has ({missing})"
    if missing:
        return f"nothing can be launched: {missing}, and gdn_aot.triton_internals._launch is not there"
    return "gdn_aot.triton_internals._launch is not there, so Triton compiles a launcher for each kernel"


def read_hooks() -> Hooks:
    """Look for what installs the loader in serving processes, and whether it is installed in this one."""
    loader = sys.modules.get("gdn_aot.serving.loader")
    entries = importlib.metadata.entry_points()
    plugins = []
    for host, group, variable in _HOSTS:
        values = [entry.value for entry in entries.select(group=group, name=_PLUGIN)]
        chosen = os.environ.get(variable)
        plugins.append(
            Plugin(
                host=host,
                host_version=installed.version(host),
                group=group,
                installed=bool(values),
                value=values[0] if values else None,
                variable=variable,
                filter=chosen,
                left_out=_left_out(host, chosen),
            )
        )
    return Hooks(
        active=loader is not None and loader.state().active,
        automatic="gdn_aot.auto" in sys.modules,
        plugins=tuple(plugins),
    )


def _left_out(host: str, chosen: str | None) -> bool:
    """Read the allow-list as ``load_plugins_by_group`` of vLLM and SGLang do; only to SGLang is an empty one none."""
    if chosen is None or (host == "sglang" and not chosen):
        return False
    names = chosen.split(",")
    return _PLUGIN not in (names if host == "vllm" else [name.strip() for name in names])

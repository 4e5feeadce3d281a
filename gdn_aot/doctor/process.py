"""What surrounds the loader in a process started here: versions, settings, compiler, and what would install it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

from gdn_aot._version import __version__
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.doctor.section import make_section
from gdn_aot.errors import UnsupportedTritonError
from gdn_aot.machine import installed
from gdn_aot.machine.variables import changed_code_variable
from gdn_aot.providers.sglang.engine import release
from gdn_aot.serving import log
from gdn_aot.serving.settings import read_settings
from gdn_aot.triton_internals import check_version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from gdn_aot.doctor.section import Section

_PLUGIN = "gdn_aot"
"""Name of our entry points, by which the variables in `_HOSTS` select them."""
_HOSTS = (("vllm", "vllm.general_plugins", "VLLM_PLUGINS"), ("sglang", "sglang.srt.plugins", "SGLANG_PLUGINS"))
"""Distribution, group of entry points, and the variable that holds the names of those to load."""
_FIRST_WITH_PLUGINS = {"sglang": "0.5.11"}
"""Distribution -> the first release that loads plugins, where known ones do not."""
_WITHOUT_PLUGINS = {"sglang": "; with --use-ray its schedulers load no plugins: docs/how-to/sglang.md"}
"""Distribution -> what is said of starts that never load plugins, in any release."""
_MEANINGS = {
    (True, True): "launches need no compiler; Triton can compile what no artifact has",
    (True, False): "launches need no compiler; Triton cannot launch what no artifact has ({})",
    (False, False): "nothing can be launched: {}, and gdn_aot.triton_internals._launch is not there",
    (False, True): "gdn_aot.triton_internals._launch is not there, so Triton compiles a launcher for each kernel",
}
"""By whether our launcher is there, and a compiler with Python's headers."""


_INDUCTOR = "the backend inductor, the default, compiles"
_WAY_OUT = "docs/how-to/compiled.md has it served"


def read_versions() -> Section:
    """Look versions up where the loader does: null for a distribution that is not installed."""
    triton = installed.version("triton")
    problem = _triton_problem(triton)
    facts = {
        "gdn_aot": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "triton": triton,
        "triton_problem": problem,
        **{name: installed.version(name) for name in ("torch", "zstandard", "huggingface_hub")},
        "providers": {info.distribution: installed.version(info.distribution) for info in PROVIDERS.values()},
    }
    hint = "install a supported Triton: see docs/reference/coverage.md"
    return make_section("versions", facts, [(problem, hint)] if problem else ())


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


def read_environment(*, old: bool = False) -> Section:
    """Read the loader's settings with its own functions, and variables of Triton's that matter to it.

    ``old``: the first device is of before sm_80.

    ``problems`` are settings that cannot be understood and are ignored. ``changed_code_variable`` names a variable by
    which the user changes what Triton compiles: with it set the loader serves nothing.
    """
    problems: list[str] = []
    settings = read_settings(problems)
    if settings.log and log.level_of(settings.log) is None:
        problems.append(f"GDN_AOT_LOG={settings.log} is no level of Python's logging")
    changed = changed_code_variable(ieee=old)
    facts = {
        **{name: getattr(settings, name) for name in ("enabled", "home", "artifact", "strict", "on_miss", "log")},
        "problems": tuple(problems),
        "triton_cache_dir": os.environ.get("TRITON_CACHE_DIR") or None,
        "changed_code_variable": changed,
    }
    obstacles = []
    if not settings.enabled:
        obstacles.append(("GDN_AOT=0 switches the loader off", "unset GDN_AOT"))
    if changed:
        obstacles.append((f"{changed} is set, which changes what Triton compiles", f"unset {changed}"))
    return make_section("settings", facts, obstacles)


def read_compiler() -> Section:
    """Look for a compiler as ``triton/runtime/build.py`` does, and import our launcher, which stands in for it."""
    command = os.environ.get("CC")
    path = shutil.which(command if command is not None else "gcc")
    if path is None and command is None:
        path = shutil.which("clang")
    scheme = sysconfig.get_default_scheme()
    include = sysconfig.get_paths(scheme="posix_prefix" if scheme == "posix_local" else scheme)["include"]
    headers = os.path.isfile(f"{include}/Python.h")
    problem = ""
    try:
        importlib.import_module("gdn_aot.triton_internals._launch")
    except ImportError as error:
        problem = str(error) or type(error).__name__
    lacks = f"CC={command}, which is not there" if command is not None else "no gcc and no clang"
    missing = lacks if path is None else "" if headers else f"no Python.h in {include}"
    native = not problem
    can_launch, meaning = native or not missing, _MEANINGS[native, not missing].format(missing)
    facts = {
        "path": path,
        "headers": headers,
        "native_launcher": native,
        "native_problem": problem,
        "can_launch": can_launch,
        "meaning": meaning,
    }
    hint = "install gdn-aot from its wheel, which has the launcher, or a C compiler and Python's headers"
    return make_section("compiler", facts, () if can_launch else [(meaning, hint)])


def read_hooks(served: Collection[str] = ()) -> Section:
    """Look for what installs the loader in serving processes, and whether it is installed in this one.

    A served distribution that is here and would not load the plugin is in the way, unless every Python installs it.
    """
    loader = sys.modules.get("gdn_aot.serving.loader")
    active, automatic = loader is not None and loader.state().active, "gdn_aot.auto" in sys.modules
    plugins = [_plugin(*host) for host in _HOSTS]
    own = [info for info in PROVIDERS.values() if info.inductor and info.distribution in served]
    rows: list[tuple[str, object]] = [
        ("every Python", "gdn_aot.auto, by sitecustomize or a .pth file" if automatic else "no"),
        *((f"{plugin['host']} {plugin['host_version'] or '(not installed)'}", _shown(plugin)) for plugin in plugins),
        ("else", "import gdn_aot.auto, or call gdn_aot.install(), in the serving process"),
        *(("torch.compile", f"{_INDUCTOR} {info.inductor} of {info.distribution} itself; {_WAY_OUT}") for info in own),
    ]
    asked = () if active or automatic else [plugin for plugin in plugins if plugin["host"] in served]
    obstacles = [obstacle for plugin in asked if plugin["host_version"] for obstacle in _unloaded(plugin)]
    facts = {
        "active": active,
        "automatic": automatic,
        "plugins": plugins,
        "compiled_by_inductor": {info.distribution: info.inductor for info in own},
    }
    return make_section("hooks", facts, obstacles, rows)


def _plugin(host: str, group: str, variable: str) -> dict[str, Any]:
    values = [entry.value for entry in importlib.metadata.entry_points(group=group, name=_PLUGIN)]
    chosen = os.environ.get(variable)
    return {
        "host": host,
        "host_version": installed.version(host),
        "group": group,
        "installed": bool(values),
        "value": next(iter(values), None),
        "variable": variable,
        "filter": chosen,
        "left_out": _left_out(host, chosen),
        "too_old": _too_old(host),
    }


def _too_old(host: str) -> bool:
    first, here = _FIRST_WITH_PLUGINS.get(host), installed.version(host)
    return first is not None and here is not None and release(here) < release(first)


def _left_out(host: str, chosen: str | None) -> bool:
    """Read the allow-list as ``load_plugins_by_group`` of vLLM and SGLang do; only to SGLang is an empty one none."""
    if chosen is None or (host == "sglang" and not chosen):
        return False
    names = chosen.split(",")
    return _PLUGIN not in (names if host == "vllm" else [name.strip() for name in names])


def _shown(plugin: dict[str, Any]) -> str:
    if plugin["too_old"]:
        return f"it loads no plugins; {_FIRST_WITH_PLUGINS[plugin['host']]} is the first release that does"
    left_out = f"; {plugin['variable']}={plugin['filter']} leaves gdn_aot out" if plugin["left_out"] else ""
    if plugin["installed"]:
        without = _WITHOUT_PLUGINS.get(plugin["host"], "")
        return f"entry point {plugin['value']} of {plugin['group']}{left_out}{without}"
    return f"no entry point gdn_aot of {plugin['group']} is installed{left_out}"


def _unloaded(plugin: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield why an engine would not install the loader in its processes, and what to do."""
    engine = f"{plugin['host']} {plugin['host_version']}"
    if plugin["too_old"]:
        first = _FIRST_WITH_PLUGINS[plugin["host"]]
        what = f"{engine} loads no plugins ({first} is the first release that does), so that it does not load gdn_aot"
        yield what, "import gdn_aot.auto in every Python by a .pth file, or seed a Triton cache: docs/how-to/sglang.md"
        return
    if not plugin["installed"]:
        what = f"{engine} finds no entry point gdn_aot of {plugin['group']}, so that it does not load it"
        yield what, "pip install gdn-aot into its environment; a source tree on the path has no entry points"
    if plugin["left_out"]:
        what = f"{plugin['variable']}={plugin['filter']} leaves gdn_aot out, so that {engine} does not load it"
        yield what, f"add gdn_aot to {plugin['variable']}, or unset it"

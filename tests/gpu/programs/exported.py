"""Plain FLA, and what its autotuners came to; which files it reads is for the environment to say."""

import sys
from typing import Any

from gpu import calls

from gdn_aot.triton_internals.observing import config_fields


def autotuners() -> dict[str, Any]:
    """Return FLA's autotuners by ``module:qualname`` of their kernel."""
    from triton.runtime.autotuner import Autotuner

    found = {}
    for module in [item for name, item in sys.modules.items() if name.startswith("fla.")]:
        for value in list(vars(module).values()):
            kernel = value
            while kernel is not None and not isinstance(kernel, Autotuner):
                kernel = (
                    getattr(kernel, "fn", None) if type(kernel).__module__.startswith(("triton.", "fla.")) else None
                )
            if kernel is not None:
                function = kernel.base_fn
                found[f"{function.__module__}:{function.__qualname__}"] = kernel
    return found


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Make the sample calls; return which kernels were benchmarked and which configuration each key has."""
    del options
    watch = calls.Watch()
    results = calls.sample_calls()
    calls.synchronize()
    used = {
        name: [
            [list(key), {**config_fields(config), "kwargs": dict(config.kwargs)}]
            for key, config in kernel.cache.items()
        ]
        for name, kernel in autotuners().items()
    }
    return {
        "benchmarked": sorted(set(watch.benchmarked)),
        "used": {name: entries for name, entries in used.items() if entries},
        "finite": all(bool(value.isfinite().all()) for value in results.values()),
        "loader_active": "gdn_aot.serving.loader" in sys.modules,
    }


if __name__ == "__main__":
    calls.finish(main)

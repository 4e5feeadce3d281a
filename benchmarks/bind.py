"""Write into tuning records what source their kernels have, as the installed provider has it.

    python benchmarks/bind.py artifacts/tuning/*/*.json artifacts/tuning/*/*/*.json

Nothing is measured or traced. Only digests that a record lacks are written: one that is there says what was measured,
and if what is installed differs, that is said and the exit code is 1. A record of a release that is not installed here
is left, with a line: run this again where that release is.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from msgspec.structs import replace

from gdn_aot.machine import installed
from gdn_aot.records import tuning


def digests(provider: str, target: str, names: list[str]) -> dict[str, str]:
    """Return the digest of each kernel as a build for a target has it; needs a process of its own."""
    from gdn_aot import providers, triton_internals
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.tracing import stub
    from gdn_aot.tracing.recorder import describe_kernel

    stub.activate(get_target(target))
    providers.load(provider)
    found = {}
    for name in names:
        module, _, qualname = name.partition(":")
        kernel = getattr(importlib.import_module(module), qualname)
        found[name] = describe_kernel(triton_internals.layers(kernel)[0]).digest
    return found


def main() -> None:
    """Bind the records that are named to the sources of their release."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", type=Path)
    differ = 0
    for path in parser.parse_args().records:
        record = tuning.FORM.parse(path.read_bytes(), name=str(path))
        said = record.provider
        if installed.version(said.distribution) != said.version:
            print(f"{path}: left, {said.distribution} {said.version} is not installed here")
            continue
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            names = [kernel.kernel for kernel in record.kernels]
            found = process.submit(digests, said.name, record.target, names).result()
        kernels = tuple(
            kernel if kernel.digest else replace(kernel, digest=found[kernel.kernel]) for kernel in record.kernels
        )
        added = sum(old != new for old, new in zip(record.kernels, kernels, strict=True))
        others = [kernel.kernel for kernel in kernels if kernel.digest != found[kernel.kernel]]
        print(f"{path}: {added} digests added; {len(others)} not as installed", *others)
        differ += len(others)
        if added:
            tuning.save(replace(record, kernels=kernels), path)
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()

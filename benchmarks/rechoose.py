"""Make the choices of tuning records anew from the times that they hold, after the rule of choosing has changed.

    python benchmarks/rechoose.py artifacts/tuning/*/*.json artifacts/tuning/proxy/*/*.json

Nothing is measured. It says of each record how many choices are others now. Run ``gdn-aot check`` again for those:
numerics records hold what was checked by choice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from msgspec.structs import replace

from gdn_aot.records import tuning
from gdn_aot.records.verdict import chosen_again


def main() -> None:
    """Rewrite the records that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", type=Path)
    for path in parser.parse_args().records:
        record = tuning.FORM.parse(path.read_bytes(), name=str(path))
        kernels = tuple(
            replace(kernel, choices=tuple(chosen_again(kernel, one, record.objective) for one in kernel.choices))
            for kernel in record.kernels
        )
        pairs = [
            (old.chosen, new.chosen)
            for before, after in zip(record.kernels, kernels, strict=True)
            for old, new in zip(before.choices, after.choices, strict=True)
        ]
        tuning.save(replace(record, kernels=kernels), path)
        print(f"{path}: {sum(old != new for old, new in pairs)} of {len(pairs)} choices are others")


if __name__ == "__main__":
    main()

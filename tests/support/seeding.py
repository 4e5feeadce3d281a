"""What tests of ``gdn-aot seed`` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers import Done, expect_error

from gdn_aot.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def fails(*arguments: object, capfd: pytest.CaptureFixture[str], code: int, kind: str) -> dict[str, str]:
    """Run a seed in this process that must be refused; check the error on both streams and return it."""
    result = main.run(["seed", *map(str, arguments), "--json"])
    caught = capfd.readouterr()
    return expect_error(Done(result, caught.out, caught.err), code, kind)

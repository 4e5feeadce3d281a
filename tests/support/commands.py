"""Commands that are refused, and the files that commands leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers import expect_error, gdn_aot

if TYPE_CHECKING:
    from pathlib import Path


def refused(*arguments: object, home: Path, code: int, kind: str, **options: Any) -> dict[str, Any]:
    """Run a command that must be refused; check the error on both streams and return it."""
    return expect_error(gdn_aot(*arguments, "--json", home=home, code=None, **options), code, kind)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

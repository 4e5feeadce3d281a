"""Commands that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers import expect_error, gdn_aot

if TYPE_CHECKING:
    from pathlib import Path


def refused(*arguments: object, home: Path, code: int, kind: str, **options: Any) -> dict[str, str]:
    """Run a command that must be refused; check the error on both streams and return it."""
    return expect_error(gdn_aot(*arguments, "--json", home=home, code=None, **options), code, kind)

"""The command line in this process, commands that are refused, and the files that commands leave."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Done, expect_error, gdn_aot

from gdn_aot.cli import main


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run ``gdn-aot`` here and check its exit code."""

    def command(*arguments: object, code: int = 0) -> Done:
        result = main.run([*map(str, arguments)])
        done = Done(result, *capfd.readouterr())
        assert done.code == code, done.err
        return done

    return command


def refused(*arguments: object, home: Path, code: int, kind: str, **options: Any) -> dict[str, Any]:
    """Run a command that must be refused; check the error on both streams and return it."""
    return expect_error(gdn_aot(*arguments, "--json", home=home, code=None, **options), code, kind)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

"""The command line in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers import Done

from gdn_aot.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run ``gdn-aot`` here and check its exit code."""

    def command(*arguments: object, code: int = 0) -> Done:
        result = main.run([*map(str, arguments)])
        done = Done(result, *capfd.readouterr())
        assert done.code == code, done.err
        return done

    return command

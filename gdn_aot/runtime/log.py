"""The loader's messages: the logger ``gdn_aot``, and each thing said once per process.

``logging`` is imported when something is said, not before: a process that is served as planned says nothing.
"""

from __future__ import annotations

import sys

_NAME = "gdn_aot"
_said: set[str] = set()
_wanted = False
"""A level was set, so that what is below a warning may be heard too."""


def warn(message: str) -> None:
    """Say once what the user should know: something is not served from the artifact."""
    _once("warning", message)


def info(message: str) -> None:
    """Say once what happened as planned."""
    if _wanted or "logging" in sys.modules:
        _once("info", message)


def detail(error: BaseException) -> None:
    """Show where an error came from, at level debug."""
    import logging

    logging.getLogger(_NAME).debug("the error was", exc_info=error)


def _once(level: str, message: str) -> None:
    import logging

    if message not in _said:
        _said.add(message)
        getattr(logging.getLogger(_NAME), level)(message)


def level_of(name: str) -> int | None:
    """Return the level of Python's logging that a name stands for, or None."""
    import logging

    level = logging.getLevelName(name.upper())
    return level if isinstance(level, int) else None


def set_level(name: str) -> bool:
    """Send messages of this level and above to stderr; return False if there is no such level."""
    import logging

    level = level_of(name)
    if level is None:
        return False
    global _wanted  # noqa: PLW0603
    _wanted = True
    logger = logging.getLogger(_NAME)
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("gdn-aot: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    return True

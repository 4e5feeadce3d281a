"""The loader's messages: the logger ``gdn_aot``, and each thing said once per process."""

from __future__ import annotations

import logging

logger = logging.getLogger("gdn_aot")
_said: set[str] = set()


def once(level: int, message: str) -> None:
    """Log a message unless this process did so before."""
    if message not in _said:
        _said.add(message)
        logger.log(level, message)


def warn(message: str) -> None:
    """Say once what the user should know: something is not served from the artifact."""
    once(logging.WARNING, message)


def info(message: str) -> None:
    """Say once what happened as planned."""
    once(logging.INFO, message)


def set_level(name: str) -> bool:
    """Send messages of this level and above to stderr; return False if there is no such level."""
    level = logging.getLevelName(name.upper())
    if not isinstance(level, int):
        return False
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("gdn-aot: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    return True

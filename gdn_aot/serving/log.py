"""The loader's messages: the logger ``gdn_aot``, or one of an engine's, and each thing said once per process.

``logging`` is imported when something is said, not before: a process that is served as planned says nothing.
"""

from __future__ import annotations

import sys

from gdn_aot._text import shown

_name = "gdn_aot"
_prefix = ""
"""Before each message, where the logger is one of an engine's, whose format does not name us."""
_said: set[str] = set()
_LONGEST = 2000
"""Characters of a message: it may repeat text that is not ours."""
_wanted = False
"""A level was set, so that what is below a warning may be heard too."""
_kept: list[tuple[str, str]] | None = None
"""What is to be said when the engine has set up its logging, or None where that is not waited for."""


def send_to(logger: str) -> None:
    """Send messages from here on to a logger of an engine, whose settings then apply, with our name before each.

    What is only of interest to who looks for it goes there at level debug, unless ``GDN_AOT_LOG`` asks for a level:
    engines show everything that is info.
    """
    global _name, _prefix
    _name, _prefix = logger, "gdn-aot: "


def warn(message: str) -> None:
    """Say once what the user should know: something is not served from the artifact."""
    _once("warning", message)


def notice(message: str) -> None:
    """Say once what each user of an engine should see of what happened as planned."""
    if _wanted or "logging" in sys.modules:
        _once("info", message)


def info(message: str) -> None:
    """Say once what happened as planned."""
    if _wanted or "logging" in sys.modules:
        _once("debug" if _prefix and not _wanted else "info", message)


def detail(error: BaseException) -> None:
    """Show where an error came from, at level debug."""
    try:
        import logging

        logging.getLogger(_name).debug("%sthe error was", _prefix, exc_info=error)
    except Exception:  # noqa: BLE001, S110 - as below
        pass


def keep() -> None:
    """Keep what is no warning until `release`, as long as there is no handler that could show it."""
    global _kept  # noqa: PLW0603
    _kept = _kept or []


def release() -> None:
    """Say what was kept, and keep nothing more."""
    global _kept
    kept, _kept = _kept or [], None
    for level, message in kept:
        _say(level, message)


def _once(level: str, message: str) -> None:
    if message in _said:
        return
    _said.add(message)
    _say(level, message)


def _say(level: str, message: str) -> None:
    try:
        import logging

        logger = logging.getLogger(_name)
        if _kept is not None and level != "warning" and not logger.hasHandlers():
            _kept.append((level, message))
            return
        # the engine's format may name file and line: those of who says it
        getattr(logger, level)("%s%s", _prefix, shown(message, _LONGEST), stacklevel=4)
    except Exception:  # noqa: BLE001, S110 - a handler or a logger of the host's that fails must not fail the host
        pass


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
    logger = logging.getLogger(_name)
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        ours = "%(levelname)s %(message)s" if _prefix else "gdn-aot: %(levelname)s: %(message)s"
        handler.setFormatter(logging.Formatter(ours))
        logger.addHandler(handler)
        logger.propagate = False
    return True

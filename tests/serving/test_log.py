"""Messages never fail the process that they are said in."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from gdn_aot.serving import log


@pytest.fixture(autouse=True)
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A logger of an engine, that propagates to none of pytest's handlers."""
    fresh = {"_name": "engine.gdn_aot", "_prefix": "gdn-aot: ", "_said": set(), "_wanted": False, "_kept": None}
    for name, value in fresh.items():
        monkeypatch.setattr(log, name, value)
    logger = logging.getLogger("engine.gdn_aot")
    logger.propagate, before = False, logger.propagate
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield logger
    logger.propagate = before
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def say() -> None:
    log.warn("100 % of what is said, {curly} %s")
    log.notice("a notice")
    log.info("an information")
    log.detail(ValueError("an error"))


def test_what_is_said(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    say()
    assert stream.getvalue() == "gdn-aot: 100 % of what is said, {curly} %s\n"


def test_what_waits_for_the_logging_of_an_engine(logger: logging.Logger) -> None:
    """A warning does not, and nothing does that somebody shows already."""
    stream = io.StringIO()
    logger.handlers.clear()  # pytest has its own there
    log.keep()
    say()
    logger.addHandler(logging.StreamHandler(stream))
    logger.setLevel(logging.INFO)
    log.notice("another notice")
    log.release()
    say()
    assert stream.getvalue() == "gdn-aot: another notice\ngdn-aot: a notice\n"


def test_a_handler_that_raises(logger: logging.Logger) -> None:
    class Raising(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError(record)

    logger.addHandler(Raising())
    logger.setLevel(logging.DEBUG)
    say()


def test_ctrl_c_in_a_handler_is_not_held_back(logger: logging.Logger) -> None:
    class Raising(logging.Handler):
        def handle(self, _record: logging.LogRecord) -> bool:
            raise KeyboardInterrupt

    logger.addHandler(Raising())
    with pytest.raises(KeyboardInterrupt):
        say()


def test_a_logger_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine's own, whose methods take a message alone."""
    with monkeypatch.context() as patched:
        patched.setattr(logging, "getLogger", lambda _: object())
        say()


@pytest.mark.parametrize("closed", [False, True])
def test_no_stderr(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    say()
    log._said.clear()
    assert log.set_level("debug")
    say()

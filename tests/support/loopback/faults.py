"""Faults: what goes wrong, with which request, and how often."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loopback.exchange import Request


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an error instead of doing anything."""

    status: int
    message: str = "the loopback hub was told to refuse this"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """Answer, but close the connection after so many bytes of body; -1: before the first byte of the answer.

    ``reset`` closes it with a TCP reset instead of an orderly end. What the request asks for has been done.
    """

    after: int = -1
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """Send a body of the right length with wrong bytes: every bit of the middle byte is turned over."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve this content instead, with headers that fit it."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Stall:
    """Be silent for so many seconds: before the answer, or after so many bytes of its body."""

    seconds: float
    after: int = -1


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the body in pieces of so many bytes with a pause, in seconds, before each."""

    piece: int
    pause: float


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Call something before the request is worked on: what somebody else does at that moment."""

    action: Callable[[], object]


Fault = Refuse | Cut | Damage | Serve | Stall | Drip | Meanwhile


@dataclass(slots=True, kw_only=True)
class Rule:
    """A fault and the requests it strikes.

    Args:
        method: Regular expression that the whole method matches.
        path: Regular expression found in the decoded path, which starts with ``/storage/`` on the storage server.
        fault: What happens.
        times: So many are struck; None: all.
    """

    method: str
    path: str
    fault: Fault
    times: int | None = 1
    struck: int = 0

    def fits(self, method: str, path: str) -> bool:
        """Return whether it is about a request, used up or not."""
        return bool(re.fullmatch(self.method, method) and re.search(self.path, path))


class Faults:
    """The rules in force. The first one that fits a request and is not used up strikes it."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, rule: Rule) -> Rule:
        """Put a rule in force and return it; its ``struck`` says how often it did."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Take all rules out of force."""
        with self._lock:
            self._rules.clear()

    def strike(self, request: Request) -> Fault | None:
        """Return what happens to a request, and count it."""
        with self._lock:
            for rule in self._rules:
                if rule.fits(request.method, request.path) and rule.struck != rule.times:
                    rule.struck += 1
                    return rule.fault
        return None

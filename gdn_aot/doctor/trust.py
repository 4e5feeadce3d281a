"""Whose artifacts are used here, and which keyrings say so."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot.doctor.section import make_section
from gdn_aot.machine.owners import TRUST, policy
from gdn_aot.trust.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.doctor.section import Section
    from gdn_aot.trust.survey import Found

_WORDS = {
    "owner": "signed artifacts, and files that only root or this user may have written",
    "signed": "signed artifacts only",
    "any": "every artifact, whoever wrote it",
}


def read_trust(home: str) -> Section:
    """Return the policy and the keyrings that are known here. Nothing expires: their age is only told."""
    found = survey(home)
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    facts = {"policy": policy(), "keyrings": [_facts(one, today) for one in found]}
    return make_section("trust", facts, [_obstacle(one) for one in found if one.problem], _rows(found, today))


def _obstacle(one: Found) -> tuple[str, str]:
    if one.repo:
        return f"the keyring {one.path} is refused: {one.problem}", "put it there again: gdn-aot keys add"
    return f"{one.path}, a place of keyrings: {one.problem}", "let this user read it, and nobody else write it"


def _facts(one: Found, today: dt.date) -> dict[str, object]:
    keyring = one.signed.keyring if one.signed else None
    return {
        "repository": one.repo,
        "source": one.source,
        "path": one.path,
        "version": keyring.version if keyring else None,
        "created": keyring.created if keyring else None,
        "days": _days(keyring.created, today) if keyring else None,
        "revoked_keys": sum(key.revoked for key in keyring.keys) if keyring else None,
        "revoked_artifacts": len(keyring.revoked) if keyring else None,
        "counts": one.counts,
        "problem": one.problem,
    }


def _days(created: str, today: dt.date) -> int | None:
    try:
        return (today - dt.date.fromisoformat(created)).days
    except ValueError:
        return None


def _rows(found: list[Found], today: dt.date) -> Iterator[tuple[str, object]]:
    yield TRUST, f"{policy()}: {_WORDS[policy()]}"
    if not found:
        yield "keyrings", "none: no signature counts here"
    for one in found:
        if one.signed is None:
            yield "keyring", f"{one.path}: {'refused: ' if one.repo else ''}{one.problem}"
            continue
        keyring = one.signed.keyring
        days = _days(keyring.created, today)
        age = f", {plural(days, 'day')} old" if days is not None and days >= 0 else ""
        gone = sum(key.revoked for key in keyring.keys), len(keyring.revoked)
        revoked = f"; {plural(gone[0], 'key')} and {plural(gone[1], 'artifact')} revoked" if any(gone) else ""
        state = "" if one.counts else "; a newer one counts"
        version = f"version {keyring.version} of {keyring.created}{age}"
        yield "keyring", f"{keyring.repo}: {version}, {one.source}{revoked}{state}"

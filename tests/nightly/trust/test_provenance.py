"""Every bit of a real bundle, flipped."""

import pytest
from provenances import BUNDLE, flips, free

from gdn_aot.trust import provenance


def test_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    known = provenance._verifier()
    monkeypatch.setattr(provenance, "_verifier", lambda: known)
    count, found = flips(1)
    assert count == 8 * len(BUNDLE) > 80_000
    assert found <= free()

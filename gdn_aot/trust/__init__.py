"""Who made an artifact: statements that publishers sign, and the keyrings that say whose signature counts."""

MAX_ENVELOPE = 256 << 10
"""Bytes of one file with a signed statement or a keyring."""

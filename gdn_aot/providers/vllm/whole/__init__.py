"""vLLM's engine as a whole, without a card: its scheduler, runner and layers launch what a deployment launches."""

RELEASES = ("0.24.0",)
"""Releases of vLLM whose engine was read and run for this; parts of it are others in each."""

"""vLLM's engine as a whole, without a card: its scheduler, runner and layers launch what a deployment launches."""

RELEASES = ("0.24.0", "0.27.1", "0.33.0")
"""Releases of vLLM whose engine was read and run for this; parts of it are others in each."""
WHOLE = ("0.24.0",)
"""Those of them of which drafts, LoRA, quantized weights, prefix caching and block sizes, too, were read and run."""

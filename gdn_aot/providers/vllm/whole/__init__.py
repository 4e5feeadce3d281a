"""vLLM's engine as a whole, without a card: its scheduler, runner and layers launch what a deployment launches."""

from gdn_aot.errors import DeploymentError

HINT = "record a running engine with gdn-aot capture, and build with --capture"
"""What to do about a deployment that is refused."""
RELEASES = ("0.24.0", "0.27.1", "0.33.0")
"""Releases of vLLM whose engine was read and run for this; parts of it are others in each."""
WHOLE = ("0.24.0",)
"""Those of them of which drafts, LoRA, quantized weights, prefix caching and block sizes, too, were read and run."""
CACHED = ("0.33.0",)
"""Those of them whose second model runner was run with prefix caching."""


def refused(what: str) -> DeploymentError:
    """Return the refusal of a deployment that has something whose kernels are not known."""
    return DeploymentError(f"kernels of deployments with {what} are not enumerated", hint=HINT)

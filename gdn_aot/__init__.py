"""Ahead-of-time compiled and tuned Triton kernels for Gated Delta Net models.

Importing this package loads neither torch nor triton.
"""

from gdn_aot._version import __version__

__all__ = ["__version__"]

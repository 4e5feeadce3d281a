"""What artifacts, their files and workloads of one deployment are called. Serving processes import it: it is light."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
"""The format version of manifests that is written, and the only one read."""
SUFFIX = ".tar.zst"
"""End of the name of an artifact's file."""
SIGNATURE = ".sig.json"
"""In place of `SUFFIX`: end of the name of the file beside it that has what its publisher signed."""
MAX_IDENTIFIER = 200
"""Characters of an identifier: with what is added to it, it is still the name of a file."""
MAX_FILE = 128 << 20
"""Bytes of an artifact file, which is read into memory."""
MAX_MANIFEST = 32 << 20
"""Bytes of a manifest."""
MAX_BLOB = 4 << 20
"""Bytes of one blob. The largest GDN cubin seen has 484,000, for sm_70."""
MAX_HEADER, MAX_MODULES = 1 << 20, 1000
"""Bytes of what identifies an artifact in a store, and modules that it has kernels of."""
MAX_CHOICES = 4096
"""Choices, or candidates, of one kernel in a file. The most that a kernel has in an artifact for every model is 884."""
MAX_PLACED, MAX_PLACED_FILES = 64 << 10, 100
"""Bytes of one file that is put in place, and how many an artifact has. vLLM's of a model class have 900 bytes."""
CONFIG_BOUNDS = {"num_warps": (1, 32), "num_stages": (0, 16), "num_ctas": (1, 16), "maxnreg": (1, 255)}
"""Least and most of the numbers of a configuration; of warps, a power of two. ``maxnreg`` may be None."""
CAPTURE = "capture-"
"""Beginning of the workload that stands for a capture; the rest is from the digest of what was captured."""
DEPLOYMENT = "deployment-"
"""Beginning of the workload that stands for a deployment that was described; the rest is from its digest."""


def beside(file: str, end: str) -> str:
    """Return the path of what lies beside an artifact file under its name, with another end in place of `SUFFIX`."""
    return f"{file.removesuffix(SUFFIX)}{end}"


def is_single(workload: str) -> bool:
    """Say whether a workload stands for one deployment: for a capture of it, or for a description."""
    return workload.startswith((CAPTURE, DEPLOYMENT))


def make_identifier(provider: str, version: str, triton: str, target: str, workloads: Sequence[str] = ()) -> str:
    """Return the identifier of an artifact, for example ``fla0.6.0-triton3.6.0-sm_120``.

    One that was built from a capture, or for a deployment, ends in that workload's name: it may lie beside the one for
    all.
    """
    return "-".join([f"{provider}{version}", f"triton{triton}", target, *filter(is_single, workloads)])


def file_name(identifier: str) -> str:
    """Return the name that an artifact file has."""
    return f"gdn-aot-{identifier}.tar.zst"

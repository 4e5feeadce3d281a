"""The matrix: which artifacts the project publishes, and the environment that each is built in. Data, not code.

``artifacts/matrix.toml`` holds it; ``docs/reference/matrix.md`` says what may be in it. Nothing here imports torch or
triton, nor anything of a provider.
"""

from __future__ import annotations

from gdn_aot.matrix.form import BuildEnvironment, Matrix, MatrixRow
from gdn_aot.matrix.load import DEFAULT, load

__all__ = ["DEFAULT", "BuildEnvironment", "Matrix", "MatrixRow", "load"]

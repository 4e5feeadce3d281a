"""A kernel that its own author refuses to compile."""

import triton
import triton.language as tl


@triton.jit
def never(x):  # noqa: ANN001, ANN201
    tl.static_assert(False, "never for this shape")
    tl.store(x, 1.0)

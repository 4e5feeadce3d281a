"""Environment variables that change what Triton compiles."""

from __future__ import annotations

import os

_OFF = ("", "0", "false", "no", "off")

_CODE_VARIABLES = (
    "ALLOW_LHS_TMEM_LAYOUT_CONVERSION", "DISABLE_LLVM_OPT", "DISABLE_MMA_V3", "DISABLE_MMA_V5", "DISABLE_PTXAS_OPT",
    "LLVM_EXTRACT_DI_LOCAL_VARIABLES", "LLVM_PASS_PLUGIN_PATH", "PTXAS_OPTIONS", "TRITON_ALWAYS_COMPILE",
    "TRITON_ENABLE_ASAN", "TRITON_ENABLE_EXPERIMENTAL_CONSAN", "TRITON_F32_DEFAULT", "TRITON_INSTRUMENTATION_MODE",
    "TRITON_INTERPRET", "TRITON_KERNEL_OVERRIDE", "TRITON_OVERRIDE_ARCH", "TRITON_PLUGIN_PATHS",
    "TRITON_PREFER_TMEM_16x256_LAYOUT", "USE_IR_LOC",
)  # fmt: skip
"""Variables by which a user asks Triton for other code than its defaults make; with one set, ready binaries are not
what was asked for. They are those that ``get_cache_invalidating_env_vars`` of libtriton knows, less those for AMD and
for printing, and those of triton/knobs.py that change code or forbid reuse. ``TRITON_DEFAULT_FP_FUSION`` is one more,
which is on unless it is switched off."""


_IEEE = ("TRITON_F32_DEFAULT", "ieee")


def changed_code_variable(*, ieee: bool = False) -> str | None:
    """Return the name of a variable by which the user changes what Triton compiles, or None.

    ``ieee`` leaves out that products of float32 are asked for as IEEE has them. FLA sets this itself when it is
    imported where the first device is older than sm_80, which has no TF32 (fla/utils/hardware.py), and so it was set
    when its binaries for such devices were made.
    """
    if os.environ.get("TRITON_DEFAULT_FP_FUSION", "1").lower() in _OFF[1:]:
        return "TRITON_DEFAULT_FP_FUSION"
    for name in _CODE_VARIABLES:
        value = os.environ.get(name, "")
        if value.lower() not in _OFF and not (ieee and (name, value) == _IEEE):
            return name
    return None

"""Devices of before Ampere, for which kernels compile for minutes, alone and beside others."""

from typing import Any

import pytest
from builds import PREFILL_AND_DECODE, Built
from devices import nothing_was_made, together

__all__ = ["together"]


def test_a_device_of_before_ampere(together: Any, sm_70: Built) -> None:
    """FLA asks for products as IEEE has them itself when it is imported there, as it did when it was built for it."""
    got = together(
        """
install(strict=True); become("sm_70")
prefill(300, dtype="float16"); decode(dtype="float16")
import os
done(asked=os.environ["TRITON_F32_DEFAULT"])
""",
        sm_70,
    )
    assert got["asked"] == "ieee"
    assert nothing_was_made(got)
    assert len(got["report"]["loaded"]) == 7


@pytest.fixture(scope="session")
def sm_90_fp16(build: Any) -> Built:
    made: Built = build("--arch", "sm_90", "--model", "qwen3.5-9b", "--dtype", "fp16", *PREFILL_AND_DECODE)
    return made


@pytest.mark.parametrize("cards", [("sm_90", "sm_70"), ("sm_70", "sm_90")])
def test_globals_that_follow_from_the_first_device(
    together: Any, sm_70: Built, sm_90_fp16: Built, cards: tuple[str, str]
) -> None:
    """One of FLA's kernels reads a global that is set by whether the first device has TF32."""
    code = f"""
install(strict=True); become{cards}
for driver.device in (0, 1):
    prefill(300, dtype="float16"); decode(dtype="float16")
done(devices=devices())
"""
    got = together(code, sm_70, sm_90_fp16)
    assert nothing_was_made(got)
    assert got["devices"] == [0, 1]
    assert got["report"]["refused"] == {}


def test_such_a_global_changed_by_the_user_is_refused(together: Any, sm_70: Built, sm_90_fp16: Built) -> None:
    """The value is that of an artifact that is here, but for a device that is not."""
    got = together(
        """
become("sm_90")
import triton.language as tl
import fla.ops.gated_delta_rule.chunk_fwd as module
module.SOLVE_TRIL_DOT_PRECISION = tl.constexpr("ieee")
install(); prefill(300, dtype="float16"); done()
""",
        sm_70,
        sm_90_fp16,
    )
    assert got["compiled"] == ["chunk_gated_delta_rule_fwd_kkt_solve_kernel"]

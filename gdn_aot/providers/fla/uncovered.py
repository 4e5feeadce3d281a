"""Calls of FLA's operators that no workload covers. Importing this module imports nothing: ``inspect`` shows it."""

from __future__ import annotations

UNCOVERED: tuple[tuple[str, str], ...] = (
    ("scale: an integer other than 1", "a float, 1 and none are covered"),
    ("packed prompts with beta in float32", "dense prompts and decode are covered"),
    ("packed prompts with int32 ends and gate or state in the model's type, or scale 1", "int64 ends are covered"),
    ("packed decode with gate or state in the model's type, beta in float32, or scale 1", "dense decode is covered"),
    ("dense decode with two of these at once", "one is covered"),
    ("dense decode with one of these that has no initial state or returns none", "with both states it is covered"),
    ("prompts that begin with a state in the model's type and return none", "those that return one are covered"),
    ("repeated key heads with any of these, or with decode that has no state or returns none", "--shape covers it"),
    ("repeated key heads in packed prompts that begin with a state", "--shape covers it"),
    ("repeated key heads in prompts that begin with a state and return none", "--shape covers it"),
    ("training with any of the types and scales above", ""),
    ("decode without the L2 norm in the kernel, or with gk or gv", ""),
    ("packed prompts at chunk sizes 16 and 32", "dense ones are covered by --workload small-chunks"),
    ("chunk_indices of another type than cu_seqlens", ""),
    ("tensors that do not begin at a multiple of 16 bytes", ""),
    ("context parallelism: cp_context, FLA_INTRACARD_CP=1", ""),
    ("KDA with chunk_size=32, disable_recompute, return_intermediate_states or use_graph", ""),
    ("KDA with lower_bound but not safe_gate, or safe_gate for decays that the caller made", "FLA's layer has both"),
    ("KDA without A_log or dt_bias where the kernel makes the decay", ""),
    ("KDA by another backend of FLA than Triton, as tilelang or flash_kda", ""),
    ("FLA's layer with use_gate=False or conv_bias=True, or with float32 parameters under autocast", ""),
)
"""What a call has, and what of its kind is covered; a ``--shape`` needs as many key heads as value heads.

Workloads on request are not repeated here."""

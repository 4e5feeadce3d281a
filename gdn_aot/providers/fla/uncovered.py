"""Calls of FLA's operators that no workload covers. Importing this module imports nothing: ``inspect`` shows it."""

from __future__ import annotations

UNCOVERED: tuple[tuple[str, str], ...] = (
    ("an integer other than 1 as scale", "a float, and none, are covered"),
    ("beta in float32 with packed prompts", "covered: with dense prompts, and in decode"),
    ("gate or state in the model's type, or scale 1, with packed prompts whose ends are int32", "covered: int64 ends"),
    ("any of these in a pack of decode steps, or two of them in one decode step", "covered: one of them, dense"),
    ("any of these where key heads are repeated to the value heads", "covered: with --shape of as many key heads"),
    ("a state that begins a pack, or is not returned, where key heads are repeated", "covered: with such a --shape"),
    ("any of these in training", ""),
    ("decode without the L2 norm in the kernel, or with gk or gv", ""),
    ("packed prompts at chunk sizes 16 and 32", "covered: dense ones, with --workload small-chunks"),
    ("chunk_indices of another type than cu_seqlens", ""),
    ("tensors that do not begin at a multiple of 16 bytes", ""),
    ("context parallelism: cp_context, FLA_INTRACARD_CP=1", ""),
    ("FLA's layer with use_gate=False or conv_bias=True, and float32 parameters under autocast", ""),
)
"""What a call has, and what of its kind is covered. Workloads on request are not repeated here."""

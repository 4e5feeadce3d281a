"""Run a layer on tensors without content without moving that content about.

Between its kernels a layer copies, joins and gathers what the kernels made. Where no kernel runs, none of it means
anything, and for a step of 16384 tokens it is most of the work: gigabytes of fresh memory for each layer. Shapes,
strides, dtypes and addresses, which are all that launches follow from, stay those of the real operators.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from gdn_aot import triton_internals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ATEN = torch.ops.aten
_LEAST = 64 << 10
"""Bytes below which the operator itself is as fast, and is run."""
_WRITES = {
    _ATEN.copy_.default,
    _ATEN.fill_.Scalar,
    _ATEN.index_copy_.default,
    _ATEN.index_put_.default,
    _ATEN._index_put_impl_.default,
    _ATEN.zero_.default,
}
"""Operators that write to their first argument and return it."""
_MAKES = {
    _ATEN._to_copy.default,  # noqa: SLF001
    _ATEN.cat.default,
    _ATEN.clone.default,
    _ATEN.index.Tensor,
    _ATEN.index_select.default,
    _ATEN.mul.Tensor,
    _ATEN.new_zeros.default,
    _ATEN.where.self,
    _ATEN.zeros_like.default,
}
"""Operators that return a new tensor, of a shape that no number in any tensor decides, unless it says which to take."""


def contentless() -> contextlib.AbstractContextManager[Any]:
    """Return a block that moves no content under the stand-in driver; on a real device it changes nothing."""
    return Contentless() if triton_internals.stands_in() else contextlib.nullcontext()


class Contentless(TorchDispatchMode):  # type: ignore[misc]
    """In its block, operators that only move or compute content leave floating-point tensors unwritten.

    Integer tensors, which may decide what a layer does, have their content always.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, or return what it would return with content that is no one's."""
        del types
        kwargs = kwargs or {}
        if func.namespace != "aten":
            with self:  # its kernel runs more operators
                return func._op_dk(torch._C.DispatchKey.CPU, *args, **kwargs)  # noqa: SLF001
        if func in _WRITES and _large(args[0]):
            return args[0]
        if func in _MAKES and not kwargs.get("device"):
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            decided = any(tensor.dtype == torch.bool for tensor in tensors) and func is _ATEN.index.Tensor
            if any(map(_large, tensors)) and not decided:
                made = func(*tree_map(_meta, args), **kwargs)
                if made.is_floating_point():
                    return torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device=tensors[0].device)
        return func(*args, **kwargs)


def _large(tensor: torch.Tensor) -> bool:
    return bool(tensor.is_floating_point() and tensor.numel() * tensor.element_size() >= _LEAST)


def _meta(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")

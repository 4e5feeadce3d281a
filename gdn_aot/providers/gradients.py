"""Calls forwards, and backwards where their inputs have the gradients of the results.

Names are those of inputs and results, with `GRADIENT` before them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gdn_aot.reference import GRADIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.reference import Tensors


def through(function: Callable[[Tensors], Tensors], inputs: Tensors) -> Tensors:
    """Return what a function makes of inputs, and backwards the gradients of those inputs that require them."""
    forwards = {name: value for name, value in inputs.items() if not name.startswith(GRADIENT)}
    if len(forwards) == len(inputs):
        with torch.no_grad():
            return function(forwards)
    wanted = {name: value for name, value in forwards.items() if value is not None and value.requires_grad}
    with torch.enable_grad():
        made = function(forwards)
        outs = [value for value in made.values() if value is not None]
        before = [inputs[f"{GRADIENT}{name}"] for name in made]
        found = torch.autograd.grad(outs, list(wanted.values()), before, allow_unused=True)
    results = {name: None if value is None else value.detach() for name, value in made.items()}
    return results | {f"{GRADIENT}{name}": value for name, value in zip(wanted, found, strict=True)}


def kept(inputs: Tensors) -> Tensors:
    """Return copies of inputs from before a call that may write into them, which require gradients as those do."""
    return {
        name: None if value is None else value.detach().clone().requires_grad_(value.requires_grad)
        for name, value in inputs.items()
    }


def exactly(function: Callable[[Tensors], Tensors], inputs: Tensors) -> Tensors:
    """Return the same for a function in float64, of inputs in float64."""
    exact = {
        name: value.detach().double().requires_grad_(value.requires_grad)
        if value is not None and value.is_floating_point()
        else value
        for name, value in inputs.items()
    }
    return through(function, exact)

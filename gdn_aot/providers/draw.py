"""Numbers for the inputs of calls: none at all, or random ones as a model makes them."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import normalize, softplus

from gdn_aot.reference.formulas import gate

_A = (1.0, 16.0)
"""Range of A, and of the time step below, in FLA's layer (``fla/layers/gated_deltanet.py``)."""
_A_OF_BOUNDED = (0.5, 2.0)
"""Range of A around that of ``fla/layers/kda.py`` for bounded gates, which is 1."""
_TIME_STEP = (0.001, 0.1)


class Draw:
    """Where the numbers of a call come from: from nowhere here, the tensors have no content.

    That is enough for launches to have the right keys. Sizes are as for ``torch.empty``, on PyTorch's default device.
    """

    def normal(self, *size: int, dtype: torch.dtype, grad: bool = False) -> torch.Tensor:
        """Return numbers of the standard normal distribution."""
        return torch.empty(size, dtype=dtype, requires_grad=grad)

    def unit(self, *size: int, dtype: torch.dtype, grad: bool = False) -> torch.Tensor:
        """Return vectors of length 1 along the last dimension, but for the rounding to ``dtype``."""
        return torch.empty(size, dtype=dtype, requires_grad=grad)

    def sigmoid(self, *size: int, dtype: torch.dtype, scale: float = 1.0, grad: bool = False) -> torch.Tensor:
        """Return ``scale`` times the sigmoid of standard normal numbers."""
        del scale
        return torch.empty(size, dtype=dtype, requires_grad=grad)

    def log_decay(self, *size: int, grad: bool = False) -> torch.Tensor:
        """Return the float32 logarithm of the decay as a model makes it; the last dimension is that of the heads."""
        return torch.empty(size, dtype=torch.float32, requires_grad=grad)

    def log_decays(self, *size: int, bound: float, dtype: torch.dtype, grad: bool = False) -> torch.Tensor:
        """Return the same of each channel; the last two dimensions are those of heads and channels.

        ``bound`` is the least logarithm of a bounded gate, else 0.
        """
        del bound
        return torch.empty(size, dtype=dtype, requires_grad=grad)

    def log_a(self, heads: int, dtype: torch.dtype, *, bounded: bool = False) -> torch.Tensor:
        """Return the parameter ``A_log`` of a layer, whose gate may be bounded."""
        del bounded
        return torch.empty(heads, dtype=dtype)

    def dt_bias(self, heads: int, dtype: torch.dtype) -> torch.Tensor:
        """Return the parameter ``dt_bias`` of a layer."""
        return torch.empty(heads, dtype=dtype)

    def weight(self, *size: int, dtype: torch.dtype) -> torch.Tensor:
        """Return weights of a norm: normal numbers around 1, with a deviation of 0.1."""
        return torch.empty(size, dtype=dtype)


EMPTY = Draw()


class Random(Draw):
    """Random numbers, the same for the same seed on one kind of device; generator and tensors are on the device."""

    def __init__(self, seed: int, device: str) -> None:
        self._source = torch.Generator(device)
        self._source.manual_seed(seed)
        self._device = device

    def _normal(self, *size: int) -> torch.Tensor:
        return torch.randn(size, generator=self._source, device=self._device)

    def _uniform(self, *size: int) -> torch.Tensor:
        return torch.rand(size, generator=self._source, device=self._device)

    def normal(self, *size: int, dtype: torch.dtype, grad: bool = False) -> torch.Tensor:
        """Return numbers of the standard normal distribution."""
        return self._normal(*size).to(dtype).requires_grad_(grad)

    def unit(self, *size: int, dtype: torch.dtype, grad: bool = False) -> torch.Tensor:
        """Return vectors of length 1, but for the rounding to ``dtype``."""
        return normalize(self._normal(*size), dim=-1).to(dtype).requires_grad_(grad)

    def sigmoid(self, *size: int, dtype: torch.dtype, scale: float = 1.0, grad: bool = False) -> torch.Tensor:
        """Return ``scale`` times the sigmoid of standard normal numbers."""
        return (scale * self._normal(*size).sigmoid()).to(dtype).requires_grad_(grad)

    def log_decay(self, *size: int, grad: bool = False) -> torch.Tensor:
        """Return ``-A softplus(x + dt_bias)`` with a normal x, and A and dt_bias of each head as FLA's layer has."""
        heads = size[-1]
        bias = self.dt_bias(heads, torch.float32)
        decay = -self.log_a(heads, torch.float32).exp() * softplus(self._normal(*size) + bias)
        return decay.requires_grad_(grad)

    def log_decays(self, *size: int, bound: float, dtype: torch.dtype, grad: bool = False) -> torch.Tensor:
        """Return the gate of normal numbers, with A of each head and dt_bias of each channel as FLA's layer has."""
        *_, heads, channels = size
        a_log = self.log_a(heads, torch.float32, bounded=bound < 0)
        decay = gate(self._normal(*size), a_log, self.dt_bias(heads * channels, torch.float32), bound)
        return decay.to(dtype).requires_grad_(grad)

    def log_a(self, heads: int, dtype: torch.dtype, *, bounded: bool = False) -> torch.Tensor:
        """Return logarithms of A, which is uniform in 1 to 16, or, where it scales a sigmoid, in 0.5 to 2."""
        low, high = _A_OF_BOUNDED if bounded else _A
        return torch.log(low + (high - low) * self._uniform(heads)).to(dtype)

    def dt_bias(self, heads: int, dtype: torch.dtype) -> torch.Tensor:
        """Return the inverse softplus of time steps that are log-uniform in 0.001 to 0.1."""
        low, high = map(math.log, _TIME_STEP)
        step = torch.exp(low + (high - low) * self._uniform(heads))
        return (step + torch.log(-torch.expm1(-step))).to(dtype)

    def weight(self, *size: int, dtype: torch.dtype) -> torch.Tensor:
        """Return normal numbers around 1, with a deviation of 0.1."""
        return (1 + 0.1 * self._normal(*size)).to(dtype)

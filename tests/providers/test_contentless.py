"""Operators without content give the tensors of the real ones, and leave all that is not theirs alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from gdn_aot import triton_internals
from gdn_aot.providers.contentless import Contentless, contentless

ROWS = 40000
"""Enough that the operators are not run."""
MAKERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "clone": torch.Tensor.clone,
    "clone of a slice": lambda x: x[:, 1:3].clone(),
    "clone of a transposed": lambda x: x.t().clone(),
    "contiguous": lambda x: x.t().contiguous(),
    "reshape that copies": lambda x: x.t().reshape(-1),
    "cat": lambda x: torch.cat([x, x[:, :1]], dim=-1),
    "cat of two": lambda x: torch.cat((x[None], x[None]), dim=1),
    "other type": lambda x: x.to(torch.bfloat16),
    "gather": lambda x: x.index_select(0, torch.arange(ROWS - 1)),
    "gather by two": lambda x: x[torch.arange(5), torch.arange(5) % 4],
    "rows": lambda x: x[torch.arange(ROWS - 1)],
    "rows that are said": lambda x: x[torch.arange(ROWS) % 3 == 0],
    "product": lambda x: x * 2,
    "zeros": lambda x: x.new_zeros(ROWS, 3),
    "zeros alike": lambda x: torch.zeros_like(x.t()),
    "choice": lambda x: torch.where(torch.ones(ROWS, 1, dtype=torch.bool), x, 0.0),
}


def seen(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.data_ptr() % 16


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_has_the_form_of_what_would_be(name: str) -> None:
    given = torch.ones(ROWS, 4)
    real = MAKERS[name](given)
    with Contentless():
        made = MAKERS[name](given)
    assert seen(made) == seen(real)
    assert made.data_ptr() != given.data_ptr()


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.copy_(torch.zeros_like(x)),
        lambda x: x.zero_(),
        lambda x: x.fill_(3.0),
        lambda x: x.index_copy_(0, torch.tensor([0]), torch.zeros(1, 4)),
        lambda x: x.__setitem__(torch.tensor([0, 2]), torch.zeros(2, 4)),
        lambda x: x.__setitem__(slice(0, ROWS), torch.zeros(ROWS, 4)),
    ],
)
def test_nothing_is_written(write: Callable[[torch.Tensor], object]) -> None:
    tensor = torch.ones(ROWS, 4)
    with Contentless():
        result = write(tensor)
    assert result is None or result is tensor
    assert tensor.eq(1).all()
    write(tensor)
    assert not tensor.eq(1).all()


def test_integers_and_small_tensors_have_their_content() -> None:
    numbers = torch.arange(100000)
    with Contentless():
        assert numbers.clone().equal(torch.arange(100000))
        assert torch.cat([numbers, numbers])[100001] == 1
        assert numbers.mul(2)[3] == 6
        assert numbers.zero_()[3] == 0
        assert torch.ones(5).clone().sum() == 5


def test_views_stay_views() -> None:
    tensor = torch.zeros(ROWS, 4)
    with Contentless():
        assert tensor.view(-1)[4:].data_ptr() == tensor.data_ptr() + 16
        assert tensor.reshape(2, -1).data_ptr() == tensor.data_ptr()
        assert tensor.contiguous() is tensor


@pytest.fixture
def operator() -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    library = torch.library.Library("gdn_aot_test", "FRAGMENT")
    library.define("twice(Tensor x, Tensor(a!) out) -> Tensor")
    library.impl("twice", lambda x, out: out.copy_(torch.cat([x, x])).clone(), "CPU")
    yield lambda x: torch.ops.gdn_aot_test.twice(x, torch.ones(2 * ROWS, 4))
    library._destroy()


def test_operators_of_others_run_and_what_they_run_has_no_content(
    operator: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    tensor, ran = torch.ones(ROWS, 4), []

    class Noting(Contentless):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            ran.append(str(func))
            return super().__torch_dispatch__(func, types, args, kwargs)

    with Noting():
        made = operator(tensor)
    assert seen(made) == seen(operator(tensor))
    names = [name.split(".")[1] for name in ran if "empty" not in name]
    assert names == ["ones", "twice", "cat", "copy_", "clone"]


@pytest.mark.parametrize("stands_in", [True, False])
def test_on_a_real_device_layers_are_run_as_they_are(monkeypatch: pytest.MonkeyPatch, *, stands_in: bool) -> None:
    monkeypatch.setattr(triton_internals, "stands_in", lambda: stands_in)
    tensor = torch.ones(ROWS, 4)
    with contentless():
        tensor.zero_()
    assert tensor.eq(1 if stands_in else 0).all()

"""The numeric gate, on kernels made of PyTorch operations on the CPU: what is found out, and what is let through."""

from collections.abc import Callable

import pytest
import torch

from gdn_aot.measuring import gate


def tensors(*, seed: int = 0, length: int = 300) -> gate.Tensors:
    source = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=source)

    return {
        "x": draw(length, 64).bfloat16(),
        "scale": draw(64),
        "ends": torch.tensor([0, length]),
        "y": torch.zeros(length, 64, dtype=torch.bfloat16),
        "state": draw(64, 64),
    }


def right(a: gate.Tensors) -> None:
    """Write the lower half of the columns of y, and add to the state."""
    a["y"][:, :32] = (a["x"].float() * a["scale"]).bfloat16()[:, :32]
    a["state"] += a["x"].float().T @ a["x"].float() / len(a["x"])


def effects(kernel: Callable[[gate.Tensors], None] = right) -> tuple[gate.Tensors, gate.Effects]:
    made = tensors()
    return made, gate.find_effects(made, lambda: kernel(made))


def objection(made: gate.Tensors, found: gate.Effects, kernel: Callable[[gate.Tensors], None]) -> str | None:
    found.restore()
    found.poison()
    kernel(made)
    return found.objection()


def test_what_a_kernel_writes_is_found() -> None:
    made, found = effects()
    assert set(found.outputs) == {"y", "state"}
    assert found.in_place == {"state"}
    mask = found.kept["y"]
    assert mask is not None
    assert bool(mask[:, 32:].all())
    assert not bool(mask[:, :32].any())
    assert found.kept["state"] is None
    assert made["ends"].tolist() == [0, 300]


def test_what_is_not_written_may_hold_anything() -> None:
    """Memory that nobody filled has numbers that are not finite, too; in what is written none is let through."""
    made = tensors()
    made["y"][:, 32:] = torch.tensor([float("nan"), float("inf")], dtype=torch.bfloat16).repeat(16)
    found = gate.find_effects(made, lambda: right(made))
    assert set(found.outputs) == {"y", "state"}
    assert objection(made, found, right) is None

    def broken(a: gate.Tensors) -> None:
        right(a)
        a["y"][0, 0] = float("nan")

    assert objection(made, found, broken) == "output y has numbers that are not finite"


def test_an_output_that_holds_the_right_value_already_is_found() -> None:
    made = tensors()
    right(made)
    made["state"] = tensors()["state"]
    assert set(gate.find_effects(made, lambda: right(made)).outputs) == {"y", "state"}


def test_zeroed_arguments_are_zeroed_before_each_launch() -> None:
    made = tensors()

    def add(a: gate.Tensors) -> None:
        a["state"] += 1

    found = gate.find_effects(made, lambda: add(made), zeroed=("state", "absent"))
    assert found.in_place == frozenset()
    for _ in range(2):
        found.restore()
        found.poison()
        add(made)
        assert found.objection() is None
    assert bool((made["state"] == 1).all())


def test_the_rest_of_a_call_goes_on_with_the_references_results() -> None:
    made, found = effects()
    found.poison()
    found.finish()
    expected = tensors()
    right(expected)
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_another_order_of_additions_passes() -> None:
    made, found = effects()

    def other(a: gate.Tensors) -> None:
        right(a)
        a["y"][::7, :32] *= 1 + 2**-7  # one spacing of bfloat16 at every seventh row
        a["state"] *= 1 + 2**-12

    assert objection(made, found, other) is None


def last_row_missing(a: gate.Tensors) -> None:
    kept = a["y"][-1].clone()
    right(a)
    a["y"][-1] = kept


def state_not_updated(a: gate.Tensors) -> None:
    a["y"][:, :32] = (a["x"].float() * a["scale"]).bfloat16()[:, :32]


def then(change: Callable[[gate.Tensors], object]) -> Callable[[gate.Tensors], None]:
    """Return a kernel that does what is right, and then something else."""

    def kernel(a: gate.Tensors) -> None:
        right(a)
        change(a)

    return kernel


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (then(lambda a: a["y"][:, :32].mul_(1.02)), "output y is off by"),
        (then(lambda a: a["y"][7, 7].fill_(float("nan"))), "output y has numbers that are not finite"),
        (then(lambda a: a["state"][3, 3].fill_(float("inf"))), "output state has numbers that are not finite"),
        (last_row_missing, "output y leaves 32 elements unwritten"),
        (then(lambda a: a["y"][5, 40].zero_()), "output y writes 1 elements that the reference does not"),
        (lambda _: None, "output y leaves 9600 elements unwritten"),
        (then(lambda a: a["y"][:4, :32].neg_()), "output y is off by"),
        (state_not_updated, "output state is off by"),
    ],
)
def test_a_wrong_candidate_is_named(kernel: Callable[[gate.Tensors], None], reason: str) -> None:
    made, found = effects()
    said = objection(made, found, kernel)
    assert said is not None
    assert said.startswith(reason)
    assert objection(made, found, right) is None, "what one candidate left must not count against the next"


def test_a_wrong_block_shows_among_many() -> None:
    expected = torch.randn(1000 * gate.BLOCK, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = expected.clone()
    found[: gate.BLOCK // 32] *= 1.5
    wrong = (found.float() - expected.float()).norm() / expected.float().norm()
    assert float(wrong) < gate.TOLERANCE[torch.bfloat16], "too small to show in the whole"
    assert "in a block" in (gate.disagreement(found, expected) or "")


def test_a_reference_that_is_random_is_refused() -> None:
    made = tensors()

    def random(a: gate.Tensors) -> None:
        a["y"].normal_()

    with pytest.raises(ValueError, match="other results each time"):
        gate.find_effects(made, lambda: random(made))


def test_integers_must_be_equal() -> None:
    one = torch.arange(10)
    assert gate.disagreement(one.clone(), one) is None
    assert gate.disagreement(one + 1, one) == "differs at 10 elements"

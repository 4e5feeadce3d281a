"""Steps of SGLang's scheduler: cases have every class that traffic has, and a call is the step that it was made of."""

import random

import pytest

from gdn_aot.catalogue.providers import Limits
from gdn_aot.providers.sglang import steps
from gdn_aot.providers.sglang.steps import Deployment, Step

DEPLOYMENTS = tuple(Deployment(state=state, drafts=drafts) for state in steps.STATES for drafts in steps.DRAFTS)
KINDS = {
    "prefill": steps.prefill,
    "decode": steps.decode,
    "mixed": steps.mixed,
    "speculative": steps.speculative,
}


def kind(number: int) -> int:
    return 1 if number == 1 else 16 if number % 16 == 0 else 0


def power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def indices(step: Step) -> tuple[int, int, int]:
    """What the kernel that makes a graph's indices is launched with: the power of the batch, and two classes."""
    return power(step.graph), kind(step.graph), kind(len(step.requests))


def seen(step: Step) -> set[tuple[object, ...]]:
    """What of a step arguments of kernels follow from, apart from the deployment."""
    found: set[tuple[object, ...]] = {("tokens", step.kind, kind(step.tokens))}
    if step.kind == "extend":
        chunks = sum(-(-request.query // steps.CHUNK) for request in step.requests)
        found |= {
            ("chunks", 0 if chunks <= 32 else 1 if chunks <= 128 else 2),
            ("block", min(64, max(16, power(step.tokens)))),
        }
    elif step.graph:
        found.add(("indices", step.kind, *indices(step)))
    elif step.radix and step.kind == "decode":
        found.add(("tracked", max(16, power(step.batch)), kind(step.batch), kind(step.layers), kind(step.slots + 1)))
    if step.kind == "verify":
        found.add(("drafts", power(step.batch * (1 + step.deployment.drafts)), step.batch <= steps.NARROW))
        found.add(("kept", kind(len(step.requests)), step.radix, kind(step.slots + 1), kind(step.scratch + 1)))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_random_steps_have_nothing_that_no_case_has(name: str) -> None:
    for drafts in {"speculative": (1, 2, 3)}.get(name, (0,)):
        made = Deployment(state=steps.STATES[0], drafts=drafts)
        every = [Deployment(state=steps.STATES[0], drafts=1), made]
        cases = [KINDS[name], *[steps.prefill] * (name == "mixed")]  # both are extended alike
        known = set().union(*(seen(step) for one in every for made_of in cases for step in made_of(one)))
        rng = random.Random(7)
        for _ in range(400):
            step = steps.random_step(rng, [made], name, Limits())
            assert seen(step) <= known, step


@pytest.mark.parametrize("name", KINDS)
def test_a_call_is_the_step_that_it_was_made_of(name: str) -> None:
    rng = random.Random(3)
    made = [step for deployment in DEPLOYMENTS for step in KINDS[name](deployment)]
    made += [steps.random_step(rng, DEPLOYMENTS, name, Limits()) for _ in range(50)]
    for step in made:
        assert Step.of(step.call(name)) == step


@pytest.mark.parametrize("name", KINDS)
def test_steps_are_within_the_limits(name: str) -> None:
    rng = random.Random(5)
    for _ in range(200):
        step = steps.random_step(rng, DEPLOYMENTS, name, Limits(max_tokens=300))
        assert step.batch <= steps.DECODE_BATCH
        assert step.kind != "extend" or step.tokens <= 300
        assert not step.merged or step.tokens <= steps.MERGED
        assert step.deployment.drafts or step.kind != "verify"
        for request in step.requests:
            assert not request.tracked or step.radix
            assert step.kind != "extend" or not request.tracked or request.query >= steps.CHUNK
            assert request.accepted < max(1, request.query)


@pytest.mark.parametrize("name", KINDS)
def test_the_pool_with_room_is_the_smallest_that_triton_does_not_tell_from_the_one_before(name: str) -> None:
    made = [step for deployment in DEPLOYMENTS for step in KINDS[name](deployment)]
    for step in made:
        roomy = steps.with_room(step)
        states = len(step.requests) * (1 + step.radix)
        for size, before, least in (
            (roomy.slots, step.slots, states),
            (roomy.scratch, step.scratch, step.batch),
        ):
            kinds = [kind(other + 1) for other in range(least, size + 1)]
            assert kinds.index(kind(before + 1)) == len(kinds) - 1, step

"""Steps of vLLM's scheduler, and the row counts of its gated norm: what needs no vLLM."""

import random
from itertools import pairwise

import pytest

from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.providers.norm_rows import norm_rows
from gdn_aot.providers.vllm import steps as vllm_steps
from gdn_aot.providers.vllm.steps import Deployment, Group, Step

PLAIN = Deployment(state="auto", drafts=0)
DRAFTED = Deployment(state="float32", drafts=2)
CASES = {
    "prefill": vllm_steps.prefill,
    "decode": vllm_steps.decode,
    "mixed": vllm_steps.mixed,
    "speculative": vllm_steps.speculative,
}


def _kinds(v_heads: int, sm_count: int, tokens: int) -> tuple[int, int]:
    """What decides the launch key of the norm: rows of a block, class of the rows; vLLM's formula, written again."""
    rows = tokens * v_heads
    per_block = 1
    while per_block < min(4, -(-rows // (2 * sm_count))):
        per_block *= 2
    return per_block, 1 if rows == 1 else 16 if rows % 16 == 0 else 0


@pytest.mark.parametrize("v_heads", [1, 2, 4, 6, 12, 15, 16, 30, 32, 48, 128])
def test_the_norm_has_a_case_for_every_launch_key_of_every_card(v_heads: int) -> None:
    covered = {_kinds(v_heads, sm_count, tokens) for tokens, sm_count in norm_rows(v_heads)}
    for sm_count in (14, 28, 48, 56, 58, 72, 78, 108, 114, 132, 142, 148, 170, 188):
        met = {_kinds(v_heads, sm_count, tokens) for tokens in range(1, 4096)}
        assert met <= covered, sm_count
    assert len(norm_rows(v_heads)) == len(covered), "each once"


@pytest.mark.parametrize("kind", CASES)
def test_a_step_survives_as_a_call(kind: str) -> None:
    steps = list(CASES[kind](DRAFTED))
    assert steps
    for step in steps:
        assert Step.of(step.call(kind)) == step
        assert step.call(kind).workload == kind


def test_nothing_is_drafted_where_nothing_may_be() -> None:
    assert list(vllm_steps.speculative(PLAIN)) == []
    assert all(step.speculated for step in vllm_steps.speculative(DRAFTED))
    for kind in ("prefill", "decode", "mixed"):
        assert not any(step.speculated for step in CASES[kind](DRAFTED))


def test_prompts_are_of_every_block_size_and_class() -> None:
    totals = [step.tokens for step in vllm_steps.prefill(PLAIN)]
    for low, high in pairwise((0, 16, 32, 64, 1 << 30)):
        assert any(low < total <= high for total in totals)
    assert {total % 16 == 0 for total in totals} == {True, False}
    states = {group.computed > 0 for step in vllm_steps.prefill(PLAIN) for group in step.groups}
    assert states == {True, False}


def test_batches_are_of_every_class() -> None:
    counts = {group.number for step in vllm_steps.decode(PLAIN) for group in step.groups}
    assert {1 if count == 1 else 16 if count % 16 == 0 else 0 for count in counts} == {0, 1, 16}


def _region(step: Step, request: Group) -> int:
    """Where vLLM sorts a request: with a state those that may be decoded, then longer parts of prompts; else last."""
    return 2 if not request.computed else int(request.query > 1 + step.deployment.drafts)


@pytest.mark.parametrize("first_tokens", [True, False])
@pytest.mark.parametrize("kind", CASES)
def test_random_steps_are_as_the_scheduler_makes_them(kind: str, first_tokens: bool) -> None:
    rng = random.Random(3)
    limits = Limits(max_tokens=2048)
    seen, ones = set(), set()
    for _ in range(300):
        step = vllm_steps.random_step(rng, [PLAIN, DRAFTED], kind, limits, first_tokens=first_tokens)
        queries = [request.query for request in step.requests]
        regions = [_region(step, request) for request in step.requests]
        assert regions == sorted(regions), "requests that decode come first"
        prompts = [request for request in step.requests if request.drafts < 0]
        told = any(request.query > 1 or (first_tokens and not request.computed) for request in prompts)
        assert kind == "speculative" or told == (kind != "decode"), "a step is of its kind"
        ones |= {(len(queries) > 1, request.computed > 0) for request in prompts if request.query == 1}
        assert step.tokens == sum(queries) <= max(limits.max_tokens, 4 * vllm_steps.DECODE_BATCH)
        assert all(request.drafts <= step.deployment.drafts for request in step.requests)
        assert all(request.query == 1 + request.drafts for request in step.requests if request.drafts >= 0)
        assert all(1 <= request.accepted <= 1 + step.deployment.drafts for request in step.requests)
        assert (kind == "speculative") == any(request.drafts >= 0 for request in step.requests)
        pages = [page for row in step.table for page in row]
        assert len(set(pages)) == len(pages) == len(queries) * (1 + step.deployment.drafts)
        assert min(pages) == 1, "page 0 is nobody's"
        seen.add((step.compiled, step.graph, step.packed))
    assert len(seen) == 8
    if kind != "decode":  # prompts of one token, first parts and later ones, beside others; alone where they are told
        beside = {(True, False), (True, True)}
        assert ones == (beside | {(False, False)} if kind == "prefill" and first_tokens else beside)


def test_the_catalogue_says_what_decides_a_page() -> None:
    shape = find_model("qwen3-next-80b-a3b").shape(4)
    assert (shape.layer, shape.kv_heads, shape.head_dim, shape.state_dtype) == ("qwen3-next", 2, 256, "auto")
    assert shape.kernel_key == find_model("qwen3.5-9b").shape(4).kernel_key
    assert shape.paged_key != find_model("qwen3.5-9b").shape(4).paged_key


def test_groups_count_their_requests() -> None:
    step = Step(groups=(Group(3, 10, 1), Group(1, 0, 7)), deployment=PLAIN)
    assert step.tokens == 10
    assert step.ends == [0, 1, 2, 3, 10]
    assert step.table == [[1], [2], [3], [4]]

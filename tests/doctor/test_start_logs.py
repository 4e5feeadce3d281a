"""``gdn-aot doctor --start`` on whole logs of vLLM 0.24.0 on an H200, with the figures that a reader finds in them.

The logs are of the engine in one process that `benchmarks/vllm_gdn.py` starts (cases ``capture-graphs``,
``warm-graphs``, ``e-graphs-packed`` and ``e``), and of ``vllm serve`` with its processes, as they wrote them, but for
the folders in them.
"""

from pathlib import Path

import pytest

from gdn_aot.doctor.start import StartReport, read_start

LOGS = Path(__file__).with_name("logs")
FIRST = "first process until it says its arguments: imports"
LOADING = "rest of loading the model"
COMPILE = "rest of torch.compile"
INIT = "rest of init engine: memory profiling, warm-ups, FlashInfer, Triton's compiles"
CACHE = "compiled graphs from the cache"
COLD = {
    FIRST: (11, "no"),  # 10:15:17 to 10:15:28
    "Dynamo": (1.69, "yes"),
    "Inductor": (14.16, "yes"),
    "profiling run": (5.03, "part"),
    "CUDA graphs": (7, "part"),
    LOADING: (0.32, "no"),
    COMPILE: (0.57, "yes"),  # 16.42 in all
    INIT: (6.7, "part"),  # 35.15 in all
}
WARM = {
    FIRST: (9, "no"),
    "Dynamo": (0.73, "no"),
    CACHE: (0.22, "no"),
    "profiling run": (0.62, "part"),
    "CUDA graphs": (2, "part"),
    LOADING: (0.18, "no"),
    COMPILE: (0.04, "no"),  # 0.99 in all
    INIT: (2.69, "part"),  # 6.30 in all
}
PACKED = {
    FIRST: (9, "no"),
    "Dynamo": (0.71, "no"),
    CACHE: (0.53, "no"),
    "profiling run": (0.87, "part"),
    "CUDA graphs": (2, "part"),
    LOADING: (0.19, "no"),
    COMPILE: (0.03, "no"),  # 1.27 in all
    INIT: (3.62, "part"),  # 7.76 in all
}
EAGER = {FIRST: (10, "no"), "model inspection": (14, "yes"), LOADING: (0.19, "no"), INIT: (2.15, "part")}
SERVED = {
    FIRST: (10, "no"),  # 18:09:30 to 18:09:40
    "processes that vLLM starts: imports": (7, "no"),  # 18:09:42 to 18:09:49
    LOADING: (0.31, "no"),
    INIT: (1.62, "part"),
}


def report(name: str) -> StartReport:
    return read_start((LOGS / f"{name}.log").read_text())


@pytest.mark.parametrize(
    ("name", "stages", "seconds", "unnamed", "compiled", "messages"),
    [
        ("cold-graphs", COLD, 48, 1.53, 6, 0),
        ("warm-graphs", WARM, 18, 2.52, 5, 0),
        ("packed-graphs", PACKED, 19, 2.05, 0, 10),
        ("captured-eager", EAGER, 28, 1.66, 0, 3),
        ("served", SERVED, 23, 4.07, 0, 6),
    ],
)
def test_the_figures_of_a_log(
    name: str, stages: dict[str, tuple[float, str]], seconds: float, unnamed: float, compiled: int, messages: int
) -> None:
    found = report(name)
    assert {stage.name: (stage.seconds, stage.saved) for stage in found.stages} == stages
    assert {stage.name for stage in found.stages if not stage.said} == {*stages} & {
        FIRST,
        "model inspection",
        "processes that vLLM starts: imports",
    }
    assert (found.version, found.complete, found.before) == ("0.24.0", True, 0)
    assert (found.seconds, found.unnamed) == (seconds, unnamed)
    assert (len(found.compiled), len(found.messages)) == (compiled, messages)


def test_what_a_cold_start_would_be_saved_is_what_a_packed_one_was() -> None:
    """The packed start is faster in stages of which the report of the cold one says that artifacts save from them."""
    cold, packed = report("cold-graphs"), report("packed-graphs")
    compiles = ("Dynamo", "Inductor", CACHE, COMPILE)
    took = [sum(stage.seconds for stage in one.stages if stage.name in compiles) for one in (cold, packed)]
    assert took == pytest.approx([16.42, 1.27])
    assert cold.sum("yes") == 16.42  # up to so much: loading the cache takes 1.27 s of it
    left = {stage.name: stage.seconds for stage in packed.stages}
    faster = {stage.name: stage.seconds - left.get(stage.name, 0) for stage in cold.stages}
    assert {name for name, less in faster.items() if less > 2.5} == {"Inductor", "profiling run", "CUDA graphs", INIT}
    assert packed.sum("yes") == 0


def test_lines_of_ours_that_vllm_does_not_lay_out() -> None:
    """With ``GDN_AOT_LOG`` they go to stderr with a level and no time."""
    packed = report("packed-graphs")
    assert packed.triton == (0, 0)
    assert packed.messages[-1] == "answered requests of 50 tokens before the engine is ready: 0.11 s, 0.06 s"
    page = "\n".join(packed.page())
    assert "Triton compiled linear attention for 0.0 s" in page
    assert "gdn-aot said nothing" not in page
    assert "gdn-aot said nothing" in "\n".join(report("warm-graphs").page())

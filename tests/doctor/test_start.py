"""``gdn-aot doctor --start``: logs as vLLM writes them, parts of such, and others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import gdn_aot

from gdn_aot.doctor.start import read_start
from gdn_aot.errors import NothingSelectedError, UsageError

LOG = """\
INFO 12-31 23:59:40 [importing.py:46] Triton is installed but 0 active driver(s) found (expected 1).
(APIServer pid=1) INFO 12-31 23:59:41 [utils.py:233] non-default args: {'model': 'x'}
(APIServer pid=1) WARNING 12-31 23:59:41 [loader.py:76] gdn-aot: vllm0.24.0-triton3.6.0-sm_90: 14 kernels
(APIServer pid=1) INFO 12-31 23:59:58 [model.py:598] Resolved architecture: Qwen3NextForCausalLM
(EngineCore pid=7) INFO 01-01 00:00:20 [core.py:114] Initializing a V1 LLM engine (v0.24.0) with config: model='x'
(Worker_TP0 pid=8) INFO 01-01 00:00:30 [parallel_state.py:1] world_size=2
(Worker_TP1 pid=9) INFO 01-01 00:00:31 [parallel_state.py:1] world_size=2
(Worker_TP0 pid=8) INFO 01-01 00:00:48 [default_loader.py:430] Loading weights took 15.25 seconds
(Worker_TP1 pid=9) INFO 01-01 00:00:48 [default_loader.py:430] Loading weights took 15.75 seconds
(Worker_TP0 pid=8) INFO 01-01 00:00:50 [gpu_model_runner.py:1] Model loading took 17.66 GiB memory and 18.500000 seconds
(Worker_TP0 pid=8) INFO 01-01 00:00:57 [backends.py:1149] Dynamo bytecode transform time: 6.10 s
(Worker_TP0 pid=8) INFO 01-01 00:01:05 [backends.py:394] Compiling a graph for compile range (1, 8192) takes 14.00 s
(Worker_TP0 pid=8) INFO 01-01 00:01:06 [monitor.py:60] torch.compile took 21.10 s in total
(Worker_TP0 pid=8) INFO 01-01 00:01:30 [monitor.py:82] Initial profiling/warmup run took 20.00 s
(Worker_TP0 pid=8) INFO 01-01 00:01:31 [kernel_warmup.py:150] Using FlashInfer autotune cache file: /root/x.json
(Worker_TP0 pid=8) INFO 01-01 00:01:34 [kernel_warmup.py:189] FlashInfer autotune cache loaded on rank 0
(Worker_TP0 pid=8) INFO 01-01 00:01:43 [gpu_model_runner.py:6657] Graph capturing finished in 8 secs, took 0.52 GiB
(EngineCore pid=7) INFO 01-01 00:01:45 [core.py:345] init engine (profile, create kv cache, warmup model) took 55.0 s
(APIServer pid=1) INFO 01-01 00:01:47 [api_server.py:581] Starting vLLM server on http://0.0.0.0:8000
"""
COMPILES = (
    "(Worker_TP0 pid=8) WARNING 01-01 00:02:47 [jit_monitor.py:1] Triton kernel JIT compilation during inference: "
)
LOG += f"{COMPILES}_topk_topp_kernel. This causes a latency spike\n{COMPILES}fused_gdn_gating_kernel (key=1).\n"
LINES = LOG.splitlines(keepends=True)
STAGES = {
    "first process until it says its arguments: imports": (1, False, "no"),
    "processes that vLLM starts: imports": (33, False, "no"),
    "model inspection": (17, False, "yes"),
    "weights": (15.75, True, "no"),
    "Dynamo": (6.1, True, "yes"),
    "Inductor": (14, True, "yes"),
    "profiling run": (20, True, "part"),
    "CUDA graphs": (8, True, "part"),
    "FlashInfer's autotuning": (3, False, "no"),
    "rest of loading the model": (2.75, True, "no"),
    "rest of torch.compile": (1, True, "yes"),
    "rest of init engine: memory profiling, warm-ups, FlashInfer, Triton's compiles": (2.9, True, "part"),
}


def found(text: str) -> dict[str, tuple[float, bool, str]]:
    return {stage.name: (stage.seconds, stage.said, stage.saved) for stage in read_start(text).stages}


def test_every_second_is_in_one_stage() -> None:
    """A whole is without its parts; of processes side by side the longest counts; the year ends on the way."""
    report = read_start(LOG)
    assert found(LOG) == STAGES
    assert (report.version, report.seconds, report.complete) == ("0.24.0", 127, True)
    assert sum(stage.seconds for stage in report.stages) + report.unnamed == pytest.approx(report.seconds, abs=0.01)
    assert report.compiled == ("_topk_topp_kernel", "fused_gdn_gating_kernel")
    assert report.messages == ("vllm0.24.0-triton3.6.0-sm_90: 14 kernels",)


def test_colours_and_what_others_put_before_a_line() -> None:
    for before in ("2026-01-01T00:00:00.1Z stdout F ", "[pod/x] ", "my-prefix "):
        coloured = "".join(f"{before}\x1b[36m{line.rstrip()}\x1b[0m\r\n" for line in LINES)
        plain = coloured.replace("\x1b[36m", "", 1)
        assert {name: stage[0] for name, stage in found(plain).items()} == {k: v[0] for k, v in STAGES.items()}


def test_the_last_start_of_a_server_counts() -> None:
    """After one that was never ready, and after some that served."""
    once = read_start("".join(LINES[1:]))  # from the server's first line on
    assert once.before == 0
    for first in ("".join(LINES[:9]), LOG, LOG + LOG):
        report = read_start(first + "".join(LINES[1:]))
        assert replace(report, before=0) == once
        assert report.before == first.count("non-default args")
        assert any(line.startswith("this is the last start in the log; ") for line in report.page())


def test_one_process_at_level_debug() -> None:
    """The inspection says how long it took, for the model and for the drafts: no time between lines counts."""
    report = read_start("""\
DEBUG 11-30 22:53:40 [logging_utils/log_time.py:29] Registry inspect model class: Elapsed time 10.2500000 secs
INFO 11-30 22:53:50 [model.py:598] Resolved architecture: Qwen3NextForCausalLM
DEBUG 11-30 22:53:50 [logging_utils/log_time.py:29] Registry inspect model class: Elapsed time 9.5000000 secs
INFO 11-30 22:53:59 [model.py:598] Resolved architecture: Qwen3NextMTP
""")
    (stage,) = report.stages
    assert (stage.name, stage.seconds, stage.said) == ("model inspection", 19.75, True)
    assert not report.complete


@pytest.mark.parametrize("count", range(1, len(LINES)))
def test_a_log_that_ends_anywhere(count: int) -> None:
    """What is said so far is reported, and never more than there is."""
    text = "".join(LINES[:count])
    text = text[: len(text) - 7]
    try:
        report = read_start(text)
    except NothingSelectedError:
        assert count <= 3
        return
    assert report.complete == (count >= 19 or "took 55.0 s" in text)
    assert report.unnamed >= 0
    assert {stage.name for stage in report.stages} <= {*STAGES}


@pytest.mark.parametrize(
    "text", ["", "hello\n" * 100, "\x00\xff" * 50, "INFO 13-45 99:99:99 [model.py:598] Resolved\n"]
)
def test_what_is_no_log_of_vllm(text: str) -> None:
    with pytest.raises(UsageError, match="no line of the log is one of vLLM's"):
        read_start(text)


def test_lines_of_vllm_that_are_no_start() -> None:
    with pytest.raises(NothingSelectedError, match="2 lines of vLLM, but none of a start"):
        read_start(2 * "INFO 11-30 22:53:55 [loggers.py:1] Engine 000: Avg prompt throughput: 1.0 tokens/s\n")


def test_the_command(tmp_path: Path) -> None:
    log = tmp_path / "start.log"
    log.write_text(LOG)
    document: Any = json.loads(gdn_aot("doctor", "--start", log, "--json", home=tmp_path).out)
    assert document["version"] == "0.24.0"
    assert {row["name"]: (row["seconds"], row["said"], row["saved"]) for row in document["stages"]} == STAGES
    page = gdn_aot("doctor", "--start", log, home=tmp_path).out
    assert "vLLM 0.24.0: 127 s to ready" in page
    assert "artifacts save up to 38 s, and of 31 s what Triton compiles in them" in page
    assert "fused_gdn_gating_kernel (GDN)" in page


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("missing", None, 2, "cannot read"),
        ("other", b"\x89PNG\r\n", 2, "no line of the log is one of vLLM's"),
        ("requests", b"INFO 11-30 22:53:55 [x.py:1] Engine 000: 1 tokens/s\n", 3, "none of a start"),
    ],
)
def test_logs_that_say_nothing(tmp_path: Path, name: str, content: bytes | None, code: int, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = gdn_aot("doctor", "--start", tmp_path / name, home=tmp_path, code=code)
    assert words in done.err
    assert done.err.count("Hint: ") == 1

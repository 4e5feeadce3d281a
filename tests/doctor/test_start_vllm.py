"""What ``doctor --start`` reads in a log is what the installed vLLM writes: format strings and layout from its sources.

Needs an interpreter that has vLLM, named by ``GDN_AOT_TEST_VLLM``; vLLM is not imported.
"""

import ast
import logging
import os
import re
from functools import cache
from pathlib import Path

import pytest
from helpers import run

from gdn_aot.doctor.start import read_start

PYTHON = os.environ.get("GDN_AOT_TEST_VLLM", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GDN_AOT_TEST_VLLM names no Python that has vLLM")

INIT = "rest of init engine: memory profiling, warm-ups, FlashInfer, Triton's compiles"
SAID = [
    ("logging_utils/log_time.py", "%s: Elapsed time", "model inspection"),
    ("model_executor/model_loader/weight_utils.py", "Time spent downloading weights", "downloading weights"),
    ("model_executor/model_loader/default_loader.py", "Loading weights took", "weights"),
    ("v1/worker/gpu_model_runner.py", "Model loading took", "rest of loading the model"),
    ("v1/worker/gpu/model_runner.py", "Model loading took", "rest of loading the model"),
    ("compilation/backends.py", "Dynamo bytecode transform time", "Dynamo"),
    ("compilation/backends.py", "Compiling a graph for compile range", "Inductor"),
    ("compilation/backends.py", "Directly load the compiled graph(s)", "compiled graphs from the cache"),
    ("compilation/monitor.py", "torch.compile took", "rest of torch.compile"),
    ("compilation/decorators.py", "torch.compile and initial profiling", "rest of torch.compile"),
    ("compilation/monitor.py", "Initial profiling/warmup run took", "profiling run"),
    ("v1/worker/gpu_model_runner.py", "Graph capturing finished", "CUDA graphs"),
    ("v1/worker/gpu/model_runner.py", "Graph capturing finished", "CUDA graphs"),
    ("v1/engine/core.py", "init engine (profile", INIT),
    ("model_executor/warmup/kernel_warmup.py", "JIT kernel warmup finished", "vLLM's own list of Triton kernels"),
]
"""(file, words of the text, stage)."""
SINCE_0_30 = "JIT kernel warmup finished"
TAGGED = "[backbone] "
"""What is before a text from 0.33 on where a model has several parts."""


@cache
def package() -> Path:
    place = Path(__file__).parent
    code = "import importlib.util; print(importlib.util.find_spec('vllm').origin)"
    return Path(run([PYTHON, "-c", code], place, {}, place).out.strip()).parent


@cache
def texts(file: str) -> list[str]:
    """Return every text of a file of vLLM."""
    tree = ast.parse((package() / file).read_text())
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def filled(text: str) -> str:
    """Return a text of vLLM with 7 for each number and words for the rest, as ``%`` puts them in."""
    head, count = ("Registry inspect model class", 1) if text.startswith("%s: Elapsed") else (TAGGED, 1)
    if not text.startswith("%s"):
        head, count = "", 0
    text = head + text[2 * count :]
    return re.sub(
        r"%[.\d]*([sdf])", lambda found: "7" if found[1] == "d" else "7.25" if found[1] == "f" else "7.5", text
    )


def laid_out(text: str) -> str:
    """Return a line as vLLM lays it out: ``_FORMAT`` and ``_DATE_FORMAT`` of ``vllm/logger.py``."""
    tree = ast.parse((package() / "logger.py").read_text())
    named = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    form = eval(  # noqa: S307 - a text of vLLM's, without a prefix
        compile(ast.Expression(named["_FORMAT"]), "logger.py", "eval"),
        {"envs": type("envs", (), {"VLLM_LOGGING_PREFIX": ""})},
    )
    date = ast.literal_eval(named["_DATE_FORMAT"])
    record = logging.LogRecord("vllm.x", logging.INFO, "x.py", 1, text, (), None)
    record.fileinfo, record.vllm_process_name = "x.py", "EngineCore"
    line = logging.Formatter(form, date).format(record)
    return line if line.startswith("(") else f"(EngineCore pid=7) {line}"


@pytest.mark.parametrize(("file", "words", "stage"), SAID, ids=[f"{file}:{words}" for file, words, _ in SAID])
def test_what_vllm_says_of_its_seconds(file: str, words: str, stage: str) -> None:
    found = [text for text in texts(file) if words in text]
    if words == SINCE_0_30 and not found:
        pytest.skip("this version has no list of its own")
    assert found, f"{file} says no {words!r} any more"
    for text in found:
        report = read_start(laid_out(filled(text)))
        assert {one.name for one in report.stages} == {stage}, filled(text)
        assert report.stages[0].seconds == (7.25 if "f" in "".join(re.findall(r"%[.\d]*([sdf])", text)) else 7)
        assert report.stages[0].said


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("config/model.py",), "Resolved architecture: "),
        (("entrypoints/serve/utils/api_utils.py", "entrypoints/common/startup.py"), "non-default args: %s"),
        (("v1/engine/core.py",), "Initializing a V1 LLM engine (v%s) with config"),
        (("model_executor/warmup/kernel_warmup.py",), "Using FlashInfer autotune cache file: "),
    ],
)
def test_what_lines_are_known_by(files: tuple[str, ...], words: str) -> None:
    """Of a text that has moved the later place is the one of 0.33.0."""
    there = [file for file in files if (package() / file).exists()]
    assert [text for file in there for text in texts(file) if text.startswith(words)]


def test_the_line_that_says_that_a_server_is_ready() -> None:
    places = ("entrypoints/openai/api_server.py", "entrypoints/launchers/api_server/entry.py")
    found = [text for place in places if (package() / place).exists() for text in texts(place)]
    assert "Starting vLLM server on %s" in found


def test_kernels_that_are_compiled_for_requests() -> None:
    """By whichever module has them: from 0.33 on ``%s %s`` for the compiler and the event, and more after the name."""
    monitors = [str(path.relative_to(package())) for path in package().rglob("jit_monitor.py")]
    said = [text for file in monitors for text in texts(file) if " during inference: %s" in text]
    assert said or not monitors
    for text in said:
        what, _, rest = text.partition(" during inference: ")
        line = f"Triton kernel JIT compilation during inference: {rest}" if "%s %s" in what else text
        line = line.replace("Triton %sJIT", "Triton kernel JIT").replace("%s%s", "%s").replace("%s", "some_kernel", 1)
        report = read_start(f"{laid_out('Loading weights took 1.0 seconds')}\n{laid_out(line)}")
        assert report.compiled == ("some_kernel",), text

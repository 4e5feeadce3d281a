"""Runs the commands of a tutorial and writes what they print: ``python docs/_site/tutorial.py [BUILD_CACHE]``.

A block of ``console`` has commands, which begin with ``$``, and what they print. All are run by one shell, for a user
who has just been made; ``~`` stands for that user's home. The commands are those of the Python that runs this.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "tutorial/first-artifact.md"
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_MARK = "\x1e"
_CHANGING = (
    (r"\b[0-9a-f]{12,}\b", "DIGEST"),
    (r"\d{4}-\d\d-\d\d( \d\d:\d\d)?", "DATE"),
    (r"compiled \d+ \(.*\)", "compiled"),
    (r"gdn-aot \d\S*, commit.*", "VERSION"),
    (r"\b\d+(\.\d+)? (KiB|MiB|MB)", "SIZE"),
    (r"\b\d{4,}\b", "NUMBER"),
    (r"\s+", " "),
)
"""What differs between two runs: digests and keys, dates, times, what was compiled before, the version, sizes."""
_PROGRESS = re.compile(r"^[\w ]+: \d+ of \d+, .*\n", re.MULTILINE)
"""A line that says how far a long command is; one that is done soon writes none."""


def commands(page: str) -> list[str]:
    """Return the commands of a page."""
    return [line[2:] for block in _BLOCK.findall(page) for line in block.splitlines() if line.startswith("$ ")]


def run(wanted: list[str], build_cache: Path | None = None) -> list[str]:
    """Run commands and return what each prints, notes but for progress too.

    Args:
        wanted: The commands, in their order.
        build_cache: The build cache to use, so that nothing is compiled twice; else an empty one.

    Raises:
        RuntimeError: One of them ends with another exit code than 0.
    """
    with tempfile.TemporaryDirectory() as home:
        ours = Path(home) / ".cache/gdn-aot"
        ours.mkdir(parents=True)
        if build_cache is not None:
            (ours / "build").symlink_to(build_cache.absolute())
        foreign = ("GDN_AOT", "XDG_", "HF_", "TRITON_", "FLA_")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        variables |= {"HOME": home, "PATH": programs, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
        script = "\n".join(["set -e", *(f"printf '{_MARK}'\n{command}" for command in wanted)])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=home,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        outputs = [_PROGRESS.sub("", output) for output in done.stdout.replace(home, "~").split(_MARK)[1:]]
    if done.returncode:
        raise RuntimeError(f"{wanted[len(outputs) - 1]} ends with {done.returncode}:\n{outputs[-1]}")
    return outputs


def filled(page: str, outputs: list[str]) -> str:
    """Return a page with what its commands printed."""
    left = iter(outputs)

    def block(match: re.Match[str]) -> str:
        return "".join(f"$ {command}\n{next(left)}" for command in commands(f"```console\n{match[0]}```\n"))

    return _BLOCK.sub(block, page)


def lost(page: str, outputs: list[str]) -> list[str]:
    """Return the lines of a page's output that commands no longer print, in that order, but for what always differs."""
    missing, left = [], iter(outputs)
    printed: list[str] = []
    for line in (line for block in _BLOCK.findall(page) for line in block.splitlines()):
        if line.startswith("$ "):
            printed = [steady(one) for one in next(left).splitlines()]
        elif (wanted := steady(line)) in printed:
            printed = printed[printed.index(wanted) + 1 :]
        else:
            missing.append(line)
    return missing


def steady(line: str) -> str:
    """Return a line of output without what differs between two runs."""
    for pattern, word in _CHANGING:
        line = re.sub(pattern, word, line)
    return line.strip()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    PAGE.write_text(filled(text, run(commands(text), cache)), encoding="utf-8")

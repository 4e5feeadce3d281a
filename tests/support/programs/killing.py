"""Fetch many times over and kill each at another moment: ``python -m programs.killing SEED COUNT ARGS...``.

Everything is imported once and each fetch is a forked child, so the moments fall into its work and not into the start
of the interpreter. First one fetch runs to its end, which says how long the moments are. Then each fetch starts with
what the ones before it left, in the store and in the client's cache; once the artifact is there the store is emptied,
and now and then the cache, so that there is work to do. Prints one JSON document: for each kill the moment in seconds,
whether the fetch was still running, what a look at the store found, and how many temporary files there were.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from processes import fork
from storing import check_store

from gdn_aot.cli.main import run
from gdn_aot.errors import GdnAotError


def start(arguments: list[str]) -> int:
    """Start a fetch in a child and return its process number."""

    def fetch() -> None:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        assert run(arguments) == 0

    return fork(fetch)


def kill_one(arguments: list[str], after: float) -> bool:
    """Kill a fetch after so many seconds; say whether it was still running."""
    child = start(arguments)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(seed: int, count: int, arguments: list[str]) -> None:
    """Kill and look, again and again."""
    import huggingface_hub.file_download  # noqa: F401
    import zstandard  # noqa: F401

    homes = Path(os.environ["GDN_AOT_HOME"]), Path(os.environ["HF_HOME"])
    chosen = random.Random(seed)
    durations = []
    for _ in range(3):
        begin = time.monotonic()
        _, status = os.waitpid(start(arguments), 0)
        if status:
            sys.exit(f"a fetch that nobody disturbed ended with {os.waitstatus_to_exitcode(status)}")
        durations.append(time.monotonic() - begin)
        for home in homes:
            shutil.rmtree(home)
    longest = 1.1 * min(durations)
    kills: list[dict[str, object]] = []
    for number in range(count):
        # Half of them anywhere, half of them where it is written to the store.
        moment = chosen.uniform(longest / 2 if number % 2 else 0, longest)
        running = kill_one(arguments, moment)
        left = len([*homes[0].rglob(".tmp-*"), *homes[1].rglob("*.incomplete")])
        try:
            found: object = check_store(homes[0])
        except (GdnAotError, OSError, AssertionError) as error:
            found = repr(error)
        kills.append({"moment": moment, "running": running, "found": found, "left": left})
        if found:
            for home in homes[: chosen.choice((1, 2))]:
                shutil.rmtree(home, ignore_errors=True)
    print(json.dumps({"longest": longest, "kills": kills}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])

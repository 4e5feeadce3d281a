"""Many processes on one store, and killed ones: ``python -m storm MODE HOME SEED COUNT FILE...``.

Everything is imported once and each process is forked, so that what happens falls into the work and not into the start
of an interpreter. Prints one JSON document.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import helpers
import storing
from helpers import ROOT, SUPPORT
from processes import fork, wait
from storing import check_store

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.errors import NothingSelectedError
from gdn_aot.store.install import install
from gdn_aot.store.store import Store
from gdn_aot.store.upkeep import audit, prune, remove


def act(home: Path, artifacts: list[Artifact], chosen: random.Random) -> None:
    """Do one of the things that can be done to a store."""
    store, artifact = Store(str(home)), chosen.choice(artifacts)
    what = chosen.choice(("install", "install", "install", "remove", "prune", "repair"))
    if what == "install":
        install(store, artifact)
    elif what == "remove":
        with suppress(NothingSelectedError):
            remove(store, [artifact.sha256])
    elif what == "prune":
        prune(store)
    else:
        assert not audit(store, repair=True).removed


def act_on(home: Path, artifacts: list[Artifact], seed: float, count: int) -> None:
    chosen = random.Random(seed)
    for _ in range(count):
        act(home, artifacts, chosen)


def many(home: Path, _: random.Random, count: int, artifacts: list[Artifact]) -> list[dict[str, Any]]:
    """Install at once from many processes; returns what each was told."""
    gate, opener = os.pipe()
    answers, teller = os.pipe()

    def work(number: int) -> None:
        os.close(opener)
        os.read(gate, 1)  # ends when the parent closes its side
        done = install(Store(str(home)), artifacts[number % len(artifacts)])
        os.write(teller, json.dumps({"place": done.place, "new": done.new, "repaired": done.repaired}).encode() + b"\n")

    children = [fork(lambda number=number: work(number)) for number in range(count)]  # type: ignore[misc]
    os.close(opener)
    codes = wait(children)
    assert codes == [0] * count, codes
    os.close(teller)
    with os.fdopen(answers) as file:
        return [json.loads(line) for line in file]


def mixed(home: Path, chosen: random.Random, count: int, artifacts: list[Artifact]) -> list[int]:
    """Do all kinds of things from many processes; returns their exit codes."""
    seeds = [chosen.random() for _ in range(6)]
    children = [fork(lambda seed=seed: act_on(home, artifacts, seed, count)) for seed in seeds]  # type: ignore[misc]
    return wait(children)


def kill(home: Path, chosen: random.Random, count: int, artifacts: list[Artifact]) -> list[dict[str, Any]]:
    """Kill processes that do all kinds of things, at random moments; returns what each left behind."""
    act_on(home, artifacts, 0, 20)
    begin = time.monotonic()
    act_on(home, artifacts, 1, 20)
    usual = (time.monotonic() - begin) / 20
    found = []
    for _ in range(count):
        child = fork(lambda: act_on(home, artifacts, chosen.random(), 10**9))
        time.sleep(chosen.uniform(0, 6 * usual))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "it ended before it was killed"
        left = len(storing.leftovers(home))
        whole = check_store(home)
        problems = [str(problem) for problem in audit(Store(str(home))).problems]
        for artifact in artifacts:
            install(Store(str(home)), artifact)
        after = audit(Store(str(home))).problems
        assert len(check_store(home)) == len(artifacts)
        assert not storing.leftovers(home)
        found.append({"left": left, "whole": whole, "problems": problems, "after": len(after)})
        act_on(home, artifacts, chosen.random(), 2)
    return found


MODES = {"many": many, "mixed": mixed, "kill": kill}


def run(mode: str, home: Path, seed: int, count: int, artifacts: list[Artifact]) -> Any:
    """Run a mode in a process of its own, and return what it prints."""
    command = [sys.executable, "-m", "storm", mode, home, seed, count, *(item.path for item in artifacts)]
    extra = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}
    done = helpers.run(list(map(str, command)), home.parent / "cwd", extra)
    assert done.code == 0, done.err
    assert done.err == ""
    return done.json


def check_kills(folder: Path, count: int) -> None:
    """Kill so many: after each the store works, what is listed is whole, and the next installation leaves no trace."""
    home, artifacts = folder / "home", [storing.variant(folder, number) for number in range(3)]
    found = run("kill", home, 2, count, artifacts)
    assert len(found) == count
    assert [item["problems"] for item in found if item["problems"]] == []
    assert {item["after"] for item in found} == {0}
    if count >= 50:
        assert sum(item["left"] > 0 for item in found) > count // 10, "hardly any was killed in the middle of writing"
        assert {len(item["whole"]) for item in found} > {1, 2}


def main(mode: str, home: str, seed: str, count: str, *files: str) -> None:
    """Run a mode and print what it returns."""
    artifacts = [open_artifact(file) for file in files]
    print(json.dumps(MODES[mode](Path(home), random.Random(int(seed)), int(count), artifacts)))


if __name__ == "__main__":
    main(*sys.argv[1:])

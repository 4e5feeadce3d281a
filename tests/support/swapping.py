"""A directory registry whose writer changes a published file in place, while it is fetched by its pinned digest."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from making import Written, make
from registries import Here, kept, put
from storing import check_store, contents, place_of

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.errors import VerificationError
from gdn_aot.registry.fetch import FetchOrder, fetch
from gdn_aot.registry.lockfile import read_lock
from gdn_aot.registry.request import make_request
from gdn_aot.store.store import Store

_SIZE = 500_000
"""Bytes that take long enough to hash."""
_WRITER = """
import os, random, sys, time
target, *names = sys.argv[1:]
contents = [open(name, "rb").read() for name in names]
file = os.open(target, os.O_WRONLY)
print("ready", flush=True)
while True:
    for content in contents:
        os.pwrite(file, content, 0)
        time.sleep(random.choice((0, 0.0003, 0.003)))
"""


def of_one_size(folder: Path, good: Written) -> Path:
    """Return another sound artifact of the same identifier that has as many bytes."""
    size = _SIZE
    for build in range(100, 200):
        made = make(folder, build=build, size=size)
        if made.size == good.size:
            return made.path
        size += good.size - made.size  # its bytes do not compress
    raise AssertionError("no other build has the same size")


def swap_while_fetching(here: Here, tries: int) -> Counter[str]:
    """Fetch into one empty store after another; return how often a fetch was refused, and what stores have then."""
    here.home.mkdir()
    good = make(here.home, size=_SIZE)
    put(here.registry, good, tag="v1.1.0")
    here.lock("--arch", "sm_120")
    lock, target = read_lock(here.lock_file), kept(here.registry, good)
    order = FetchOrder(
        repo=str(here.registry),
        revision=None,
        request=make_request(("sm_120",), "fla", "0.6.0", "3.6.0"),
        lock=lock,
        allow_unsigned=True,
    )
    wanted = {sha256 for sha256, _ in open_artifact(good.path).iter_blobs()}
    evil = of_one_size(here.home, good)
    command = [sys.executable, "-c", _WRITER, str(target), str(evil), str(good.path)]
    found: Counter[str] = Counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            for number in range(tries):
                home = here.home / str(number)
                try:
                    fetch(order, Store(str(home)), lambda _: None, lambda _: None)
                except VerificationError:
                    found["refused"] += 1
                    assert check_store(home) == []
                else:
                    assert check_store(home) == [good.sha256]
                    found["good" if set(contents(place_of(home))) == wanted else "evil"] += 1
        finally:
            writer.kill()
    return found

"""Who waits for the lock of a store, and who does not."""

import os
import threading
import time
from pathlib import Path

import pytest
import storing
from helpers import TIMEOUT

from gdn_aot.artifact.verify import Artifact
from gdn_aot.store import lock
from gdn_aot.store.install import install
from gdn_aot.store.store import Store


def test_who_waits_says_for_whom(home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    storing.put(home, one)
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    said: list[str] = []
    with lock.locked(f"{home}/store"):
        thread = threading.Thread(target=lambda: install(Store(str(home)), one, waiting=said.append))
        thread.start()
        end = time.monotonic() + TIMEOUT
        while not said and time.monotonic() < end:
            time.sleep(0.01)
        assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()
    assert said == [f"waiting for process {os.getpid()}, which is using the store {home}/store"]


def test_who_need_not_wait_says_nothing(home: Path, one: Artifact) -> None:
    said: list[str] = []
    install(Store(str(home)), one, waiting=said.append)
    install(Store(str(home)), one, waiting=said.append)
    assert said == []


def test_readers_share_and_keep_writers_out(home: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    storing.put(home, one)
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    root, said = f"{home}/store", list[str]()
    with lock.undisturbed(root), lock.undisturbed(root, said.append):
        assert said == []
        thread = threading.Thread(target=lambda: install(Store(str(home)), one, waiting=said.append))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(30)
    assert said == [f"waiting for another process, which is using the store {root}"]

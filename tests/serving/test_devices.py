"""Devices of several architectures in one process, as ``device_map="auto"`` has them: each is served from its own."""

from types import SimpleNamespace
from typing import Any

import pytest
from builds import PREFILL_AND_DECODE, Built
from devices import nothing_was_made, together
from launching import TOLD

from gdn_aot.serving.state import State

__all__ = ["together"]


@pytest.fixture(scope="session")
def sm_86(build: Any) -> Built:
    """For a device with less than half of the shared memory that one of sm_90 has."""
    made: Built = build("--arch", "sm_86", "--model", "qwen3.5-9b", *PREFILL_AND_DECODE)
    return made


@pytest.mark.parametrize("cards", [("sm_90", "sm_86"), ("sm_86", "sm_90")])
def test_each_device_is_served_from_its_own_artifact(
    together: Any, sm_90: Built, sm_86: Built, cards: tuple[str, str]
) -> None:
    """In either order: candidates of the provider are those of the first device, choices those of each."""
    got = together(
        f"""
install(strict=True); become{cards}
seen = []
for driver.device in (0, 1, 0, 1):
    prefill(300); prefill(300, state=True); decode()
    seen.append(own())
modules = [[device, cubin] for device, cubin, _ in gdn_aot.serving.loader.state().modules]
done(devices=devices(), seen=seen, modules=modules)
""",
        sm_90,
        sm_86,
    )
    assert nothing_was_made(got)
    assert got["devices"] == [0, 1]
    assert [verdict["accepted"] for verdict in got["report"]["artifacts"]] == [True, True]
    assert got["seen"][:2] == got["seen"][2:]
    of_card = {"sm_90": sm_90, "sm_86": sm_86}
    for card, seen in zip(cards, got["seen"], strict=False):
        for name, choices in seen.items():
            kernel = of_card[card].kernel(name.rpartition(":")[2])
            known = {str(choice.key): dict(choice.config.kwargs) for choice in kernel.choices}
            for key, config in choices.items():
                assert all(f"{argument}: {value}" in config for argument, value in known[key].items()), (card, name)
    for device, cubin in got["modules"]:
        made = {binary.cubin for kernel in of_card[cards[device]].manifest.kernels for binary in kernel.binaries}
        assert cubin in made


def test_a_device_without_an_artifact_is_tritons(together: Any, sm_90: Built, sm_86: Built) -> None:
    """It is told of once, tuned for itself, and what it tuned is launched nowhere else."""
    got = together(
        """
install(); become("sm_90", "sm_86", "sm_89")
found = []
for driver.device in (0, 2, 1, 2, 0):
    before = counter.benchmarked
    norm()
    (config,) = own()["fla.modules.norm.l2norm:l2norm_fwd_kernel"].values()
    found.append([driver.device, counter.benchmarked - before > 0])
done(found=found, devices=devices())
""",
        sm_90,
        sm_86,
    )
    assert got["found"] == [[0, False], [2, True], [1, False], [2, False], [0, False]]
    assert got["compiled"] == ["l2norm_fwd_kernel"]
    assert got["devices"] == [0, 1]
    assert {miss["what"] for miss in got["report"]["misses"]} == {"binary", "choice"}
    got = together('install(strict=True); become("sm_90", "sm_89")\nnorm(); driver.device = 1' + TOLD.format("norm()"))
    assert got["error"] == "MissError"
    assert got["compiled"] == []


def test_devices_in_threads_at_once(together: Any, sm_90: Built, sm_86: Built) -> None:
    got = together(
        """
install(strict=True); become("sm_90", "sm_86")
import threading
prefill(100)  # imports
errors, barrier = [], threading.Barrier(6)
def work(device):
    driver.device = device
    barrier.wait()
    try:
        for tokens in (100, 300, 1000):
            prefill(tokens, state=tokens == 300); decode()
    except Exception as error:
        errors.append(repr(error))
threads = [threading.Thread(target=work, args=(number % 2,)) for number in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
done(errors=errors, devices=devices())
""",
        sm_90,
        sm_86,
    )
    assert got["errors"] == []
    assert nothing_was_made(got)
    assert got["devices"] == [0, 1]


def test_a_card_of_another_name_is_told_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of an artifact for one deployment, once for each device; tiles of some kernels follow the name."""
    header = {"identifier": "of-one-deployment", "capability": [9, 0], "card": "NVIDIA H200"}
    found: Any = SimpleNamespace(header=header)
    names = {0: "NVIDIA H200", 1: "NVIDIA H100 80GB HBM3", 2: ""}
    monkeypatch.setattr("gdn_aot.triton_internals.serving.device_capability", lambda _device: (9, 0))
    monkeypatch.setattr("gdn_aot.triton_internals.serving.device_name", names.__getitem__)
    state = State()
    state.found = [found]
    assert all(state.fits(found, device) for device in (0, 1, 1, 2))
    (said,) = [record.getMessage() for record in caplog.records if "of-one-deployment" in record.getMessage()]
    assert "was built for NVIDIA H200, and device 1 is NVIDIA H100 80GB HBM3" in said
    assert "card=NVIDIA H100 80GB HBM3" in said

"""Commands that are killed at any moment: the next run goes on, and nothing is left of the one before."""

import shutil
from pathlib import Path

from builds import Built
from helpers import gdn_aot
from hostile.kills import kill
from making import WANTED, make
from registries import put

_BUILD = ("build", "--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-decode", "-o", "out")


def test_killed_while_it_builds(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made: list[bytes] = []

    def reset() -> None:
        (file,) = (home / "out").glob("*.tar.zst")
        made.append(file.read_bytes())
        assert made[-1] == made[0]
        for name in ("out", "build"):
            shutil.rmtree(home / name)

    found = kill(tmp_path, [*_BUILD], 6, reset=reset)
    assert found.survivors == 0
    assert found.running > 4


def test_killed_while_it_seeds(decode: Built, tmp_path: Path) -> None:
    into = tmp_path / "into"
    found = kill(tmp_path, ["seed", decode.path, "--into", into], 8, reset=lambda: shutil.rmtree(into))
    assert found.survivors == 0
    assert found.running > 4


def test_killed_while_it_fetches(tmp_path: Path) -> None:
    put(tmp_path / "registry", make(tmp_path, size=4_000_000))
    words = ["fetch", "--allow-unsigned", "--repo", tmp_path / "registry", "--arch", "sm_120", *WANTED]
    found = kill(tmp_path, words, 12, reset=lambda: shutil.rmtree(tmp_path / "home/store"))
    assert found.survivors == 0


def test_killed_while_it_prunes(tmp_path: Path) -> None:
    put(tmp_path / "registry", make(tmp_path, size=4_000_000))
    words = ["fetch", "--allow-unsigned", "--repo", tmp_path / "registry", "--arch", "sm_120", *WANTED]

    def reset() -> None:
        gdn_aot(*words, home=tmp_path / "home")

    found = kill(tmp_path, ["cache", "prune", "--keep", "0"], 12, reset=reset)
    assert found.survivors == 0

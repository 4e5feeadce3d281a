"""What is said of downloads: which of how many, what is left and for about how long."""

from types import SimpleNamespace
from typing import Any

import pytest

from gdn_aot.registry import ahead


def _entry(name: str, size: int) -> Any:
    return SimpleNamespace(identifier=name, size=size)


def test_several(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0, 10.0, 10.5, 11.0, 11.0])
    monkeypatch.setattr(ahead, "time", SimpleNamespace(monotonic=lambda: next(now)))
    entries, said = [_entry("one", 4_000_000), _entry("two", 1_000_000), _entry("three", 19_000_000)], list[str]()
    downloads = ahead.Ahead(entries, "the place", said.append)
    for entry in entries:
        with downloads.downloading(entry):
            pass
    assert said == [
        "downloading 1 of 3: one, 4.0 MB, from the place",
        "downloading 2 of 3: two, 1.0 MB, from the place; 20.0 MB left, 10 s",
        "downloading 3 of 3: three, 19.0 MB, from the place; 19.0 MB left, 10 s",
    ]


def test_one_and_one_more_that_was_changed_meanwhile() -> None:
    said = list[str]()
    downloads = ahead.Ahead([_entry("one", 4_000_000)], "the place", said.append)
    for name in ("one", "two"):
        with downloads.downloading(_entry(name, 4_000_000)):
            pass
    assert said == [f"downloading {name}, 4.0 MB, from the place" for name in ("one", "two")]

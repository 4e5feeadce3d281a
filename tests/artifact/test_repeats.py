"""The fast way to read binaries accepts nothing else than the parser proper, and makes the same of it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact import factory
from artifact.strategies import contents
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import parse
from gdn_aot.artifact.repeats import NotPlainError, Repeats
from gdn_aot.errors import VerificationError

DATA = m.to_json(factory.full_manifest())


def outcome(data: bytes) -> object:
    """A manifest, or every problem."""
    try:
        return parse.parse_manifest(data)
    except VerificationError as error:
        return [error.message, *map(str, error.problems)]


def slowly(data: bytes) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parse, "_parse_plain", lambda _: None)
        return outcome(data)


def is_fast(data: bytes) -> bool:
    return parse._parse_plain(data) is not None


def test_what_we_write_is_read_fast() -> None:
    assert is_fast(DATA)
    assert outcome(DATA) == slowly(DATA) == factory.full_manifest()
    assert is_fast(m.to_json(factory.make_manifest()))


@given(contents())
@settings(max_examples=60, deadline=None)
def test_any_manifest(made: tuple[m.Manifest, dict[str, bytes]]) -> None:
    data = m.to_json(made[0])
    assert is_fast(data)
    found, expected = parse.parse_manifest(data), slowly(data)
    assert found == expected == made[0]
    assert m.to_json(found) == data


def test_what_is_the_same_is_one_object() -> None:
    kernels = parse.parse_manifest(DATA).kernels
    (one, _), (two,) = kernels[0].binaries, kernels[1].binaries
    assert one.metadata is two.metadata
    assert one.specialization.constants is two.specialization.constants


@pytest.mark.parametrize("seed", range(8))
def test_one_byte_changed(seed: int) -> None:
    """The result is the same, problems and all, as without the fast way."""
    chosen = random.Random(seed)
    at = DATA.index(b'"binaries"')
    for _ in range(60):
        place = chosen.randrange(at, len(DATA))
        new = bytes([chosen.choice(b'"\\{}[]:,0a ')])
        for data in (
            DATA[:place] + new + DATA[place + 1 :],
            DATA[:place] + new + DATA[place:],
            DATA[:place] + DATA[place + 1 :],
        ):
            assert outcome(data) == slowly(data)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_piece_moved(data: st.DataObject) -> None:
    """Some text of a manifest is put somewhere else in it."""
    start = data.draw(st.integers(0, len(DATA)))
    piece = DATA[start : start + data.draw(st.integers(0, 400))]
    at = data.draw(st.integers(0, len(DATA)))
    mixed = DATA[:at] + piece + DATA[at:]
    assert outcome(mixed) == slowly(mixed)


def change(value: Any, *path: Any, to: Any) -> None:
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = to


BINARY = ("kernels", 0, "binaries", 0)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ((*BINARY, "launch_key"), 5),
        ((*BINARY, "launch_key"), 'quotes " and \\ and \x01 and \x7f and é'),
        ((*BINARY, "launch_key"), ',"specialization":{"signature":'),
        ((*BINARY, "cubin"), None),
        ((*BINARY, "more"), 1),
        ((*BINARY, "metadata"), {"binaries": [{"launch_key": "x"}]}),
        ((*BINARY, "metadata"), {"a": {"resources": 1}, ',"resources":': 2}),
        ((*BINARY, "metadata"), {"deep": json.loads("[" * 40 + "]" * 40)}),
        ((*BINARY, "specialization", "options"), {"metadata": {"x": {}}}),
        ((*BINARY, "specialization", "constants"), [[[1.5], 2]]),
        ((*BINARY, "specialization", "constants"), [[[True], 2]]),
        ((*BINARY, "specialization", "constants"), [[[1 << 70], 2]]),
        ((*BINARY, "specialization", "constants"), [[[1], 1 << 70]]),
        ((*BINARY, "specialization", "attributes"), [[[1], [["a", 1, 2]]]]),
        ((*BINARY, "resources", "registers"), "many"),
        ((*BINARY, "models"), [0.5]),
        ((*BINARY, "workloads"), {}),
        (BINARY, []),
        (("kernels", 0, "binaries"), []),
        (("kernels", 0, "binaries"), "a string"),
        (("kernels", 0, "binaries"), {}),
        (("kernels", 0, "binaries"), [[]]),
        (("kernels", 0, "globals"), [{"binaries": [{"launch_key": ""}]}]),
        (("kernels",), {"binaries": [{"launch_key": ""}]}),
        (("kernels", 0), 5),
        (("format",), 2),
        (("unknown",), 2),
        (("provider", "name"), '"binaries":[{"launch_key":'),
    ],
)
def test_something_else_in_its_place(path: tuple[Any, ...], to: Any) -> None:
    raw = json.loads(DATA)
    change(raw, *path, to=to)
    data = json.dumps(raw, separators=(",", ":")).encode()
    assert outcome(data) == slowly(data)


def test_texts_that_are_not_as_we_write_them() -> None:
    text = DATA.decode()
    first = text.index('{"launch_key":')
    end = text.index('"}', text.index('"cubin"', first)) + 2
    binary = text[first:end]
    lists = (
        f"[{binary}{binary}]", f"[{binary},]", f"[,{binary}]", f"[{binary} ,{binary}]", f"[{binary}", f"[{binary}}}",
        f"[{binary},5]", f"[{binary}]]", f"[[{binary}]]", f"[{binary},{binary}]", f"[ {binary}]",
        f"[{binary.replace(',', ' ,')}]", f'[{binary[:-1]},"cubin":"x"}}]', f'[{binary.replace("{", "{ ", 1)}]',
        f'[{binary.replace(chr(34) + "launch_key" + chr(34), chr(34) + "launch_key" + chr(34) + ":" + "1,")}]',
    )  # fmt: skip
    start = text.index("[", text.index('"binaries"'))
    stop = text.index("]}", text.index('"cubin"', text.index('"cubin"', first) + 9)) + 1
    accepted = 0
    for some in lists:
        data = (text[:start] + some + text[stop:]).encode()
        found = outcome(data)
        assert found == slowly(data)
        accepted += isinstance(found, m.Manifest)
    assert accepted >= 3


def test_a_mark_that_is_known_beforehand_would_be_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest cannot hold the mark of a list: it is drawn for each parse."""
    monkeypatch.setattr("os.urandom", bytes)
    raw = json.loads(DATA)
    raw["kernels"].insert(0, {**raw["kernels"][0], "binaries": f"{bytes(16).hex()}:0"})
    data = json.dumps(raw, separators=(",", ":")).encode()
    assert outcome(data) == slowly(data)
    assert not is_fast(data)


def test_the_lists_must_all_be_put_back() -> None:
    repeats = Repeats(parse._BINARY)
    repeats.cut(DATA.decode())
    for manifest in (None, [], {}, {"kernels": None}, {"kernels": [{}, 5]}):
        with pytest.raises(NotPlainError):
            repeats.put_back(manifest)

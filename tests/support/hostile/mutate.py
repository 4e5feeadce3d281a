"""Ways to change bytes and JSON, all of them by a generator of random numbers that is given."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

PERIOD = 2**61 - 1
"""``hash(n) == hash(n + PERIOD)``."""
LONG = 5000
TEXTS = (
    "", "\0", "a\0b", "x" * LONG, "\u4e00" * 300, "\U0001f600", "../../canary/notes.txt", "/etc/passwd", "..", ".",
    "a/../../b", "\x1b[2J\x1b]0;title\x07", "line\nline", "\u202egnp.exe", "constexpr", "sm_90", "sm_999", "os",
    "builtins", "vllm.model_executor", "__main__", "torch.nn", "*fp32", "i32", "None", "nan", "true", "-1", "1e400",
    "{}", "%s%n", "\ufeff", "\ud800",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 31, 32, 64, 255, 256, 1025, 2**31 - 1, 2**31, 2**32, 2**53 + 1, PERIOD, 2**63 - 1, 2**63, -(2**63),
    2**64 - 1, 2**64, 10**30, 0.0, -0.0, 0.5, 1e308, 1.0, 5e-324, True, False, None,
)  # fmt: skip
_HUGE = "\ue000huge\ue000"
_TWICE = "\ue000twice\ue000"


def odd(chosen: random.Random) -> Any:
    """Return a value that is seldom meant."""
    match chosen.randrange(8):
        case 0 | 1 | 2:
            return chosen.choice(NUMBERS)
        case 3 | 4:
            return chosen.choice(TEXTS)
        case 5:
            return chosen.choice(([], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"a": {}}}))
        case 6:
            value: Any = []
            for _ in range(chosen.choice((3, 31, 33, 40, 200))):
                value = [value] if chosen.random() < 0.5 else {"a": value}
            return value
        case _:
            return _HUGE


def places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield (list or object, place in it) for all that is in a JSON value."""
    if isinstance(value, dict | list) and depth < 60:
        for key in [*value] if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key], depth + 1)


def some_place(value: Any, chosen: random.Random) -> tuple[Any, Any] | None:
    """Return a random place in a JSON value: step by step, so that what is rare is met as often as what is not."""
    found = None
    while isinstance(value, dict | list) and value:
        key = chosen.choice([*value]) if isinstance(value, dict) else chosen.randrange(len(value))
        found = value, key
        value = value[key]
        if chosen.random() < 0.2:
            break
    return found


def change_json(value: Any, chosen: random.Random, times: int = 1) -> Any:
    """Return a copy of a JSON value with some changes. `text_of` writes it."""
    value = copy.deepcopy(value)
    for _ in range(times):
        found = some_place(value, chosen)
        if found is not None:
            chosen.choice(_CHANGES)(*found, chosen)
    return value


def _put(inside: Any, key: Any, chosen: random.Random) -> None:
    inside[key] = odd(chosen)


def _near(inside: Any, key: Any, chosen: random.Random) -> None:
    """Change a little."""
    match inside[key]:
        case bool(old):
            inside[key] = not old
        case int(old) | float(old):
            inside[key] = chosen.choice((old + 1, -old, old * 2, old - 1, str(old), float(old), old + PERIOD))
        case str(old):
            at = chosen.randrange(len(old) + 1)
            more = chosen.choice(("", "x", "/", "\0", " ", "A", "../", old))
            inside[key] = old[:at] + more + old[at + chosen.randrange(3) :]
        case None:
            inside[key] = 0
        case _:
            inside[key] = [inside[key]]


def _drop(inside: Any, key: Any, chosen: random.Random) -> None:
    del inside[key]


def _repeat(inside: Any, key: Any, chosen: random.Random) -> None:
    if isinstance(inside, list):
        inside[key:key] = [copy.deepcopy(inside[key])] * chosen.choice((1, 1, 2, 50))
    else:
        inside[f"{_TWICE}{key}"] = inside[key]


def _add(inside: Any, key: Any, chosen: random.Random) -> None:
    if isinstance(inside, list):
        inside.append(odd(chosen))
    else:
        inside[chosen.choice((*TEXTS, f"{key}x"))] = odd(chosen)


def _rename(inside: Any, key: Any, chosen: random.Random) -> None:
    if isinstance(inside, dict):
        kept = {(f"{name}s" if name == key else name): held for name, held in inside.items()}
        inside.clear()
        inside.update(kept)
    else:
        inside.reverse()


def _shuffle(inside: Any, key: Any, chosen: random.Random) -> None:
    if isinstance(inside, list):
        chosen.shuffle(inside)
    else:
        items = [*inside.items()]
        chosen.shuffle(items)
        inside.clear()
        inside.update(items)


def _swap(inside: Any, key: Any, chosen: random.Random) -> None:
    other = chosen.choice([*inside] if isinstance(inside, dict) else range(len(inside)))
    inside[key], inside[other] = inside[other], inside[key]


_CHANGES: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    _put, _put, _put, _near, _near, _near, _drop, _repeat, _add, _rename, _shuffle, _swap,
)  # fmt: skip


def text_of(value: Any, dump: Callable[[Any], str] | None = None) -> bytes:
    """Return the text of a changed value: with numbers of 5,000 digits and keys that are there twice."""
    text = (dump or (lambda held: json.dumps(held, separators=(",", ":"), ensure_ascii=False) + "\n"))(value)
    for mark in (_HUGE, json.dumps(_HUGE)[1:-1]):
        text = text.replace(f'"{mark}"', "1" + "0" * LONG)
    for mark in (_TWICE, json.dumps(_TWICE)[1:-1]):
        text = text.replace(mark, "")
    return text.encode("utf-8", "surrogatepass")


def change_bytes(data: bytes, chosen: random.Random) -> bytes:  # noqa: PLR0911 - a table
    """Return bytes with something wrong: bits, cuts, pieces put elsewhere, more behind or between."""
    at, other = sorted((chosen.randrange(len(data) + 1), chosen.randrange(len(data) + 1)))
    length = chosen.choice((1, 4, 16, 512, 4096))
    match chosen.randrange(9):
        case 0 | 1:
            changed = bytearray(data)
            for _ in range(chosen.choice((1, 1, 1, 2, 8, 64))) if data else ():
                changed[chosen.randrange(len(changed))] ^= 1 << chosen.randrange(8)
            return bytes(changed)
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[other:]
        case 4:
            return data[:at] + chosen.randbytes(length) + data[at:]
        case 5:
            return data[:at] + data[other : other + length] + data[at + length :]
        case 6:
            return data + chosen.choice((b"\0", b"\n", data, chosen.randbytes(length), bytes(length)))
        case 7:
            return data[:at] + bytes(length) + data[at + length :]
        case _:
            return chosen.choice((b"", b"\0", b"{}", b"[]", b"\xff" * length, chosen.randbytes(length), data[at:]))

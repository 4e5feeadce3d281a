"""What a file may be in place of the one that belongs there: damaged, changed, a link, a FIFO, a folder, huge."""

import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gdn_aot._files import read_regular
from gdn_aot.codec import Form
from hostile.mutate import change_bytes, change_json, text_of
from hostile.places import Place, remove

KINDS = (
    "link to a file", "link to a folder", "dangling link", "loop", "folder", "FIFO", "socket", "device", "link to zero",
    "sparse", "no permission", "missing", "link to FIFO", "link to memory",
)  # fmt: skip


def plant(path: Path, place: Place, chosen: random.Random, kind: str = "") -> str:
    """Put something else where a file or a folder is; return what."""
    kind = kind or chosen.choice(KINDS)
    if kind in ("link to a file", "link to a folder"):
        files, folders = ("notes.txt", "empty", "../bystander.txt"), (".", "artifacts", "packs")
        target = place.canary / chosen.choice(files if kind == "link to a file" else folders)
        _make_room(path)
        path.symlink_to(target)
    else:
        plant_plain(path, kind, outside=place.files)
    return kind


def _make_room(path: Path) -> None:
    if os.path.lexists(path):
        remove(path)


def plant_plain(path: Path, kind: str, *, outside: Path) -> None:  # noqa: C901 - a table
    """Put one of `KINDS` but the first two where a file or a folder is; ``outside`` is where links lead to."""
    if kind != "no permission":
        _make_room(path)
    match kind:
        case "dangling link":
            path.symlink_to(outside / "not there")
        case "loop":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
            (path / "inside").write_bytes(b"x")
        case "FIFO":
            os.mkfifo(path)
        case "socket":
            _socket(path)
        case "device":
            _device(path)
        case "link to zero":
            path.symlink_to("/dev/zero")
        case "link to memory":
            path.symlink_to("/proc/self/mem")
        case "link to FIFO":
            _make_room(outside / "fifo")
            os.mkfifo(outside / "fifo")
            path.symlink_to(outside / "fifo")
        case "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 36)
        case "no permission" if path.is_file():
            path.chmod(0)


def _socket(path: Path) -> None:
    """Make a socket; its name must be short, so it is made relative to its folder."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name[:100])
    finally:
        os.fchdir(before)
        os.close(before)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except OSError:  # not root
        path.symlink_to("/dev/zero")


_MOST = 16 << 20
"""Bytes of a file that is read to be changed."""
Layout = Callable[[Any], str]


def spoil(path: Path, place: Place, chosen: random.Random, form: Form[Any] | None = None) -> str:
    """Damage a file, change what it says, or put something else in its place; return how.

    What a JSON file says is changed as a value; with its ``form`` mostly written as that writes it.
    """
    drawn = chosen.random()
    try:
        data = read_regular(path, _MOST) if drawn > 0.15 else None
    except OSError:  # something else was planted before
        data = None
    if data is None:
        return plant(path, place, chosen)
    if drawn < 0.4 or not path.name.endswith((".json", ".lock", ".jsonl")):
        new = change_bytes(data, chosen)
    elif path.suffix == ".jsonl":
        new = _lines(data, chosen)
    else:
        new = _json(data, chosen, form)
    remove(path)
    path.write_bytes(new)
    return "damaged" if drawn < 0.4 else "changed"


def _json(data: bytes, chosen: random.Random, form: Form[Any] | None) -> bytes:
    try:
        value = change_json(json.loads(data), chosen, chosen.choice((1, 1, 1, 2, 3)))
    except (ValueError, RecursionError):  # it was damaged before, or is no JSON
        return change_bytes(data, chosen)
    if drawn_deep := chosen.random() < 0.03:
        value = {**value, "deep": 0} if isinstance(value, dict) else value
    text = text_of(value, lambda held: json.dumps(held, indent=2, ensure_ascii=False) + "\n")
    if drawn_deep:
        text = text.replace(b'"deep": 0', b'"deep": ' + b"[" * 100_000 + b"]" * 100_000)
    if form is None or chosen.random() < 0.2:
        return text
    try:
        record = form._decoder.decode(text)
        return form._layout(form._encoder.encode(record))
    except (ValueError, RecursionError, OverflowError, TypeError):
        return text


def _lines(data: bytes, chosen: random.Random) -> bytes:
    """Change lines, each of which is JSON."""
    lines = [line for line in data.split(b"\n") if line]
    at = chosen.randrange(len(lines))
    match chosen.randrange(4):
        case 0 | 1:
            lines[at] = text_of(change_json(json.loads(lines[at]), chosen, chosen.choice((1, 2)))).strip()
        case 2:
            lines[at] = change_bytes(lines[at], chosen)
        case _:
            chosen.shuffle(lines)
    return b"\n".join(lines) + b"\n"

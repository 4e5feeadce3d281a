from __future__ import annotations

import json
import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifact import factory
from gdn_aot.artifact import container, tar
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.verify import open_artifact, verify
from gdn_aot.errors import Problem, UnknownFormatError, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

BLOBS = sorted(factory.make_blobs())
FIRST = f"blobs/{BLOBS[0]}"
CONTENT = factory.make_blobs()[BLOBS[0]]


def check(data: bytes) -> list[Problem]:
    """Verify bytes; check that opening agrees."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar.zst"
        path.write_bytes(data)
        problems = verify(path)
        if problems:
            with pytest.raises(VerificationError):
                open_artifact(path)
        else:
            open_artifact(path)
    return problems


def texts(data: bytes) -> list[str]:
    return [str(problem) for problem in check(data)]


def sound_bytes() -> bytes:
    return factory.pack(factory.members())


def test_sound() -> None:
    assert check(sound_bytes()) == []


def test_any_changed_byte_is_detected() -> None:
    data, generator = sound_bytes(), random.Random(0)
    ends = {*range(40), *range(len(data) - 60, len(data))}
    for position in sorted(ends.union(generator.sample(range(len(data)), 400))):
        changed = bytearray(data)
        changed[position] ^= generator.randrange(1, 256)
        assert check(bytes(changed)), position


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_byte_of_any_value_is_detected(data: st.DataObject) -> None:
    changed = bytearray(sound_bytes())
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] = data.draw(st.integers(0, 255).filter(lambda value: value != changed[position]))
    assert check(bytes(changed))


def test_truncation_at_any_length_is_detected() -> None:
    data = sound_bytes()
    ends = {*range(40), *range(len(data) - 60, len(data))}
    for length in sorted(ends.union(range(0, len(data), 7))):
        assert check(data[:length]), length


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
@example(zstandard.FRAME_HEADER)
@example(container.trailer(bytes(32)))
def test_garbage_is_reported(data: bytes) -> None:
    assert check(data)
    assert check(factory.wrap(data))
    assert check(factory.wrap(zstandard.compress(data)))


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.integers(0, 6))
def test_garbage_inside_is_reported(garbage: bytes, place: int) -> None:
    parts = factory.members()
    assert check(factory.pack([*parts[:place], garbage, *parts[place:]]))
    assert check(factory.pack([factory.member("manifest.json", garbage), *parts[1:]]))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_changed_header_with_right_checksum_is_reported(data: st.DataObject) -> None:
    parts = factory.members()
    number = data.draw(st.integers(0, len(parts) - 1))
    header = bytearray(parts[number][: tar.BLOCK])
    position = data.draw(st.integers(0, tar.BLOCK - 1).filter(lambda value: not 148 <= value < 156))
    header[position] = data.draw(st.integers(0, 255).filter(lambda value: value != header[position]))
    parts[number] = factory.reseal(bytes(header)) + parts[number][tar.BLOCK :]
    assert check(factory.pack(parts))


def edited(change: Callable[[bytearray], object], number: int = 1) -> bytes:
    """Return an artifact with one header changed and its checksum made right."""
    parts = factory.members()
    header = bytearray(parts[number][: tar.BLOCK])
    change(header)
    parts[number] = factory.reseal(bytes(header)) + parts[number][tar.BLOCK :]
    return factory.pack(parts)


def named(name: str) -> bytes:
    """Return an artifact with an extra empty member."""
    return factory.pack([*factory.members(), factory.member(name, b"")])


def put(start: int, value: bytes) -> Callable[[bytearray], object]:
    return lambda header: header.__setitem__(slice(start, start + len(value)), value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (b"1", "a hard link"),
        (b"2", "a symbolic link"),
        (b"3", "a character device"),
        (b"4", "a block device"),
        (b"5", "a directory"),
        (b"6", "a FIFO"),
        (b"x", "a pax header"),
        (b"g", "a pax global header"),
        (b"L", "a GNU long name"),
        (b"K", "a GNU long link"),
        (b"S", "a GNU sparse file"),
        (b"7", "of type '7'"),
        (b"\0", "of type '\\x00'"),
        (b"\xe9", "of type '\\xe9'"),
    ],
)
def test_only_regular_files(kind: bytes, name: str) -> None:
    assert texts(edited(put(156, kind))) == [f"{FIRST}: is {name}, not a regular file"]


@pytest.mark.parametrize(
    ("name", "shown", "fault"),
    [
        ("../x", "../x", "a path with .."),
        ("blobs/../../x", "blobs/../../x", "a path with .."),
        ("/etc/passwd", "/etc/passwd", "an absolute path"),
        ("blobs\\x", "blobs\\\\x", "a backslash in its path"),
        ("blobs/" + "A" * 64, "blobs/" + "A" * 64, "another name"),
        ("./manifest.json", "./manifest.json", "another name"),
        ("evil\x1b[2J", "evil\\x1b[2J", "another name"),
        ("", "", "another name"),
    ],
)
def test_names(name: str, shown: str, fault: str) -> None:
    found = texts(named(name))
    assert str(Problem(shown, f"has {fault}, expected manifest.json or blobs/<sha256>")) in found
    assert str(Problem(shown, "is not in the blob table")) in found


def test_name_split_over_the_prefix() -> None:
    problems = texts(edited(put(345, b"../..")))
    assert f"../../{FIRST}: has a path with .., expected manifest.json or blobs/<sha256>" in problems


@pytest.mark.parametrize(
    ("start", "value", "field"),
    [
        (100, b"0000755", "mode"),
        (108, b"0001750", "uid"),
        (116, b"0001750", "gid"),
        (257, b"ustar  \0", "magic"),
        (265, b"root", "uname"),
        (297, b"root", "gname"),
        (157, b"/etc/passwd", "linkname"),
        (329, b"0000001", "device"),
        (505, b"x", "padding"),
        (136, b"\x80", "mtime"),
        (90, b"x", "name"),
    ],
)
def test_canonical_form(start: int, value: bytes, field: str) -> None:
    found = texts(edited(put(start, value)))
    assert any(f"is not in canonical form: {field}" in text for text in found) or field == "name"
    assert found


def test_size_in_another_notation() -> None:
    assert texts(edited(put(124, b"\x80" + bytes(11)))) == ["archive: size field is not octal"]


def test_header_checksum() -> None:
    parts = factory.members()
    parts[1] = parts[1][:148] + b"000001\0 " + parts[1][156:]
    assert texts(factory.pack(parts)) == ["archive: header checksum is wrong"]


def test_time_differs_from_the_manifest() -> None:
    parts = factory.members()
    parts[1] = factory.member(FIRST, CONTENT, mtime=5)
    assert texts(factory.pack(parts)) == [f"{FIRST}: has the time 5, expected 0"]


def test_members_and_table_disagree() -> None:
    parts = factory.members()
    extra = factory.sha256(b"extra")
    other = factory.sha256(CONTENT + b"x")
    first = "manifest.json"
    size, total = len(factory.unpack(sound_bytes())), "but the manifest accounts for"

    def holds(change: int) -> str:
        return f"compressed data: holds {size + change} bytes, {total} {size}"

    blocks = tar.member_size(len(CONTENT))
    assert texts(factory.pack([*parts, factory.member(f"blobs/{extra}", b"extra")]))[:2] == [
        holds(1024),
        f"blobs/{extra}: is not in the blob table",
    ]
    assert texts(factory.pack([parts[0], *parts[2:]])) == [
        holds(-blocks),
        f"{FIRST}: missing, but in the blob table",
    ]
    assert f"{FIRST}: is in the archive twice" in texts(factory.pack([*parts, parts[1]]))
    assert f"{first}: is in the archive twice" in texts(factory.pack([*parts, parts[0]]))
    assert texts(factory.pack([parts[0], parts[2], parts[1], *parts[3:]])) == [f"{FIRST}: is out of order"]
    changed = factory.member(FIRST, bytes(len(CONTENT)))
    assert texts(factory.pack([parts[0], changed, *parts[2:]])) == [
        f"{FIRST}: the content has the SHA-256 {factory.sha256(bytes(len(CONTENT)))}"
    ]
    longer = factory.member(FIRST, CONTENT + b"x")
    assert texts(factory.pack([parts[0], longer, *parts[2:]])) == [
        f"{FIRST}: has {len(CONTENT) + 1} bytes, expected {len(CONTENT)}",
        f"{FIRST}: the content has the SHA-256 {other}",
    ]


def test_manifest_is_first() -> None:
    parts = factory.members()
    assert texts(factory.pack([parts[1], parts[0], *parts[2:]])) == [
        f"{FIRST}: is the first member, expected manifest.json"
    ]
    assert texts(factory.pack([])) == ["manifest.json: missing"]


def test_padding_and_end() -> None:
    parts = factory.members()
    assert parts[1].endswith(b"\0")
    bad = [parts[0], parts[1][:-1] + b"x", *parts[2:]]
    assert texts(factory.pack(bad)) == [f"{FIRST}: is padded with something other than zeros"]
    for end in (tar.END + bytes(512), tar.END + b"x", bytes(512) + b"x" * 512):
        assert "archive: goes on after its end marker" in texts(factory.pack(parts, end=end))
    for end in (b"", bytes(512), bytes(1023)):
        assert "compressed data: ends in the middle of a member" in texts(factory.pack(parts, end=end))


def test_after_the_frame() -> None:
    data = sound_bytes()
    frame = data[:-47]
    for extra in (b"x", frame, container.trailer(bytes(32))):
        assert texts(factory.wrap(frame + extra)) == [f"file: has {len(extra)} bytes after the compressed data"]
        assert texts(data + extra)[0].startswith("trailer: ")
    assert texts(frame + container.trailer(bytes(32))) == ["trailer: the digest is not that of the file"]


def test_several_problems_in_one_report() -> None:
    parts = factory.members()
    value = json.loads(m.to_json(factory.full_manifest()))
    value["kernels"][0]["choices"][0]["config"]["num_warps"] = "4"
    value["mode"] = 3
    parts[0] = factory.member("manifest.json", json.dumps(value).encode())
    parts[2] = b"".join((tar.encode("../evil", 5, 0), b"12345", bytes(507)))
    data = factory.pack(parts)[:-1] + b"?"
    assert texts(data) == [
        "trailer: the digest is not that of the file",
        "mode: expected str, got int",
        "kernels[0].choices[0].config.num_warps: expected int, got str",
        "../evil: has a path with .., expected manifest.json or blobs/<sha256>",
        "../evil: is out of order",
    ]


def test_unknown_format(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(factory.pack([factory.member("manifest.json", b'{"format":2,"anything":[]}')]))
    assert [str(problem) for problem in verify(path)] == ["format: 2 is not a known format version, only 1 is"]
    with pytest.raises(UnknownFormatError):
        open_artifact(path)


def test_frame_settings() -> None:
    content = b"".join([*factory.members(), tar.END])
    compressor = zstandard.ZstdCompressor
    assert texts(factory.wrap(compressor(write_checksum=False).compress(content))) == [
        "compressed data: must state its size, have a checksum and need no dictionary"
    ]
    stream = compressor(write_checksum=True).compressobj()
    assert len(texts(factory.wrap(stream.compress(content) + stream.flush()))) == 1
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_checksum=True)
    large = compressor(compression_params=wide).compressobj(size=1 << 28)
    frame = large.compress(content)
    assert "needs a window of" in texts(factory.wrap(frame + large.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)))[0]


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "none", tmp_path / "fifo", "a\0b", "/dev/zero"):
        with pytest.raises(UsageError) as caught:
            verify(path)
        assert caught.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_unreadable_file(sound: Path) -> None:
    sound.chmod(0)
    with pytest.raises(UsageError):
        verify(sound)


def test_empty_file() -> None:
    assert texts(b"") == ["file: is empty"]


def test_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    assert [str(problem) for problem in verify(path)] == ["file: is larger than 1073741824 bytes"]

import os
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import factory
import pytest
import zstandard
from exhausting import memory_of_verify
from factory import dump, plain
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gdn_aot.artifact import tar
from gdn_aot.artifact.trailer import trailer
from gdn_aot.artifact.verify import examine, open_artifact
from gdn_aot.errors import Problem, UsageError, VerificationError

BLOBS = list(factory.make_blobs())
FIRST = f"blobs/{BLOBS[0]}"
CONTENT = factory.make_blobs()[BLOBS[0]]


def check(data: bytes) -> list[Problem]:
    """Verify bytes; check that opening agrees."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar.zst"
        path.write_bytes(data)
        problems = list(examine(path).problems)
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


def test_any_changed_byte_is_detected() -> None:
    data, generator = sound_bytes(), random.Random(0)
    ends = {*range(40), *range(len(data) - 60, len(data))}
    for position in sorted(ends.union(generator.sample(range(len(data)), 400))):
        changed = bytearray(data)
        changed[position] ^= generator.randrange(1, 256)
        assert check(bytes(changed)), position


def test_truncation_at_any_length_is_detected() -> None:
    data = sound_bytes()
    ends = {*range(40), *range(len(data) - 60, len(data))}
    for length in sorted(ends.union(range(0, len(data), 7))):
        assert check(data[:length]), length


@settings(max_examples=200)
@given(st.binary(max_size=300))
@example(zstandard.FRAME_HEADER)
@example(trailer(bytes(32)))
def test_garbage_is_reported(data: bytes) -> None:
    assert check(data)
    assert check(factory.wrap(data))
    assert check(factory.wrap(zstandard.compress(data)))


@settings(max_examples=100)
@given(st.binary(min_size=1, max_size=600), st.integers(0, 6))
def test_garbage_inside_is_reported(garbage: bytes, place: int) -> None:
    parts = factory.members()
    assert check(factory.pack([*parts[:place], garbage, *parts[place:]]))
    assert check(factory.pack([factory.member("manifest.json", garbage), *parts[1:]]))


@settings(max_examples=100)
@given(st.data())
def test_changed_header_with_right_checksum_is_reported(data: st.DataObject) -> None:
    number, header = data.draw(st.sampled_from([*enumerate(factory.members())]))
    position = data.draw(st.integers(0, tar.BLOCK - 1).filter(lambda value: not 148 <= value < 156))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != header[position]))
    assert check(edited(put(position, bytes([value])), number))


def edited(change: Callable[[bytearray], object], number: int = 1) -> bytes:
    """Return an artifact with one header changed and its checksum made right."""
    parts = factory.members()
    header = bytearray(parts[number][: tar.BLOCK])
    change(header)
    parts[number] = factory.reseal(bytes(header)) + parts[number][tar.BLOCK :]
    return factory.pack(parts)


def put(start: int, value: bytes) -> Callable[[bytearray], object]:
    return lambda header: header.__setitem__(slice(start, start + len(value)), value)


MORE = "archive: continues after the last member of the manifest"
NOT_CALLED_FOR = f"{FIRST}: member 1 is not what the manifest calls for: a file of this name, size and time"


@pytest.mark.parametrize(
    ("start", "value"),
    [
        (0, b"../x\0"),
        (0, b"/etc/passwd\0"),
        (6, b"A" * 64),
        (90, b"x"),  # behind the name
        (345, b"../.."),  # the name's prefix
        (100, b"0000755"),  # mode
        (108, b"0001750"),  # uid
        (124, b"\x80" + bytes(11)),  # size in another notation
        (136, b"\x80"),  # time
        (156, b"2"),  # kind
        (157, b"/etc/passwd"),  # link name
        (257, b"ustar  \0"),  # magic
        (265, b"root"),  # owner
        (505, b"x"),  # padding
    ],
)
def test_one_spelling_of_a_header(start: int, value: bytes) -> None:
    assert texts(edited(put(start, value))) == [NOT_CALLED_FOR]
    of_manifest = texts(edited(put(start, value), number=0))
    assert any(text.startswith("manifest.json: ") for text in of_manifest) or start == 124


def test_header_checksum() -> None:
    parts = factory.members()
    parts[1] = parts[1][:148] + b"000001\0 " + parts[1][156:]
    assert texts(factory.pack(parts)) == [NOT_CALLED_FOR]


def test_members_and_table_disagree() -> None:
    parts = factory.members()
    size, total = len(factory.unpack(sound_bytes())), "but the manifest accounts for"

    def holds(change: int) -> str:
        return f"compressed data: holds {size + change} bytes, {total} {size}"

    blocks = tar.member_size(len(CONTENT))
    extra = factory.member(f"blobs/{factory.sha256(b'extra')}", b"extra")
    assert texts(factory.pack([*parts, extra])) == [holds(1024), MORE]
    assert texts(factory.pack([*parts, parts[1]])) == [holds(blocks), MORE]
    assert texts(factory.pack([parts[0], *parts[2:]])) == [holds(-blocks), NOT_CALLED_FOR]
    assert texts(factory.pack([parts[0], parts[2], parts[1], *parts[3:]])) == [NOT_CALLED_FOR]
    changed = factory.member(FIRST, bytes(len(CONTENT)))
    assert texts(factory.pack([parts[0], changed, *parts[2:]])) == [
        f"{FIRST}: the content has the SHA-256 {factory.sha256(bytes(len(CONTENT)))}"
    ]
    longer = factory.member(FIRST, CONTENT + b"x")
    assert texts(factory.pack([parts[0], longer, *parts[2:]])) == [NOT_CALLED_FOR]


def test_manifest_is_first() -> None:
    parts = factory.members()
    first = ["manifest.json: is not the first member, or not written as gdn-aot writes it"]
    assert texts(factory.pack([parts[1], parts[0], *parts[2:]])) == first
    assert texts(factory.pack([])) == first
    assert texts(factory.pack([tar.encode("manifest.json", (32 << 20) + 1, 0)])) == [
        "manifest.json: is larger than 33554432 bytes"
    ]


def test_padding_and_end() -> None:
    parts = factory.members()
    assert parts[1].endswith(b"\0")
    assert texts(factory.pack([parts[0], parts[1][:-1] + b"x", *parts[2:]])) == [
        f"{FIRST}: is padded with something other than zeros"
    ]
    assert texts(factory.pack([parts[0][:-1] + b"x", *parts[1:]])) == [
        "manifest.json: its header or padding is not what the manifest calls for"
    ]
    for end in (tar.END + bytes(512), tar.END + b"x", bytes(512) + b"x" * 512):
        assert MORE in texts(factory.pack(parts, end=end))
    for end in (b"", bytes(512), bytes(1023)):
        assert "compressed data: ends in the middle of a member" in texts(factory.pack(parts, end=end))


def test_after_the_frame() -> None:
    data = sound_bytes()
    frame = data[:-47]
    for extra in (b"x", frame, trailer(bytes(32))):
        assert texts(factory.wrap(frame + extra)) == [f"file: has {len(extra)} bytes after the compressed data"]
        assert texts(data + extra)[0].startswith("trailer: ")
    assert texts(frame + trailer(bytes(32))) == ["trailer: the digest is not that of the file"]


def test_several_problems_in_one_report() -> None:
    parts = factory.members()
    value = plain()
    value["kernels"][0]["choices"][0]["config"]["num_warps"] = "4"
    value["mode"] = 3
    changed = factory.pack([factory.member("manifest.json", dump(value)), *parts[1:]])
    assert texts(changed[:-1] + b"?") == [
        "trailer: the digest is not that of the file",
        "mode: expected inference or train, got 3",
        "kernels[0].choices[0].config.num_warps: expected int, got str",
    ]
    padded = [parts[0], parts[1][:-1] + b"x", parts[2][:600] + b"x" + parts[2][601:], *parts[3:]]
    digest = factory.sha256(parts[2][512:600] + b"x" + parts[2][601 : 512 + len(factory.CUBINS[0])])
    assert texts(factory.pack(padded)[:-1] + b"?") == [
        "trailer: the digest is not that of the file",
        f"{FIRST}: is padded with something other than zeros",
        f"blobs/{BLOBS[1]}: the content has the SHA-256 {digest}",
    ]


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
            examine(path)
        assert caught.value.exit_code == 2


def test_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate((128 << 20) + 1)
    assert [str(problem) for problem in examine(path).problems] == ["file: is larger than 134217728 bytes"]


# Files made to exhaust the reader: it must answer, with little memory


def free_json(items: bytes) -> bytes:
    """Return a manifest in which only the mode is wrong, with a list of these items in the metadata of a binary."""
    value = factory.plain()
    value["mode"] = "both"
    value["parts"]["metadata"][0]["x"] = "here"
    return factory.dump(value).replace(b'"here"', b"[%s]" % items)


# Each entry builds the bytes of manifest.json, or of the whole tar, that a hostile file would have.
MANIFESTS: dict[str, Callable[[], bytes]] = {
    "nesting": lambda: b'{"format":1,"kernels":' + b"[" * 100_000_000,
    "nesting below the caps": lambda: b'{"format":1,"kernels":' + b"[" * 1_999_990,
    "many objects": lambda: b'{"format":1,"kernels":[%s]}' % b",".join([b'{"a":1}'] * 990_000),
    "many keys": lambda: b'{"format":1,%s}' % b",".join(b'"k%07d":%d' % (n, n + 1000) for n in range(1_900_000)),
    "many distinct objects": lambda: (
        b'{"format":1,"kernels":[%s]}' % b",".join(b'{"k%06d":1.5}' % n for n in range(990_000))
    ),
    "many strings": lambda: b'{"format":1,"kernels":[%s]}' % b",".join(b'"\\u4e00%06d"' % n for n in range(1_900_000)),
    "many lists": lambda: b'{"format":1,"kernels":[%s]}' % b",".join([b"[1]"] * 990_000),
    "many wide strings": lambda: b'{"format":1,"kernels":["%s\\ud83d\\ude00"]}' % (b"a" * 33_000_000),
    "one long string": lambda: b'{"format":1,"identifier":"%s"}' % (b"a" * 33_000_000),
    "zeros": lambda: bytes(1 << 25),
    "free JSON": lambda: free_json(b",".join(b'{"k%010d":1.5}' % n for n in range(980_000))),
    "nested objects": lambda: free_json(b",".join([b'{"a":' * 31 + b"1" + b"}" * 31] * 64_000)),
    "nested objects below the cap": lambda: free_json(b",".join([b'{"a":' * 31 + b"1" + b"}" * 31] * 6_400)),
    "strings below the cap": lambda: free_json(b",".join(b'"%06d"' % n for n in range(1_990_000))),
    "wide strings": lambda: free_json(b",".join('"😀%06d"'.encode() % n for n in range(2_000_000))),
    "wide strings below the cap": lambda: free_json(b",".join('"😀%d"'.encode() % n for n in range(600_000))),
    "one wide string": lambda: free_json(b'"%s\\ud83d\\ude00"' % (b"a" * 33_000_000)),
    "options that no key has": lambda: rows_with("options", lambda n: {f"x{n}_{k}": None for k in range(80)}, 15_000),
    "metadata of their own": lambda: rows_with("metadata", lambda n: {"x": n}, 60_000),
}


def rows_with(field: str, more: Callable[[int], dict[str, Any]], count: int) -> bytes:
    """Return a manifest with so many binaries, each with a part of its own."""
    value = factory.plain()
    kernel, part = value["kernels"][0], value["parts"][field]
    first, last = kernel["binaries"]
    place = list(value["parts"]).index(field) + 1
    part[:] = [*({**part[0], **more(n)} for n in range(count)), part[0]]
    kernel["binaries"] = [[f"{n}{first[0]}", *first[1:]] for n in range(count)] + [last]
    for number, row in enumerate(kernel["binaries"]):
        row[place] = number
    value["kernels"][1]["binaries"][0][place] = count
    return factory.dump(value)


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifest_takes_little_memory(name: str, tmp_path: Path) -> None:
    data = MANIFESTS[name]()
    content = b"".join((factory.member("manifest.json", data), tar.END))
    path = tmp_path / "bomb"
    fast = zstandard.ZstdCompressor(level=1, write_checksum=True)
    path.write_bytes(factory.wrap(fast.compress(content)))
    del data, content
    assert memory_of_verify(path) < 512


def artifact_of(texts: Iterable[bytes]) -> bytes:
    """Return an artifact with these licence texts, compressed in a hurry."""
    value = factory.plain()
    texts = list(texts)
    digests = [factory.sha256(text) for text in texts]
    value["provider"]["license_files"] += [{"path": f"L{n}", "blob": digest} for n, digest in enumerate(digests)]
    value["blobs"][1:1] = [{"sha256": d, "size": len(t)} for d, t in zip(digests, texts, strict=True)]
    for kernel in value["kernels"]:
        for row in kernel["binaries"]:
            row[-1] += len(texts)
    first, *rest = [factory.member(f"blobs/{digest}", data) for digest, data in factory.make_blobs().items()]
    more = [factory.member(f"blobs/{digest}", text) for digest, text in zip(digests, texts, strict=True)]
    content = b"".join([factory.member("manifest.json", dump(value)), first, *more, *rest, tar.END])
    return factory.wrap(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(content))


def test_many_blobs_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(artifact_of(bytes([n]) * (4 << 20) for n in range(31)))
    assert path.stat().st_size < 1 << 16
    assert memory_of_verify(path, code=0) < 128


def test_a_file_does_not_hold_any_number_of_times_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(artifact_of(bytes([n]) * (4 << 20) for n in range(40)))
    (problem,) = examine(path).problems
    assert (
        problem.what == f"holds {len(factory.unpack(path.read_bytes()))} bytes, over 64 times as many as the file has"
    )


def zeros(stream: Any, size: int) -> bytes:
    chunk = bytes(1 << 20)
    return b"".join(stream.compress(chunk) for _ in range(size >> 20))


@pytest.mark.parametrize("sound_start", [True, False])
def test_decompression_bomb(tmp_path: Path, sound_start: bool) -> None:
    """4 GiB of zeros, from the start or as one more member behind a sound archive."""
    start = b"".join(factory.members()) + tar.encode(f"blobs/{'0' * 64}", 4 << 30, 0) if sound_start else b""
    size = 4 << 30
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=20, write_checksum=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=len(start) + size)
    frame = stream.compress(start) + zeros(stream, size) + stream.flush()
    assert len(frame) < 1 << 20
    path = tmp_path / "bomb"
    path.write_bytes(factory.wrap(frame))
    assert memory_of_verify(path) < 128

"""Files made to exhaust the reader: it must answer, with little memory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factory
import pytest
import zstandard

from gdn_aot.artifact import tar


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
}

SCRIPT = """
import resource, sys
from gdn_aot.cli.main import run
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
codes = [run(["verify", sys.argv[1]]), run(["inspect", "--json", sys.argv[1]])]
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(codes, peak // 1024, file=sys.stderr)
"""


def memory_of_verify(path: Path) -> int:
    """Run verify and inspect in a process of their own; return the most memory they took, in MiB."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False)
    *_, last = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    codes, memory = last.rsplit(" ", 1)
    assert codes == "[5, 5]", done.stderr
    return int(memory)


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifest_takes_little_memory(name: str, tmp_path: Path) -> None:
    data = MANIFESTS[name]()
    content = b"".join((factory.member("manifest.json", data), tar.END))
    path = tmp_path / "bomb"
    fast = zstandard.ZstdCompressor(level=1, write_checksum=True)
    path.write_bytes(factory.wrap(fast.compress(content)))
    del data, content
    assert memory_of_verify(path) < 512


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

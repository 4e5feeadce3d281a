"""As many cubins, with as much to read in each, as an artifact may have."""

from pathlib import Path

import factory
import zstandard
from cubins import attribute, make_cubin
from exhausting import memory_of_verify

from gdn_aot.artifact import tar

TUPLE = "(('*fp32', 'i32'), ('D', ''))"


def test_cubins_that_take_long_to_read(tmp_path: Path) -> None:
    value, info = factory.plain(), attribute(0x11, b"") * 240
    sizes = (8, 8, 4, 8, 8)
    cubins = [
        make_cubin(factory.NAME, parameters=sizes, threads=128, registers=168, info=info, code=b"%08d" % n)
        for n in range(32_000)
    ]
    value["parts"]["signature"][0]["h"] = "*fp32"
    value["parts"]["attributes"][0][1][0] = [1]
    (kernel, *_), parts = value["kernels"], value["parts"]
    key, *row = kernel["binaries"][0]
    key = key.replace(TUPLE, "('*fp32', 'D')")
    parts["constants"] = [[[[3], n], *parts["constants"][0][1:]] for n in range(len(cubins))]
    kernel["binaries"] = [
        [key.replace("'constexpr', 128", f"'constexpr', {n}"), row[0], n, *row[2:-1], n + 1] for n in range(len(cubins))
    ]
    value["kernels"] = [kernel]
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, *cubins)}
    value["blobs"] = [{"sha256": digest, "size": len(data)} for digest, data in blobs.items()]
    members = [factory.member(f"blobs/{digest}", data) for digest, data in blobs.items()]
    content = b"".join([factory.member("manifest.json", factory.dump(value)), *members, tar.END])
    path = tmp_path / "bomb"
    path.write_bytes(factory.wrap(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(content)))
    assert memory_of_verify(path, code=0) < 512

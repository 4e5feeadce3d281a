import random
import re
import struct
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from gdn_aot.artifact.elf import CubinInfo, describe
from gdn_aot.errors import VerificationError

TARGETS = (70, 75, 80, 86, 89, 90, 100, 103, 120, 121)

HEAD = """
.version {version}
.target sm_{arch}
.address_size 64
"""
KERNEL = """
.visible .entry {name}(.param .u64 p) {limit} {{
  .reg .b64 %a<3>; .reg .f32 %f<{count}>;
  ld.param.u64 %a1, [p]; cvta.to.global.u64 %a2, %a1;
  {loads}
  bar.sync 0;
  {stores}
  ret;
}}
"""


def kernel(name: str, count: int, limit: str = "") -> str:
    """Return PTX that holds ``count`` registers over a barrier, so that a limit below that makes it spill."""
    loads = "".join(f"ld.volatile.global.f32 %f{n}, [%a2+{4 * n}];" for n in range(count))
    stores = "".join(f"st.volatile.global.f32 [%a2+{4 * n}], %f{n};" for n in range(count))
    return KERNEL.format(name=name, limit=limit, count=count, loads=loads, stores=stores)


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of the installed Triton."""
    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        pytest.skip("Triton is not installed")
    command = [Path(spec.origin).parent / "backends/nvidia/bin" / name, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def assemble(arch: int, directory: Path, assembler: str) -> bytes:
    ptx, cubin = directory / "a.ptx", directory / f"{arch}.cubin"
    version = "8.8" if arch in (103, 121) else "8.7" if arch >= 100 else "7.8"
    kernels = kernel("small", 1) + kernel("large", 64) + kernel("spilling", 64, ".maxnreg 24")
    ptx.write_text(HEAD.format(version=version, arch=arch) + kernels)
    done = tool(assembler, f"-arch=sm_{arch}", ptx, "-o", cubin)
    if "is not defined for option 'gpu-name'" in done.stderr + done.stdout:
        pytest.skip(f"{assembler} of the installed Triton does not know sm_{arch}")
    assert done.returncode == 0, done.stderr + done.stdout
    return cubin.read_bytes()


@pytest.mark.parametrize("assembler", ["ptxas", "ptxas-blackwell"])
@pytest.mark.parametrize("arch", TARGETS)
def test_every_target(arch: int, assembler: str, tmp_path: Path) -> None:
    cubin = assemble(arch, tmp_path, assembler)
    info = describe(cubin)
    assert info.arch == arch
    assert sorted(info.kernels) == ["large", "small", "spilling"]
    listing = tool("cuobjdump", "--dump-resource-usage", tmp_path / f"{arch}.cubin")
    found = re.findall(r"REG:(\d+) STACK:(\d+)", listing.stdout)
    assert len(found) == 3, listing.stderr
    assert info.registers == max(int(registers) for registers, _ in found) > 64
    assert info.local == max(int(stack) for _, stack in found) > 100


def make_cubin(os_abi: int, version: int, flags: int, sections_at: int | None = None) -> bytes:
    """Return a cubin of one empty function and no attributes."""
    names = b"\0.text.k\0.shstrtab\0"
    offset = 64 + len(names) if sections_at is None else sections_at
    sections = [(0,) * 10, (1, 1, 6, 0, 64, 0, 0, 0, 1, 0), (9, 3, 0, 0, 64, len(names), 0, 0, 1, 0)]
    ident = b"\x7fELF\x02\x01\x01" + bytes([os_abi, version]) + bytes(7)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 190, 1, 0, 0, offset, flags, 64, 0, 0, 64, 3, 2)
    return header + names + b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)


def test_both_layouts() -> None:
    info = CubinInfo(arch=70, registers=0, local=0, kernels=("k",))
    assert describe(make_cubin(0x33, 7, 0x00460546)) == info
    assert describe(make_cubin(0x41, 8, 0x06007902)).arch == 121
    with pytest.raises(VerificationError, match="unknown ABI 0x41 version 9"):
        describe(make_cubin(0x41, 9, 0x06007902))


def test_what_is_not_a_cubin() -> None:
    good = make_cubin(0x41, 8, 0x06007902)
    far = make_cubin(0x41, 8, 0x06007902, sections_at=(1 << 64) - 1)
    for data in (b"", b"\x7fELF", bytes(100), b"\x7fELF\x02\x01\x01" + bytes(100), good[:-1], good[:70], far):
        with pytest.raises(VerificationError):
            describe(data)


def test_damage_never_raises_anything_else(tmp_path: Path) -> None:
    cubin, generator = assemble(90, tmp_path, "ptxas"), random.Random(0)
    for _ in range(2000):
        damaged = bytearray(cubin[: generator.choice((len(cubin), generator.randrange(len(cubin))))])
        for _ in range(3):
            if damaged:
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            describe(bytes(damaged))
        except VerificationError:
            continue

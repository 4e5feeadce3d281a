import random
import re
import struct
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from cubins import attribute, make_cubin

from gdn_aot.artifact.elf import CubinInfo, Entry, describe
from gdn_aot.errors import VerificationError

TARGETS = (70, 75, 80, 86, 89, 90, 100, 103, 120, 121)

HEAD = """
.version {version}
.target sm_{arch}
.address_size 64
"""
KERNEL = """
.visible .entry {name}(.param .u64 p, .param .u16 q, .param .f32 r, .param .u8 s, .param .u64 t) {limit} {{
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
    kernels = kernel("small", 1) + kernel("large", 64, ".reqntid 96") + kernel("spilling", 64, ".maxnreg 24")
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
    parameters = (8, 2, 4, 1, 8)
    assert info.entries == {
        "large": Entry(parameters=parameters, threads=96),
        "small": Entry(parameters=parameters),
        "spilling": Entry(parameters=parameters),
    }
    listing = tool("cuobjdump", "--dump-resource-usage", tmp_path / f"{arch}.cubin")
    found = re.findall(r"REG:(\d+) STACK:(\d+)", listing.stdout)
    assert len(found) == 3, listing.stderr
    assert info.registers == max(int(registers) for registers, _ in found) > 64
    assert info.local == max(int(stack) for _, stack in found) > 100


@pytest.mark.parametrize("abi", [7, 8])
def test_both_layouts(abi: int) -> None:
    made = make_cubin("k", arch=103, abi=abi, parameters=(8, 4), threads=128, registers=99, local=16)
    entries = {"k": Entry(parameters=(8, 4), threads=128)}
    assert describe(made) == CubinInfo(arch=103, registers=99, local=16, entries=entries)


def test_an_unknown_layout() -> None:
    made = make_cubin("k", arch=103)
    with pytest.raises(VerificationError, match="unknown ABI 0x41 version 9"):
        describe(made[:8] + b"\x09" + made[9:])


def test_what_is_not_a_cubin() -> None:
    good = make_cubin("k", parameters=(8,))
    far = good[:40] + b"\xff" * 8 + good[48:]
    for data in (b"", b"\x7fELF", bytes(100), b"\x7fELF\x02\x01\x01" + bytes(100), good[:-1], good[:70], far):
        with pytest.raises(VerificationError):
            describe(data)


@pytest.mark.parametrize(
    ("info", "what"),
    [
        (attribute(0x17, struct.pack("<IHHI", 0, 1, 0, 8 << 18)), "number the parameters"),
        (attribute(0x17, b"12345678"), "malformed"),
        (attribute(0x10, b""), "malformed"),
        (attribute(0x99, b"") * 300, "more than 256 attributes"),
    ],
)
def test_attributes_that_no_assembler_writes(info: bytes, what: str) -> None:
    with pytest.raises(VerificationError, match=what):
        describe(make_cubin("k", info=info))


def test_a_cubin_of_many_sections_is_refused() -> None:
    made = bytearray(make_cubin("k"))
    made[60:62] = struct.pack("<H", 60000)
    with pytest.raises(VerificationError, match="has 60000 sections"):
        describe(bytes(made))


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

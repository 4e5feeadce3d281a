"""The C extension that launches kernels, against a stand-in for the driver; one process for each scenario."""

import struct
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest

pytest.importorskip("gdn_aot.triton_internals._launch", reason="the C extension is not built")


def float16(value: float) -> str:
    return np.float16(value).tobytes().hex()


def bfloat16(value: float) -> str:
    return struct.pack("<f", value)[2:].hex()


INTEGERS = {"b": (8, -1), "h": (16, -1), "i": (32, -1), "l": (64, -1), "?": (1, 0)} | {
    kind: (bits, 0) for kind, bits in (("B", 8), ("H", 16), ("I", 32), ("L", 64))
}
FORMATS = {"b": "b", "h": "h", "i": "i", "l": "q", "?": "?", "B": "B", "H": "H", "I": "I", "L": "Q"}
HALVES = [
    *(0.0, -0.0, 1.0, -2.5, 1 / 3, 65504.0, -65519.99, 2.0**-14, 2.0**-24, 2.0**-25, -(2.0**-25), 1e-300, 5e-324),
    *(2.0**-25 * (1 + 2**-52), 2.0**-26, 1.5 * 2.0**-24, 2.5 * 2.0**-24, 2.0**-14 - 2.0**-25, 2.0**-14 - 2.0**-26),
    *(1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-11 + 2.0**-40, 2047.5, 2048.5, 1023.75, float("inf"), -float("inf")),
]
"""Ties, both sides of the smallest subnormal and of the subnormals' upper end, carries into the exponent."""


def packed(kinds: str, *values: int) -> list[str]:
    return [struct.pack(f"<{kind}", value).hex() for kind, value in zip(kinds, values, strict=True)]


def bounds(kind: str) -> tuple[int, int]:
    bits, signed = INTEGERS[kind]
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def test_import_loads_no_driver(play: Any) -> None:
    done = play("launcher = make('P')\nprint(json.dumps('libcuda' in open('/proc/self/maps').read()))")
    assert done.result is False
    assert done.calls == []


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers(play: Any, kind: str) -> None:
    low, high = bounds(kind)
    values = sorted({low, -1 if low else 0, 0, 1, high})
    size = struct.calcsize("=" + FORMATS[kind])
    done = play(
        """
kind, low, high, *values = sys.argv[1], *map(int, sys.argv[2:])
class Index:
    def __init__(self, value):
        self.value = value
    def __index__(self):
        return self.value
for value in values:
    call(make(kind), value)
    call(make(kind), Index(value))
bad = [low - 1, high + 1, 2**64, -2**64, 10**5000, Index(high + 1), 1.5, "1", None, [1]]
print(json.dumps([error(call, make("x" + kind), None, value) for value in bad]))
""",
        kind,
        *map(str, (low, high, *values)),
        parameters=f"{size},8,8",
    )
    expected = [struct.pack("=" + FORMATS[kind], value).hex() for value in values for _ in range(2)]
    assert [call["parameters"] for call in done.launches] == [[value, "0" * 16, "0" * 16] for value in expected]
    assert all(text.startswith("OverflowError: Kernel argument (at 1) is out of range of ") for text in done.result[:6])
    assert all(text.startswith("TypeError: Kernel argument (at 1) must be an int, not ") for text in done.result[6:])


def test_booleans(play: Any) -> None:
    done = play("call(make('??iL'), True, False, True, True)\nprint('null')", parameters="1,1,4,8")
    assert done.launches[0]["parameters"] == ["01", "00", "01000000", "0100000000000000"]


@pytest.mark.parametrize(
    ("kind", "size", "pack", "values"),
    [
        ("d", 8, lambda value: struct.pack("<d", value).hex(), [0.0, -0.0, 1 / 3, 5e-324, 1.7e308, float("-inf")]),
        ("f", 4, lambda value: np.float32(value).tobytes().hex(), [0.0, -0.0, 1 / 3, 1e-45, 1e-46, 3.4028235e38, 1e39]),
        ("g", 2, bfloat16, [0.0, -0.0, 1.0, 1 / 3, -2 / 3, 3.3895314e38, 1.0039061, float("inf")]),
        ("e", 2, float16, HALVES),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_floats(play: Any, kind: str, size: int, pack: Any, values: list[float]) -> None:
    done = play(
        """
kind, *values = sys.argv[1], *map(float, sys.argv[2:])
for value in values:
    call(make(kind), value)
call(make(kind), 3)
call(make(kind), float("nan"))
print(json.dumps([error(call, make(kind), value) for value in ("1", None, 10**400)]))
""",
        kind,
        *map(repr, values),
        parameters=f"{size}",
    )
    *packed, three, nan = [call["parameters"][0] for call in done.launches]
    assert packed == [pack(value) for value in values]
    assert three == pack(3.0)
    exponent = {"d": 0x7FF0 << 48, "f": 0x7F80 << 16, "g": 0x7F80, "e": 0x7C00}[kind]
    assert int.from_bytes(bytes.fromhex(nan), "little") & ~(1 << (8 * size - 1)) > exponent
    assert done.result[0].startswith("TypeError: Kernel argument (at 0) must be a float, not <class 'str'>")
    assert done.result[1].startswith("TypeError: Kernel argument (at 0) must be a float, not <class 'NoneType'>")
    assert done.result[2].startswith("OverflowError: ")


def test_half_agrees_with_numpy(play: Any) -> None:
    generator = np.random.default_rng(0)
    values = np.ldexp(generator.uniform(1, 2, 500), generator.integers(-28, 15, 500)) * generator.choice([-1, 1], 500)
    ties = (generator.integers(0, 2**15 - 2**10, 500) * 2 + 1).astype(np.uint64)  # between neighbouring halves
    middles = [
        float(np.array([tie // 2, tie // 2 + 1], np.uint16).view(np.float16).astype(float).mean()) for tie in ties[:400]
    ]
    every = [*values.tolist(), *(middle for middle in middles if middle < 65520)]
    done = play(
        "launcher = make('e')\nfor value in json.loads(sys.argv[1]): call(launcher, value)\nprint('null')",
        str(every),
        parameters="2",
    )
    assert [call["parameters"][0] for call in done.launches] == [float16(value) for value in every]


def test_half_too_large(play: Any) -> None:
    done = play("print(json.dumps([error(call, make('xe'), 0, value) for value in (65520.0, -65520.0, 1e300)]))")
    assert done.result == ["OverflowError: Kernel argument (at 1) is out of range of fp16"] * 3
    assert done.launches == []


def test_pointers(play: Any) -> None:
    done = play(
        "call(make('PPxPPP'), None, 2**64 - 1, object(), Tensor(0x7000), Tensor(0), 0)\nprint('null')",
        parameters="8,8,8,8,8,8,8",
        pointers="offset=64",
    )
    assert done.launches[0]["parameters"] == packed("QQQQQQQ", 0, 2**64 - 1, 0x7040, 0, 0, 0, 0)
    (checked,) = done.named("cuPointerGetAttribute")
    assert (checked["attribute"], checked["pointer"]) == (3, 0x7000)


def test_bad_pointers(play: Any) -> None:
    code = """
values = [Tensor(0x1000), Tensor("x"), Tensor(-1), Tensor(KeyError("mine")), object(), 1.5, -1, 2**64]
print(json.dumps([error(call, make("xP"), 0, value) for value in values]))
"""
    done = play(code, pointers="host=0x1000")
    bad = "TypeError: Kernel argument (at 1) must be a pointer: "
    assert done.result == [
        "ValueError: Pointer argument (at 1) cannot be accessed from Triton (cpu tensor?)",
        f"{bad}data_ptr() must return an int, not <class '__main__.Tensor'>",
        "OverflowError: Kernel argument (at 1) is out of range of a pointer",
        "KeyError: 'mine'",
        f"{bad}None, an int, or an object with data_ptr(), not <class 'object'>",
        f"{bad}None, an int, or an object with data_ptr(), not <class 'float'>",
        *["OverflowError: Kernel argument (at 1) is out of range of a pointer"] * 2,
    ]
    assert done.launches == []
    done = play(code, fail="cuPointerGetAttribute=700")
    assert done.result[0] == "RuntimeError: Triton Error [CUDA]: an illegal memory access was encountered"


def test_leading_arguments(play: Any) -> None:
    done = play(
        """
print(json.dumps([
    error(make("ii")), error(call, make("ii"), 1), error(call, make(""), 1),
    error(call, make(""), grid=(1, "2", 3)), error(call, make(""), grid=(2**31, 1, 1)),
    error(call, make(""), stream=None), error(call, make(""), function=-1),
    error(call, make("", num_ctas=16), grid=(2**31 - 1, 1, 1)), error(make("x"), *[1] * 9, key=1),
]))
"""
    )
    assert done.result[:8] == [
        "TypeError: launch takes 9 leading and 2 kernel arguments, 11 in all; 0 given",
        "TypeError: launch takes 9 leading and 2 kernel arguments, 11 in all; 10 given",
        "TypeError: launch takes 9 leading and 0 kernel arguments, 9 in all; 10 given",
        "TypeError: grid_1 must be an int, not <class 'str'>",
        "OverflowError: grid_0 is out of range of a 32-bit int",
        "TypeError: stream must be an int, not <class 'NoneType'>",
        "OverflowError: function is out of range of a handle",
        "OverflowError: grid_0 is out of range of a grid of clusters",
    ]
    assert done.result[8].startswith("TypeError: ")
    assert done.launches == []


def test_launch_and_first_context(play: Any) -> None:
    done = play(
        "launcher = make('i', num_warps=8, shared=1024)\n"
        "for _ in range(2): assert call(launcher, 7, grid=(2, 3, 4), stream=2**63, function=0x77) is None\n"
        "print('null')"
    )
    first, second = done.launches
    assert first == second
    assert (first["call"], first["grid"], first["block"]) == ("cuLaunchKernelEx", [2, 3, 4], [256, 1, 1])
    assert (first["shared"], first["stream"], first["function"]) == (1024, 2**63, 0x77)
    assert (first["attributes"], first["extra"]) == ([], 0)
    contexts = ["cuCtxGetCurrent", "cuCtxGetCurrent", "cuInit", "cuCtxGetCurrent", "cuDeviceGet"]
    contexts += ["cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuLaunchKernelEx"]
    assert [call["call"] for call in done.calls] == [*contexts, "cuCtxGetCurrent", "cuLaunchKernelEx"]


@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ("pdl=True", [[6, [1, 0, 0]]]),
        ("cooperative=True", [[2, [1, 0, 0]]]),
        ("num_ctas=4", [[4, [4, 1, 1]], [5, [1, 0, 0]]]),
        ("num_ctas=16, pdl=True, cooperative=True", [[6, [1, 0, 0]], [2, [1, 0, 0]], [4, [16, 1, 1]], [5, [1, 0, 0]]]),
    ],
)
def test_attributes(play: Any, options: str, attributes: list[Any]) -> None:
    done = play(f"call(make('', {options}), grid=(3, 1, 1))\nprint('null')")
    (launch,) = done.launches
    assert launch["attributes"] == attributes
    wide = "num_ctas=16" in options
    assert launch["grid"][0] == 3 * (16 if wide else 4 if "num_ctas" in options else 1)
    assert [(call["attribute"], call["value"]) for call in done.named("cuFuncSetAttribute")] == [(14, 1)] * wide


def test_old_driver(play: Any, tmp_path: Path) -> None:
    old = fake_cuda.build(tmp_path / "old", "FAKE_CUDA_OLD")
    done = play(
        "call(make('i', shared=64), 7, grid=(2, 3, 4))\nprint(json.dumps(error(call, make('', pdl=True))))",
        cuda=old,
        parameters="4",
    )
    (launch,) = done.launches
    assert (launch["call"], launch["grid"], launch["shared"]) == ("cuLaunchKernel", [2, 3, 4], 64)
    assert launch["parameters"] == ["07000000"]
    assert done.result.startswith("RuntimeError: libcuda.so.1 has no cuLaunchKernelEx")


def test_hooks(play: Any) -> None:
    done = play(
        """
seen = []
enter, leave = (lambda what: seen.append(["enter", what])), (lambda what: seen.append(["leave", what]))
launcher = make("i")
call(launcher, 1, metadata="m", enter=enter, leave=leave)
call(launcher, 2, metadata="m", leave=leave)
call(launcher, 3, metadata="m")
call(launcher, 4, enter=enter, leave=leave)
call(launcher, 5, metadata="empty", enter=enter, leave=leave, grid=(0, 1, 1))
error(call, launcher, "bad", metadata="never", enter=enter, leave=leave)
def fail(what):
    raise ValueError(what)
failed = [error(call, launcher, 6, metadata="in", enter=fail), error(call, launcher, 7, metadata="out", leave=fail)]
os.environ["FAKE_CUDA_FAIL"] = "cuLaunchKernelEx=701"
error(call, launcher, 8, metadata="last", enter=enter, leave=leave)
print(json.dumps([seen, failed]))
""",
        parameters="4",
    )
    seen, failed = done.result
    both = [["enter", "m"], ["leave", "m"], ["leave", "m"], ["enter", "empty"], ["leave", "empty"]]
    assert seen == [*both, ["enter", "last"]]
    assert failed == ["ValueError: in", "ValueError: out"]
    assert [call["parameters"][0][:2] for call in done.launches] == ["01", "02", "03", "04", "07", "08"]


def test_empty_grid(play: Any) -> None:
    done = play(
        "launcher = make('i')\n"
        "for grid in (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 0), (-1, 1, 1), (-1, -1, 1):\n"
        "    call(launcher, 1, grid=grid)\n"
        "print(json.dumps(error(call, launcher, 'x', grid=(0, 1, 1))))"
    )
    assert done.launches == []
    assert done.result.startswith("TypeError")


def test_make_launcher(play: Any) -> None:
    done = play(
        """
bad = [dict(kinds="PZ"), dict(kinds="P\\u00e9"), dict(kinds="i" * 129), dict(kinds="", num_warps=0),
       dict(kinds="", num_warps=33), dict(kinds="", num_ctas=0), dict(kinds="", num_ctas=17),
       dict(kinds="", shared=-1), dict(kinds=b"P"), dict(kinds="P\\0")]
errors = [error(make, **arguments) for arguments in bad]
call(make("ix" * 128), *[1, None] * 128)
_launch.make_launcher(kinds="", num_warps=1, num_ctas=1, shared=0, cooperative=0, pdl=0)
for _ in range(100_000):
    make("PPPPiii")
import resource
size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(100_000):
    make("PPPPiii")
print(json.dumps([errors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size]))
""",
        parameters=",".join(["4"] * 128),
    )
    errors, grown = done.result
    assert [text.split(":")[0] for text in errors] == [*["ValueError"] * 8, "TypeError", "ValueError"]
    assert errors[0] == "ValueError: kinds[1] of 'PZ' is none of Pxbhil?BHILfdeg"
    assert errors[2] == "ValueError: 129 kernel parameters; at most 128 are supported"
    assert done.launches[0]["parameters"] == ["01000000"] * 128
    assert grown < 1024  # KiB: plans are freed


def test_launch_failures(play: Any) -> None:
    code = "print(json.dumps(error(call, make('', num_ctas=16))))"
    done = play(code, fail="cuLaunchKernelEx=701")
    assert done.result == "RuntimeError: Triton Error [CUDA]: too many resources requested for launch"
    assert play(code, fail="cuLaunchKernelEx=4242").result == "RuntimeError: Triton Error [CUDA]: unknown error 4242"
    done = play(code, fail="cuFuncSetAttribute=1")
    assert done.result == "RuntimeError: Triton Error [CUDA]: invalid argument"
    assert done.launches == []


def test_threads(play: Any) -> None:
    done = play(
        """
launcher, start, errors = make("PiL", num_warps=1), threading.Barrier(8), []
def work(number):
    start.wait()
    for turn in range(200):
        try:
            call(launcher, Tensor(0x1000 * (number + 1)), number, turn, grid=(number + 1, 1, 1), stream=number)
        except Exception as problem:
            errors.append(repr(problem))
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(errors))
""",
        parameters="8,4,8,8,8",
    )
    assert done.result == []
    launched = {(call["stream"], call["grid"][0], *call["parameters"]) for call in done.launches}
    assert launched == {
        (number, number + 1, *packed("QiQQQ", 0x1000 * (number + 1), number, turn, 0, 0))
        for number in range(8)
        for turn in range(200)
    }
    assert len(done.launches) == 1600
    assert len({call["thread"] for call in done.launches}) == 8
    assert len(done.named("cuDevicePrimaryCtxRetain")) == 8


FORK = """
launcher = make("i")
if sys.argv[1] == "used":
    call(launcher, 1)
child = os.fork()
if child == 0:
    text = error(call, launcher, 2)
    os.write(1, (json.dumps(text) + "\\n").encode())
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("driver", "result", "launched"),
    [("unused", None, ["02000000"]), ("used", "RuntimeError: Triton Error [CUDA]: initialization error", ["01000000"])],
)
def test_fork(play: Any, driver: str, result: str | None, launched: list[str]) -> None:
    done = play(FORK, driver, parameters="4")
    assert done.result == result
    assert [call["parameters"] for call in done.launches] == [launched]

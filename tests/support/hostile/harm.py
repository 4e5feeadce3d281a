"""What an artifact that is accepted must not do to a process, looked at without gdn-aot."""

import struct
from collections.abc import Iterator
from typing import Any

from hostile.reading import Members

_PACKAGES = {"fla": "fla", "vllm": "vllm"}
_LONGEST = 200


def harms(members: Members, expanded: Any) -> Iterator[str]:
    """Yield how an accepted artifact could hurt who serves it."""
    provider, target = expanded["provider"]["name"], expanded["target"]["name"]
    if len(expanded["identifier"]) > _LONGEST:
        yield "the identifier is long"
    captured = any(name.startswith("capture-") for name in expanded["workloads"])
    for kernel in expanded["kernels"]:
        module = kernel["module"]
        if not captured and module.partition(".")[0] != _PACKAGES.get(provider):
            yield f"a kernel is of the module {module[:50]!a}, the provider is {provider!a}"
        if not all(part.isidentifier() for part in module.split(".")):
            yield f"{module[:50]!a} is no name of a module"
        for choice in kernel["choices"]:
            yield from _choice(choice["config"])
        for binary in kernel["binaries"]:
            code, name = members.contents[f"blobs/{binary['cubin']}"], binary["metadata"].get("name")
            if not isinstance(name, str) or f".text.{name}\0".encode() not in code:
                yield "a cubin has not the kernel that is to be launched"
            if _arch(code) != target:
                yield f"a cubin is of {_arch(code)}, the artifact of {target}"


def _choice(config: Any) -> Iterator[str]:
    if config["num_warps"] not in (1, 2, 4, 8, 16, 32):
        yield f"{config['num_warps']} warps"
    if not 1 <= config["num_ctas"] <= 16 or not 0 <= config["num_stages"] <= 100:
        yield f"{config['num_ctas']} CTAs, {config['num_stages']} stages"
    for name, _ in config["kwargs"]:
        if not name.isidentifier():
            yield f"a choice names {name[:50]!a}"


def _arch(code: bytes) -> str:
    """Return the target of a cubin, by its ELF header."""
    if len(code) < 64 or code[:4] != b"\x7fELF" or struct.unpack_from("<H", code, 18) != (190,):
        return "none"
    (flags,) = struct.unpack_from("<I", code, 48)
    return f"sm_{flags >> (8 if code[8] == 8 else 0) & 0xFF}"

"""Hostile artifacts: classes of changes, and which a number stands for."""

import copy
import random
from typing import Any

import factory

from gdn_aot.artifact.names import make_identifier
from hostile import exhausting, headers
from hostile.containers import (
    TRAILER,
    Change,
    Original,
    assemble,
    canonical,
    compress,
    fold,
    members,
    reframed,
    seal,
)
from hostile.mutate import PERIOD, TEXTS, change_bytes, change_json, odd, text_of

_MODULES = (
    "os", "sys", "builtins", "__main__", "torch.nn.functional", "triton.language.math", "vllm.model_executor.x",
    "vllm", "fla", "fla.", ".fla", "fla..ops", "flash", "fla_extra.ops", "fla.ops.common.chunk_o.x", "FLA.ops",
    "fla\0.ops", "fla.ops\nos", "transformers.models", "gdn_aot.serving.loader", "", "fla.ops." + "x" * 5000,
)  # fmt: skip
_VERSIONS = ("", "0.6.0", "9" * 300, "1!2.0", "../..", "0.6.0-sm_90", "3.6.0+git", "\u0663.6", "0.6.0\n", "v1")
_ARGUMENTS = ("T", "BT", "k", "h", "grid", "num_warps", "self", "warmup", "", "\0", "no_such", "__class__", "args")


def bits(original: Original, chosen: random.Random) -> bytes:
    return change_bytes(original.data, chosen)


def trailer(original: Original, chosen: random.Random) -> bytes:
    """The compressed data are changed, and the digest is right again."""
    return factory.wrap(change_bytes(original.data[:-TRAILER], chosen))


def frame(original: Original, chosen: random.Random) -> bytes:
    return factory.wrap(reframed(original.content, chosen))


def content(original: Original, chosen: random.Random) -> bytes:
    return factory.wrap(compress(change_bytes(original.content, chosen)))


def manifest(original: Original, chosen: random.Random) -> bytes:
    """``manifest.json`` is changed as it is."""
    value = change_json(original.manifest, chosen, chosen.choice((1, 1, 1, 2, 4)))
    text = text_of(value)
    return assemble(value, original.blobs, canonical(text) if chosen.random() < 0.7 else text)


def manifest_text(original: Original, chosen: random.Random) -> bytes:
    """``manifest.json`` is changed as bytes; sizes are right."""
    text = change_bytes(text_of(original.manifest), chosen)
    return assemble(original.manifest, original.blobs, text)


def consistent(original: Original, chosen: random.Random) -> bytes:
    """What binaries and kernels say is changed, and all tables, sizes, and the identifier follow."""
    value = change_json(original.expanded, chosen, chosen.choice((1, 1, 2, 3)))
    return _whole(original, value, original.blobs, chosen)


def identity(original: Original, chosen: random.Random) -> bytes:
    """Provider, versions, target and identifier are others."""
    value = copy.deepcopy(original.expanded)
    provider, target = value["provider"], value["target"]
    for _ in range(chosen.choice((1, 1, 2))):
        match chosen.randrange(7):
            case 0:
                provider["name"] = chosen.choice(("vllm", "fla2", "", "FLA", *TEXTS))
            case 1:
                provider["distribution"] = chosen.choice(("torch", "vllm", "pip", "fla_core", *TEXTS))
            case 2:
                provider["version"] = chosen.choice(_VERSIONS)
            case 3:
                value["triton"]["version"] = chosen.choice(_VERSIONS)
            case 4:
                capability = chosen.choice(([9, 0], [7, 0], [99, 9], [12, 10], [-1, 0], [2**63 - 1, 0], [0, 0]))
                target |= {"capability": capability, "name": f"sm_{capability[0]}{capability[1]}"}
            case 5:
                value["workloads"] += [chosen.choice(("capture-", "capture-../..", "capture-" + "a" * 300, *TEXTS))]
            case _:
                value["identifier"] = chosen.choice((*TEXTS, "x" * 201, "x" * 255, "x" * 300, "CON", "-rf", "a b"))
    return _whole(original, value, original.blobs, chosen)


def kernels(original: Original, chosen: random.Random) -> bytes:
    """Kernels are of modules that are not the provider's, and depend on others."""
    value = copy.deepcopy(original.expanded)
    kernel = chosen.choice(value["kernels"])
    match chosen.randrange(6):
        case 0 | 1 | 2:
            kernel["module"] = chosen.choice(_MODULES)
        case 3:
            kernel["qualname"] = chosen.choice((*TEXTS, "a.b.<locals>.c", "__init__", "kernel:kernel"))
        case 4:
            for source in kernel["sources"]:
                source["path"] = chosen.choice(("../../etc/passwd", "/etc/passwd", "a//b", "C:x", "a\\b", *TEXTS))
        case _:
            kernel["dependencies"] = [{"name": "f", "module": "os", "qualname": "system", "source_sha256": ""}] * 2
    return _whole(original, value, original.blobs, chosen)


def choices(original: Original, chosen: random.Random) -> bytes:
    """Choices that no kernel can be launched with."""
    value = copy.deepcopy(original.expanded)
    kernel = chosen.choice(value["kernels"])
    made = {
        "key": [16, 128, "torch.bfloat16"],
        "config": {"kwargs": [["BK", 64]], "num_warps": 4, "num_stages": 2, "num_ctas": 1, "maxnreg": None},
        "provenance": "default", "derived": False, "note": "",
    }  # fmt: skip
    config: Any = made["config"]
    match chosen.randrange(6):
        case 0 | 1:
            config["kwargs"] = [[chosen.choice(_ARGUMENTS), odd(chosen)] for _ in range(chosen.choice((1, 1, 2, 40)))]
        case 2 | 3:
            name = chosen.choice(("num_warps", "num_stages", "num_ctas", "maxnreg"))
            config[name] = chosen.choice((0, -1, 3, 5, 33, 64, 1024, 2**31, 2**63 - 1, -(2**63), "4", 4.0, True, None))
        case 4:
            made["key"] = [odd(chosen) for _ in range(chosen.choice((0, 1, 3, 200)))]
        case _:
            made["provenance"] = chosen.choice(("captured", "measured", "proxy", "transferred", "signed", ""))
    kernel["choices"] = [*kernel["choices"], made] if chosen.random() < 0.5 else [made]
    return _whole(original, value, original.blobs, chosen)


def collisions(original: Original, chosen: random.Random) -> bytes:
    """Autotune keys that have one hash, or are equal for Python and not in JSON."""
    value = copy.deepcopy(original.expanded)
    kernel = chosen.choice(value["kernels"])
    count = chosen.choice((2, 50, 500, 3000, 4097, 20_000))
    keys = [[number * PERIOD] for number in range(-min(count, 4) // 2, 4)] if count < 50 else [
        [1 + number % 4 * PERIOD, number // 4 % 4 * PERIOD, *[step * PERIOD for step in _digits(number // 16)]]
        for number in range(count)
    ]  # fmt: skip
    if chosen.random() < 0.3:
        keys = [[1], [True], [1.0], [0], [False], [-0.0], [0.0], [None], ["1"]][: chosen.randrange(2, 10)]
    config = {"kwargs": [["BK", 64]], "num_warps": 4, "num_stages": 2, "num_ctas": 1, "maxnreg": None}
    rest = {"config": config, "provenance": "default", "derived": False, "note": ""}
    kernel["choices"] = [{"key": key, **rest} for key in keys]
    return _whole(original, value, original.blobs, chosen)


def _digits(number: int) -> list[int]:
    return [number // 4**place % 4 for place in range(6)]


def signature(original: Original, chosen: random.Random) -> bytes:
    """Binaries that say other arguments, constants, options or launch keys than their code has."""
    value = copy.deepcopy(original.expanded)
    kernel = chosen.choice([kernel for kernel in value["kernels"] if kernel["binaries"]])
    binary = chosen.choice(kernel["binaries"])
    name = chosen.choice(("signature", "signature", "constants", "attributes", "options", "metadata", "launch_key"))
    if name == "launch_key":
        binary[name] = chosen.choice((*TEXTS, binary[name] + " ", binary[name].replace("D", "S"), "()", "((), 1)"))
    elif name == "signature" and chosen.random() < 0.7:
        held = binary[name]
        argument = chosen.choice([*held] or ["x"])
        held[argument] = chosen.choice(
            ("i32", "*bf16", "constexpr", "fp32", "tensordesc<>", "*", "", ["i32", "i32"], [])
        )
        if chosen.random() < 0.3:
            del held[argument]
    else:
        binary[name] = change_json(binary[name], chosen)
    if chosen.random() < 0.2:
        binary["metadata"]["name"] = chosen.choice(("other_kernel", "", "x" * 5000, 3, None, "a\0b"))
    return _whole(original, value, original.blobs, chosen)


def blobs(original: Original, chosen: random.Random) -> bytes:
    """Code that is none, or another's, under right digests."""
    value, held = copy.deepcopy(original.expanded), dict(original.blobs)
    binaries = [binary for kernel in value["kernels"] for binary in kernel["binaries"]]
    binary = chosen.choice(binaries)
    code = held[binary["cubin"]]
    match chosen.randrange(8):
        case 0:
            other = chosen.choice(binaries)
            binary["cubin"], other["cubin"] = other["cubin"], binary["cubin"]
            return _whole(original, value, held, chosen)
        case 1:
            new = chosen.choice((b"", b"\0", b"MZ\x90", b"\x7fELF", b"#!/bin/sh\n", held[value_license(value)]))
        case 2:
            new = code[: chosen.randrange(len(code))]
        case 3:  # another architecture: the flags
            new = code[:48] + bytes([code[48] ^ 0x0F, code[49] ^ 0x0F]) + code[50:]
        case 4:
            at = chosen.randrange(min(64, len(code)))
            new = code[:at] + bytes([chosen.randrange(256)]) + code[at + 1 :]
        case 5:
            new = change_bytes(code, chosen)
        case 6:
            new = code + bytes(chosen.choice((1, 1000, (4 << 20) + 1)))
        case _:
            binary["cubin"] = value_license(value)
            return _whole(original, value, held, chosen)
    digest = factory.sha256(new)
    held[digest] = new
    if chosen.random() < 0.5:
        binary["cubin"] = digest
    else:
        for each in binaries:
            each["cubin"] = digest
    return _whole(original, value, held, chosen)


def value_license(value: Any) -> str:
    """Return the digest of a licence text, which is a blob too."""
    found: str = value["provider"]["license_files"][0]["blob"]
    return found


def sizes(original: Original, chosen: random.Random) -> bytes:
    """Sizes in the table, in the headers and of the contents disagree."""
    value, held = copy.deepcopy(original.manifest), dict(original.blobs)
    row = chosen.choice(value["blobs"])
    right = row["size"]
    wrong = chosen.choice((0, right - 1, right + 1, right + 512, right * 2, -1, 4 << 20, 64 << 20, 2**40, 2**63 - 1))
    row["size"] = wrong
    data = canonical(text_of(value))
    made = members(data, held, value["blobs"])
    if chosen.random() < 0.5:  # the headers say so too
        for number, blob in enumerate(value["blobs"], 1):
            if blob is row and 0 <= wrong < 8**11:
                made[number] = factory.tar.encode(f"blobs/{row['sha256']}", wrong, 0) + made[number][512:]
    if chosen.random() < 0.3 and 0 < wrong < (64 << 20):
        made[1 + value["blobs"].index(row)] = factory.member(
            f"blobs/{row['sha256']}", held[row["sha256"]][:wrong].ljust(wrong, b"\0")
        )
    return seal(made)


def _whole(original: Original, value: Any, held: dict[str, bytes], chosen: random.Random) -> bytes:
    """Return the artifact of an expanded manifest: everything follows from it, the identifier mostly."""
    try:
        provider = value["provider"]
        if chosen.random() < 0.8 and value["identifier"] == original.manifest["identifier"]:
            version, triton, target = provider["version"], value["triton"]["version"], value["target"]["name"]
            value["identifier"] = make_identifier(provider["name"], version, triton, target, value["workloads"])
        file = fold(value, held)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        file = {**original.manifest, **value} if isinstance(value, dict) else value
    return assemble(file, held)


CLASSES: dict[str, tuple[float, Change]] = {
    "bits, cuts, splices": (8, bits),
    "digest made right": (8, trailer),
    "zstd frame": (6, frame),
    "tar as bytes": (6, content),
    "tar headers": (14, headers.changed),
    "manifest as bytes": (5, manifest_text),
    "manifest as JSON": (14, manifest),
    "manifest, consistent": (14, consistent),
    "identity": (6, identity),
    "kernels": (5, kernels),
    "choices": (7, choices),
    "colliding keys": (1, collisions),
    "signatures": (7, signature),
    "code": (7, blobs),
    "sizes": (4, sizes),
    "exhausting": (0.7, exhausting.changed),
}
"""Weight and change of each class."""


def draw(seed: int, number: int) -> tuple[str, random.Random]:
    """Return the class of a case, and what decides the rest of it."""
    chosen = random.Random(f"artifact {seed} {number}")
    (kind,) = chosen.choices([*CLASSES], [weight for weight, _ in CLASSES.values()])
    return kind, chosen


def make(kind: str, chosen: random.Random, sound: list[Original]) -> tuple[Original, bytes]:
    """Return an original, and what was made of it."""
    original = chosen.choice(sound)
    return original, CLASSES[kind][1](original, chosen)

"""Untrusted bytes to `Capture`: every problem found, each with its path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.parse import read_config, read_specialization
from gdn_aot.artifact.reader import JsonObject, ProblemList, kind, refuse_constant, unique_pairs
from gdn_aot.capture import form
from gdn_aot.errors import Problem, UnknownFormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 256 << 20
"""Bytes of a capture."""
AGAIN = "record again: gdn-aot capture -o FILE -- CMD"
"""What to do about a file that is no capture."""
_DIGEST_LENGTH = 64


def load(path: Path) -> form.Capture:
    """Read a capture file.

    Raises:
        UsageError: It cannot be read.
        UnknownFormatError: It is of another format version.
        VerificationError: It is no capture; every problem is named.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the capture {path}: {error.strerror}", hint="gdn-aot capture -o FILE -- CMD"
        ) from error
    return parse(data, name=str(path))


def parse(data: bytes, *, name: str = "the capture") -> form.Capture:
    """Read the bytes of a capture.

    Args:
        data: What the file holds.
        name: How messages call it.

    Raises:
        UnknownFormatError: It is of another format version; nothing else was looked at.
        VerificationError: Something is missing, unknown or of the wrong type, or contradicts something else.
    """
    problems = ProblemList(AGAIN)
    raw = _load_json(data, problems)
    problems.raise_any(f"{name} cannot be read")
    _check_format(raw, name, problems)
    problems.raise_any(f"{name} cannot be read")
    return build(raw, name)


def build(raw: object, name: str) -> form.Capture:
    """Make a capture of its JSON value.

    Raises:
        VerificationError: As for `parse`.
    """
    problems = ProblemList(AGAIN)
    capture = _capture(JsonObject(raw, "", form.Capture, problems))
    problems.raise_any(f"{name} is malformed")
    for problem in _check(capture):
        problems.add(problem.where, problem.what)
    problems.raise_any(f"{name} contradicts itself")
    return capture


def _load_json(data: bytes, problems: ProblemList) -> object:
    if len(data) > MAX_BYTES:
        problems.add("", f"is larger than {MAX_BYTES} bytes")
        return None
    try:
        value: object = json.loads(data, object_pairs_hook=unique_pairs, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        problems.add("", f"is not JSON: {error.msg} at character {error.pos} of {len(data)}")
    except (ValueError, RecursionError) as error:
        problems.add("", f"is not acceptable JSON: {str(error)[:200]}")
    else:
        return value
    return None


def _check_format(raw: object, name: str, problems: ProblemList) -> None:
    if not isinstance(raw, dict):
        problems.add("", f"expected object, got {kind(raw)}")
    elif type(raw.get("format")) is not int:
        problems.add("format", f"expected int, got {kind(raw['format'])}" if "format" in raw else "missing")
    elif raw["format"] != form.FORMAT:
        shown = str(raw["format"])[:20]
        problem = Problem("format", f"{shown} is not a known format version, only {form.FORMAT} is")
        raise UnknownFormatError(
            f"{name} is of format {shown}, expected {form.FORMAT}",
            [problem],
            hint="record it again with this version of gdn-aot",
        )


def _capture(o: JsonObject) -> form.Capture:
    return form.Capture(
        format=o.integer("format"),
        tool=o.text("tool"),
        triton=o.text("triton"),
        processes=o.integer("processes"),
        packages=o.children("packages", form.Package, _package),
        kernels=o.children("kernels", form.Kernel, _kernel),
        left_out=o.children("left_out", form.LeftOut, _left_out),
    )


def _package(o: JsonObject) -> form.Package:
    return form.Package(distribution=o.text("distribution"), version=o.optional("version", o.text))


def _kernel(o: JsonObject) -> form.Kernel:
    return form.Kernel(
        module=o.text("module"),
        qualname=o.text("qualname"),
        source_sha256=o.optional("source_sha256", o.text),
        cache_key=o.optional("cache_key", o.text),
        launches=o.children("launches", form.Launch, _launch),
    )


def _launch(o: JsonObject) -> form.Launch:
    return form.Launch(
        target=o.text("target"),
        key=o.text("key"),
        specialization=o.child("specialization", m.Specialization, read_specialization),
        tuning=o.optional("tuning", lambda name: o.child(name, form.Tuning, _tuning)),
        processes=o.integer("processes"),
    )


def _tuning(o: JsonObject) -> form.Tuning:
    return form.Tuning(
        key=o.optional("key", o.key),
        config=o.child("config", m.Config, read_config),
        positional=o.integer("positional"),
        keywords=o.texts("keywords"),
    )


def _left_out(o: JsonObject) -> form.LeftOut:
    return form.LeftOut(what=o.text("what"), reason=o.text("reason"))


def _check(capture: form.Capture) -> Iterator[Problem]:
    """Yield what is inconsistent: names and digests of no form, arguments that are not there, things twice."""
    seen: set[tuple[str, str | None]] = set()
    for number, kernel in enumerate(capture.kernels):
        where = f"kernels[{number}]"
        if not kernel.module or not kernel.qualname:
            yield Problem(where, "has no name")
        for name, digest in (("source_sha256", kernel.source_sha256), ("cache_key", kernel.cache_key)):
            if digest is not None and (len(digest) != _DIGEST_LENGTH or set(digest) - set("0123456789abcdef")):
                yield Problem(f"{where}.{name}", "expected 64 lower-case hexadecimal digits")
        if (kernel.name, kernel.cache_key) in seen:
            yield Problem(where, "is there twice")
        seen.add((kernel.name, kernel.cache_key))
        for inner, launch in enumerate(kernel.launches):
            yield from _check_launch(launch, f"{where}.launches[{inner}]")


def _check_launch(launch: form.Launch, where: str) -> Iterator[Problem]:
    count = len(launch.specialization.signature)
    for name in ("constants", "attributes"):
        for number, (path, _) in enumerate(getattr(launch.specialization, name)):
            if not path or not 0 <= path[0] < count:
                yield Problem(
                    f"{where}.specialization.{name}[{number}][0]", f"expected an argument from 0, below {count}"
                )
    if launch.tuning is not None and not 0 <= launch.tuning.positional <= count:
        yield Problem(f"{where}.tuning.positional", f"expected 0 to {count}")

"""Untrusted bytes to `Manifest`, without IO: every problem found, each with its path."""

from __future__ import annotations

import gc
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.check import check_manifest
from gdn_aot.artifact.reader import INTEGERS, JsonObject, ProblemList, kind, refuse_constant, unique_pairs
from gdn_aot.artifact.repeats import NotPlainError, Repeats
from gdn_aot.errors import Problem, UnknownFormatError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 32 << 20
"""Bytes of a manifest."""
MAX_STRUCTURE = 2_000_000
"""Opening brackets and commas in a manifest; bounds the memory that its objects take."""


def load_manifest(data: bytes) -> m.Manifest:
    """Parse a manifest and check that it makes sense.

    Raises:
        UnknownFormatError: It is of another format version; nothing else was looked at.
        VerificationError: It is not a manifest, or its fields contradict each other.
    """
    with collector_paused():
        manifest = parse_manifest(data)
        problems = ProblemList()
        for problem in check_manifest(manifest):
            problems.add(problem.where, problem.what)
    problems.raise_any("the manifest contradicts itself")
    return manifest


def parse_manifest(data: bytes) -> m.Manifest:
    """Parse a manifest: JSON, types and key names, not yet whether the values fit together.

    Raises:
        UnknownFormatError: It is of another format version; nothing else was looked at.
        VerificationError: Something is missing, unknown or of the wrong type.
    """
    manifest = _parse_plain(data)
    if manifest is not None:
        return manifest
    problems = ProblemList()
    raw = load_json(data, "manifest.json", MAX_BYTES, problems)
    problems.raise_any("the manifest cannot be read")
    check_format(raw, "artifact", m.FORMAT, problems)
    problems.raise_any("the manifest cannot be read")
    manifest = _manifest(JsonObject(raw, "", m.Manifest, problems))
    problems.raise_any("the manifest is malformed")
    return manifest


def _parse_plain(data: bytes) -> m.Manifest | None:
    """Parse a manifest that is in the form we write, and sound; None for any other, without a reason."""
    problems = ProblemList()
    if _unreadable(data, "", MAX_BYTES):
        return None
    try:
        repeats = Repeats(_BINARY)
        raw = load_json(repeats.cut(data.decode("ascii")).encode("ascii"), "", MAX_BYTES, problems)
        repeats.put_back(raw)
        check_format(raw, "artifact", m.FORMAT, problems)
        manifest = None if problems.count else _manifest(JsonObject(raw, "", m.Manifest, problems))
    except (NotPlainError, VerificationError):
        return None
    return None if problems.count else manifest


def load_json(data: bytes, name: str, limit: int, problems: ProblemList) -> object:
    """Return the JSON value in a file, or None with what is wrong noted.

    Args:
        data: The file: ASCII, at most `MAX_STRUCTURE` brackets and commas, no key twice in an object.
        name: What messages call it.
        limit: Most bytes it may have.
        problems: Where to note what is wrong.
    """
    refusal = _unreadable(data, name, limit)
    if refusal:
        problems.add("", refusal)
    else:
        try:
            value: object = json.loads(
                data.decode("ascii"), object_pairs_hook=unique_pairs, parse_constant=refuse_constant
            )
        except json.JSONDecodeError as error:
            problems.add("", f"{name} is not JSON: {error.msg} at byte {error.pos}")
        except ValueError as error:
            problems.add("", f"{name} is not acceptable JSON: {str(error)[:200]}")
        except RecursionError:
            problems.add("", f"{name} is nested too deep")
        else:
            return value
    return None


def _unreadable(data: bytes, name: str, limit: int) -> str:
    """Return why a file is not even looked into, or nothing."""
    if len(data) > limit:
        return f"{name} is larger than {limit} bytes"
    if not data.isascii():
        return f"{name} is not ASCII"
    if sum(map(data.count, (b"[", b"{", b","))) > MAX_STRUCTURE:
        return f"{name} has more than {MAX_STRUCTURE} brackets and commas"
    return ""


def check_format(raw: object, what: str, known: int, problems: ProblemList) -> None:
    """Look at the ``format`` of a file before anything else in it.

    Args:
        raw: What `load_json` returned.
        what: What is of that format, in messages.
        known: The version that can be read.
        problems: Where to note what is wrong.

    Raises:
        UnknownFormatError: It is of another version.
    """
    if not isinstance(raw, dict):
        problems.add("", f"expected object, got {kind(raw)}")
        return
    version = raw.get("format")
    if "format" not in raw:
        problems.add("format", "missing, expected int")
    elif not isinstance(version, int) or isinstance(version, bool):
        problems.add("format", f"expected int, got {kind(version)}")
    elif version != known:
        shown = version if version in INTEGERS else "a very large number"
        problem = Problem("format", f"{shown} is not a known format version, only {known} is")
        raise UnknownFormatError(f"unknown {what} format {shown}, expected {known}", [problem])


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from looking, again and again, at many objects that are made and not dropped."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _manifest(o: JsonObject) -> m.Manifest:
    return m.Manifest(
        format=o.integer("format"),
        identifier=o.text("identifier"),
        target=o.child("target", m.Target, _target),
        provider=o.child("provider", m.Provider, _provider),
        triton=o.child("triton", m.Triton, _triton),
        models=o.children("models", m.Model, _model),
        workloads=o.texts("workloads"),
        mode=o.one_of("mode", get_args(m.Mode)),
        max_tokens=o.integer("max_tokens"),
        max_batch=o.integer("max_batch"),
        kernels=o.children("kernels", m.Kernel, _kernel),
        not_covered=o.children("not_covered", m.NotCovered, _not_covered),
        numerics=o.child("numerics", m.Numerics, _numerics),
        blobs=o.children("blobs", m.Blob, _blob),
        build=o.child("build", m.Build, _build),
    )


def _target(o: JsonObject) -> m.Target:
    return m.Target(
        name=o.text("name"),
        capability=o.pair("capability"),
        warp_size=o.integer("warp_size"),
        max_shared=o.integer("max_shared"),
    )


def _provider(o: JsonObject) -> m.Provider:
    return m.Provider(
        name=o.text("name"),
        distribution=o.text("distribution"),
        version=o.text("version"),
        license=o.text("license"),
        license_files=o.children("license_files", m.LicenseFile, _license_file),
    )


def _license_file(o: JsonObject) -> m.LicenseFile:
    return m.LicenseFile(path=o.text("path"), blob=o.text("blob"))


def _triton(o: JsonObject) -> m.Triton:
    return m.Triton(version=o.text("version"), ptxas=o.text("ptxas"))


def _model(o: JsonObject) -> m.Model:
    return m.Model(
        name=o.text("name"),
        tp=o.integer("tp"),
        heads=o.integer("heads"),
        v_heads=o.integer("v_heads"),
        k_dim=o.integer("k_dim"),
        v_dim=o.integer("v_dim"),
        conv_width=o.integer("conv_width"),
        dtype=o.text("dtype"),
    )


def _kernel(o: JsonObject) -> m.Kernel:
    return m.Kernel(
        module=o.text("module"),
        qualname=o.text("qualname"),
        cache_key=o.text("cache_key"),
        source_sha256=o.text("source_sha256"),
        sources=o.children("sources", m.Source, _source),
        dependencies=o.children("dependencies", m.Dependency, _dependency),
        globals=o.children("globals", m.Global, _global),
        choices=o.children("choices", m.Choice, _choice),
        binaries=o.children("binaries", m.Binary, _binary),
        relaxations=_relaxations(o),
    )


def _relaxations(o: JsonObject) -> tuple[m.Relaxation, ...]:
    """Read what may be left out; if it is there, it is not empty, so that a manifest has one form."""
    if not o.has("relaxations"):
        return ()
    found = o.children("relaxations", m.Relaxation, _relaxation)
    if not found:
        o.refuse("relaxations", "is empty")
    return found


def _relaxation(o: JsonObject) -> m.Relaxation:
    return m.Relaxation(argument=o.text("argument"), value=o.integer("value"), reason=o.text("reason"))


def _source(o: JsonObject) -> m.Source:
    return m.Source(path=o.text("path"), sha256=o.text("sha256"))


def _dependency(o: JsonObject) -> m.Dependency:
    return m.Dependency(
        module=o.text("module"),
        qualname=o.text("qualname"),
        name=o.text("name"),
        source_sha256=o.text("source_sha256"),
    )


def _global(o: JsonObject) -> m.Global:
    return m.Global(name=o.text("name"), value=o.text("value"))


def _choice(o: JsonObject) -> m.Choice:
    return m.Choice(
        key=o.key("key"),
        config=o.child("config", m.Config, read_config),
        provenance=o.one_of("provenance", get_args(m.Provenance)),
        derived=o.boolean("derived"),
        note=o.text("note"),
    )


def read_config(o: JsonObject) -> m.Config:
    """Read one ``triton.Config``; problems are noted."""
    return m.Config(
        kwargs=o.scalars("kwargs"),
        num_warps=o.integer("num_warps"),
        num_stages=o.integer("num_stages"),
        num_ctas=o.integer("num_ctas"),
        maxnreg=o.optional("maxnreg", o.integer),
    )


def _binary(o: JsonObject) -> m.Binary:
    return m.Binary(
        launch_key=_BINARY["launch_key"](o),
        specialization=o.child("specialization", m.Specialization, read_specialization),
        **{name: _BINARY[name](o) for name in ("metadata", "resources", "models", "workloads", "cubin")},
    )


def read_specialization(o: JsonObject) -> m.Specialization:
    """Read what Triton compiles a kernel for; problems are noted."""
    return m.Specialization(
        **{name: _BINARY[name](o) for name in ("signature", "constants", "attributes", "options")},
    )


def _is_type(value: m.Json) -> bool:
    return isinstance(value, str) or (isinstance(value, tuple) and all(map(_is_type, value)))


_NO_JSON = ("inf", "-inf", "nan")
"""Numbers that JSON lacks."""


def _is_constant(value: m.Json) -> bool:
    if not isinstance(value, dict):
        return True
    (name,) = value if len(value) == 1 else ("",)
    content = value.get(name)
    return (
        name == "constexpr"
        or (name == "dtype" and isinstance(content, str))
        or (name == "float" and content in _NO_JSON)
    )


def _is_attributes(value: m.Json) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, tuple) and len(item) == len(("name", "value")) and isinstance(item[0], str) for item in value
    )


def _resources(o: JsonObject) -> m.Resources:
    return m.Resources(registers=o.integer("registers"), shared=o.integer("shared"), local=o.integer("local"))


_BINARY: dict[str, Callable[[JsonObject], Any]] = {
    "launch_key": lambda o: o.text("launch_key"),
    "signature": lambda o: o.mapping("signature", _is_type, "str or list of them"),
    "constants": lambda o: o.by_argument(
        "constants", _is_constant, "a value, {constexpr: value}, {dtype: str} or {float: str}"
    ),
    "attributes": lambda o: o.by_argument("attributes", _is_attributes, "list of [str, value]"),
    "options": lambda o: o.mapping("options"),
    "metadata": lambda o: o.mapping("metadata"),
    "resources": lambda o: o.child("resources", m.Resources, _resources),
    "models": lambda o: o.integers("models"),
    "workloads": lambda o: o.integers("workloads"),
    "cubin": lambda o: o.text("cubin"),
}
"""How to read each field of a binary and of its specialization."""


def _not_covered(o: JsonObject) -> m.NotCovered:
    return m.NotCovered(kernel=o.text("kernel"), reason=o.text("reason"), keys=o.keys("keys"))


def _numerics(o: JsonObject) -> m.Numerics:
    return m.Numerics(status=o.text("status"), detail=o.text("detail"))


def _blob(o: JsonObject) -> m.Blob:
    return m.Blob(sha256=o.text("sha256"), size=o.integer("size"))


def _build(o: JsonObject) -> m.Build:
    return m.Build(
        tool=o.text("tool"),
        commit=o.optional("commit", o.text),
        dirty=o.boolean("dirty"),
        epoch=o.integer("epoch"),
        zstd=o.text("zstd"),
    )

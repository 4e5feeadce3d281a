"""``gdn-aot doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, out
from gdn_aot.errors import NoArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gdn_aot.doctor import Diagnosis
    from gdn_aot.doctor.artifacts import ArtifactState, Lacking, Refused
    from gdn_aot.doctor.next_start import NextStart
    from gdn_aot.doctor.process import Plugin

_SHOWN = 8
"""Kernels of one kind that are listed; ``--json`` has all."""
_ACTIVATE = "import gdn_aot.auto, or call gdn_aot.install(), in the serving process"


@click.command("doctor")
@click.option("--artifact", metavar="PATH", help="Look at this file, or the files in this directory, not at the store.")
@click.option("--deep", is_flag=True, help="Also check the digest of everything in the store.")
@_options.as_json
def command(artifact: str | None, *, deep: bool, as_json: bool) -> None:
    """Say whether serving processes here find their kernels in artifacts, and if not, why.

    Exits with 4 where something is in the way. Nothing is written, and neither torch nor Triton is imported.
    """
    from gdn_aot.doctor import diagnose

    diagnosis = diagnose(artifact, deep=deep)
    error = None
    if not diagnosis.ok:
        first = diagnosis.obstacles[0]
        error = NoArtifactError(first.what, hint=first.hint)
    if as_json:
        document: dict[str, object] = asdict(diagnosis)
        if error is not None:
            document["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
        emit_json(_encodable(document))
        if error is not None:
            raise click.exceptions.Exit(error.exit_code)
        return
    for line in _page(diagnosis):
        out(_printable(line))
    if error is not None:
        raise error


def _page(diagnosis: Diagnosis) -> Iterator[str]:
    yield from _section("versions", _versions(diagnosis))
    yield from _section("settings", _settings(diagnosis))
    yield from _section("devices", _devices(diagnosis))
    yield from _section("compiler", _compiler(diagnosis))
    yield from _section("store", _store(diagnosis))
    yield "artifacts"
    for artifact in diagnosis.artifacts:
        yield from _artifact(artifact, bool(diagnosis.devices.found))
    if not diagnosis.artifacts:
        yield "  none"
    yield ""
    yield from _section("hooks", _hooks(diagnosis))
    yield "next start"
    for start in diagnosis.next_start:
        yield from _next_start(start)
    yield ""
    if diagnosis.obstacles:
        yield "in the way"
        for obstacle in diagnosis.obstacles:
            yield f"  {obstacle.what}"
            yield f"    {obstacle.hint}"
        yield ""
    yield diagnosis.verdict


def _section(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a title, the rows below it in two columns, and an empty line."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    yield title
    for name, value in rows:
        yield f"  {name.ljust(width)}  {value}".rstrip()
    yield ""


def _versions(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    versions = diagnosis.versions
    yield "gdn-aot", versions.gdn_aot
    yield "Python", f"{versions.python}, {versions.executable}"
    unsupported = f" ({versions.triton_problem})" if versions.triton and versions.triton_problem else ""
    yield "triton", f"{versions.triton or 'not installed'}{unsupported}"
    others = {
        "torch": versions.torch,
        **versions.providers,
        "zstandard": versions.zstandard,
        "huggingface_hub": versions.huggingface_hub,
    }
    for name, version in others.items():
        yield name, version or "not installed"


def _settings(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    settings = diagnosis.settings
    yield "GDN_AOT", str(int(settings.enabled))
    yield "GDN_AOT_HOME", settings.home
    yield "GDN_AOT_ARTIFACT", settings.artifact or "not set"
    yield "GDN_AOT_STRICT", str(int(settings.strict))
    yield "GDN_AOT_ON_MISS", settings.on_miss
    yield "GDN_AOT_LOG", settings.log or "not set"
    yield "TRITON_CACHE_DIR", settings.triton_cache_dir or "not set"
    if settings.changed_code_variable:
        yield settings.changed_code_variable, "set, which changes what Triton compiles: nothing is served"
    for problem in settings.problems:
        yield "ignored", problem


def _devices(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    devices = diagnosis.devices
    if devices.cuda or devices.kernel_driver:
        yield "driver", f"{devices.kernel_driver or 'version not known'}, for CUDA up to {devices.cuda or '?'}"
    if devices.visible is not None:
        yield "CUDA_VISIBLE_DEVICES", devices.visible or "empty"
    for device in devices.found:
        memory = f", {device.memory / (1 << 30):.1f} GiB" if device.memory is not None else ""
        yield f"device {device.index}", f"{device.target}, {device.name or 'without a name'}{memory}"
    if devices.problem:
        yield "none", devices.problem


def _compiler(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    compiler = diagnosis.compiler
    yield "C compiler", compiler.path or "not found"
    yield "Python.h", "found" if compiler.headers else "not found"
    problem = f" ({compiler.native_problem})" if compiler.native_problem else ""
    yield "own launcher", f"{'ready' if compiler.native_launcher else 'not there'}{problem}"
    yield "so", compiler.meaning


def _store(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    store = diagnosis.store
    state = f"{'writable' if store.writable else 'not writable'}, format {store.format or 'not known'}"
    yield "path", store.path
    yield "state", state if store.exists else f"not there yet, {'can' if store.writable else 'cannot'} be made"
    yield "content", f"{store.artifacts} artifacts; {store.blobs} blobs, {store.blob_bytes} bytes"
    if diagnosis.artifacts_from:
        yield "not used", f"{diagnosis.artifacts_from} is used instead"
    if store.problem:
        yield "problem", store.problem


def _artifact(artifact: ArtifactState, present: bool) -> Iterator[str]:
    yield f"  {artifact.identifier or artifact.path}: {'accepted' if artifact.accepted else 'rejected'}"
    details: list[tuple[str, str]] = []
    if not artifact.accepted:
        details.append(("reason", artifact.reason))
    elif present:
        for_devices = ", ".join(map(str, artifact.devices))
        details.append(("devices", for_devices or f"none of those here is {artifact.target}"))
    if artifact.identifier:
        details.append(("path", artifact.path))
        if artifact.directory is None:
            details.append(("store", "not there yet: the next start verifies and unpacks it"))
        kernels = _count(artifact.kernels, "kernel")
        made = f"{kernels}, {artifact.choices} choices, {artifact.binaries} binaries"
        details.append(("content", f"{made}; {', '.join(artifact.workloads)}"))
        details.append(("models", ", ".join(f"{row.name} tp {row.tp} {row.dtype}" for row in artifact.models)))
    details += [("damage", text) for text in artifact.damage]
    width = max((len(name) for name, _ in details), default=0)
    for name, value in details:
        yield f"    {name.ljust(width)}  {value}"


def _hooks(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    hooks = diagnosis.hooks
    yield "every Python", "gdn_aot.auto, by sitecustomize or a .pth file" if hooks.automatic else "no"
    for plugin in hooks.plugins:
        yield f"{plugin.host} {plugin.host_version or '(not installed)'}", _plugin(plugin)
    yield "else", _ACTIVATE


def _plugin(plugin: Plugin) -> str:
    left_out = f"; {plugin.variable}={plugin.filter} leaves gdn_aot out" if plugin.left_out else ""
    if plugin.installed:
        return f"entry point {plugin.value} of {plugin.group}{left_out}"
    return f"no entry point gdn_aot of {plugin.group} is installed{left_out}"


def _next_start(start: NextStart) -> Iterator[str]:
    devices = f"device {', '.join(map(str, start.devices))} ({start.target})" if start.devices else start.target
    if start.everything:
        command = f": {' or '.join(start.commands)}" if start.commands else ""
        yield f"  {devices or 'any device'} compiles and benchmarks everything, as {start.everything}{command}"
        return
    yield f"  {devices}: {_count(start.served, 'kernel')} served"
    yield f"    for  {', '.join(f'{row.name} tp {row.tp} {row.dtype}' for row in start.models)}"
    yield from _list("compiled and benchmarked, as their source differs", start.refused)
    yield from _list("not covered by the build", start.not_covered)
    for condition in start.conditional:
        yield f"    of those served, only if asked for: {len(condition.kernels)}"
        yield f"      {condition.reason}"
        yield from (f"      {name}" for name in condition.kernels[:_SHOWN])


def _list(title: str, items: tuple[Refused, ...] | tuple[Lacking, ...]) -> Iterator[str]:
    if not items:
        return
    yield f"    {title}: {len(items)}"
    for item in items[:_SHOWN]:
        yield f"      {item.kernel}: {item.reason}"
    if len(items) > _SHOWN:
        yield f"      and {len(items) - _SHOWN} more"


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _encodable(value: object) -> object:
    """Replace what UTF-8 cannot carry: a path may hold any bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, tuple) else value


def _printable(text: str) -> str:
    """Escape what could move the cursor: an artifact's text is not ours."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)

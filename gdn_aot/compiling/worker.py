"""The process that imports a provider for one target: traces it, then compiles what it is asked to.

Started by `gdn_aot.compiling.client`; speaks JSON over a socket. One process serves one (provider, target), because
providers read the device when they are imported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import convert

from gdn_aot import triton_internals
from gdn_aot.artifact import elf
from gdn_aot.artifact.names import DEPLOYMENT
from gdn_aot.catalogue.models import ModelShape
from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.cache import BuildCache, digest
from gdn_aot.compiling.client import nobody
from gdn_aot.compiling.proxy import proxy_for
from gdn_aot.deployment import Deployment
from gdn_aot.errors import NotWritableError, UnsupportedProviderError
from gdn_aot.launches import config_from_json
from gdn_aot.machine import installed, pool
from gdn_aot.providers import lacking, load, makes
from gdn_aot.providers.copies import stand_in
from gdn_aot.tracing import between, captured_calls, stub, wide
from gdn_aot.tracing.recorder import TraceRecorder
from gdn_aot.tracing.records import MISFITS, NO_SHAPE, Trace
from gdn_aot.tracing.relax import Relaxer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gdn_aot.launches import Config, Kernel
    from gdn_aot.providers.workload import Call
    from gdn_aot.tracing.recorder import More

_MESSAGE_LENGTH = 2000
"""Most characters of a compiler message that are passed on."""
_TELL = 0.3
"""Seconds between two words on how far a request is."""
_OTHER_FAMILY = "no workload that is built is for models of its family"


def start(request: dict[str, Any]) -> Any:
    """Become a process of the request's target and import its provider. Returns the provider module."""
    triton_internals.check_supported()
    stub.activate(get_target(request["target"]))
    if copy := request.get("copy"):
        stand_in(copy["folder"], copy["module"], get_provider(request["provider"]).package)
    return load(request["provider"])


def trace(module: Any, request: dict[str, Any], far: Callable[[int, int, str], None] = nobody) -> Trace:
    """Run every case of every wanted workload for every shape, recording launches; ``far`` is told how far it is."""
    copy = request.get("copy")
    made = Trace(
        provider_version=copy["version"] if copy else installed.require(request["provider"]),
        triton_version=triton_internals.check_supported(),
        ptxas_version=request["ptxas"],
    )
    recorder = TraceRecorder(made, more=_more(request), relaxer=Relaxer.of(module))
    limits = Limits(**request["limits"])
    shapes = [ModelShape(**shape) for shape in request["shapes"]]
    tokens: list[int] = request.get("tokens", [])
    made.lacking = [
        (index, reason) for index, shape in enumerate(shapes) if (reason := _lacking(module, request, shape))
    ]
    wanted = [(index, shape) for index, shape in enumerate(shapes) if index not in dict(made.lacking)]
    refusals: dict[tuple[bool, str, str], str] = {}
    had: defaultdict[tuple[int, str], set[int]] = defaultdict(set)

    names = [name for name in request["workloads"] if name in module.WORKLOADS and shapes]
    made.workloads = [f"{name}@{count}" for count in tokens for name in names] if tokens else names
    for index, entry in enumerate(made.workloads):
        name, _, count = entry.partition("@")
        workload = module.WORKLOADS[name]()
        for place, (shape_index, shape) in enumerate(wanted):
            step = f"{entry} on {shape.name} tp {shape.tp}"
            far(index * len(wanted) + place, len(made.workloads) * len(wanted), step)
            calls = _calls(workload, shape, count, limits) if makes(request["provider"], workload, shape) else ()
            for number, call in enumerate(calls):
                try:
                    keys = recorder.record(partial(workload.run, shape, call), (shape_index, index))
                    fresh = [key for key in keys if key not in had[shape_index, count]]
                    had[shape_index, count].update(fresh)
                    if count and fresh:
                        made.places.append((shape_index, int(count), name, number, fresh))
                except Exception as error:  # noqa: BLE001
                    what = isinstance(error, MISFITS), name, _message(error)
                    refusals.setdefault(what, f"{call} on {shape.name} tp {shape.tp}")
    if capture := request.get("capture"):
        made.workloads.append(capture["name"])
        made.left_out = captured_calls.trace(recorder, capture["kernels"], request["target"], len(made.workloads) - 1)
    if asked := request.get("deployment"):
        made.workloads.append(_deployed(module, recorder, asked, len(made.workloads), refusals))
    if not tokens:
        _finish(module, made, [] if copy else shapes)
    for (misfit, name, reason), first in refusals.items():
        (made.misfits if misfit else made.refused).append((name, f"{reason} (first in {first})"))
    return made


def _finish(module: Any, made: Trace, shapes: list[ModelShape]) -> None:
    """Add to a trace for a build what follows from all calls, and the files of an engine's cache for ``shapes``."""
    between.complete(made)
    if shapes:
        made.placed, made.unplaced = getattr(module, "place", _place_nothing)(shapes)


def _lacking(module: Any, request: dict[str, Any], shape: ModelShape) -> str:
    """Return why nothing is traced for a model, or nothing if something is."""
    families = get_provider(request["provider"]).families_of(request["workloads"])
    return lacking(module, shape) or _OTHER_FAMILY * (shape.family not in families)


def _calls(workload: Any, shape: ModelShape, tokens: str, limits: Limits) -> Iterator[Call]:
    """Return the calls to trace: those for tuning at so many ``tokens``, or all cases if it is empty."""
    calls: Iterator[Call] = workload.tune(shape, int(tokens), limits) if tokens else workload.cases(shape, limits)
    return calls


def _place_nothing(shapes: list[ModelShape]) -> tuple[list[Any], list[Any]]:
    del shapes
    return [], []


def _deployed(
    module: Any, recorder: TraceRecorder, asked: dict[str, Any], index: int, refusals: dict[tuple[bool, str, str], str]
) -> str:
    """Record what an engine launches for a deployment. Returns the name of the workload that stands for it."""
    deployment = convert(asked, Deployment)
    name = DEPLOYMENT + deployment.digest
    with module.deployed(deployment) as engine:
        recorder.trace.resolved = engine.resolved
        for call, run in engine.calls():
            try:
                recorder.record(run, (NO_SHAPE, index))
            except Exception as error:  # noqa: BLE001
                refusals.setdefault((True, name, _message(error)), call)
    return name


def _more(request: dict[str, Any]) -> More | None:
    """Return what gives the candidates beyond the provider's, as the request asks for them, or None for none."""
    kind = request.get("derive", "")
    extras = {name: list(map(config_from_json, configs)) for name, configs in request.get("extras", {}).items()}
    target = get_target(request["target"])
    if not kind and not extras:
        return None

    def more(kernel: Kernel, offered: list[Config]) -> list[Config]:
        known = [*extras.get(kernel.digest, ()), *extras.get(kernel.name, ())]
        return wide.beyond(offered, known, kind, target)

    return more


class Compiler:
    """Compiles one launch after another into the build cache."""

    def __init__(self, cache: BuildCache, target: str, compiler: dict[str, str]) -> None:
        self._cache = cache
        self._target = get_target(target)
        self._capability = get_target(compiler.get("code", target)).arch_number
        self._compiler = compiler

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Compile one task. Returns ``{"object": key, "reused": bool}`` or a reason, with the CPU ``seconds`` of it."""
        start = _cpu_seconds()
        answer = self._answer(task)
        return {**answer, "seconds": _cpu_seconds() - start}

    def _answer(self, task: dict[str, Any]) -> dict[str, Any]:
        try:
            with _scratch():
                return self._compile(task)
        except NotWritableError as error:
            return {"not_writable": error.message}
        except Exception as error:  # noqa: BLE001
            reason = _message(error)
            if not triton_internals.is_rejection(error):
                return {"failed": reason}
            self._cache.put_launch(task["key"], rejected=reason)
            return {"rejected": reason}

    def _compile(self, task: dict[str, Any]) -> dict[str, Any]:
        jit = triton_internals.find_kernel(task["module"], task["qualname"])[0]
        specialization = task["specialization"]
        options = specialization["options"]
        source = triton_internals.make_source(jit, specialization)
        text = triton_internals.source_ir(source, options, self._capability)
        key = digest(text, options, self._compiler)
        ready = self._cache.object(key)
        reused = ready is not None and (not task.get("ptx") or self._cache.has_ptx(ready.cubin))
        if not reused:
            cubin, metadata, ptx = triton_internals.compile_source(source, options, self._capability)
            info = elf.describe(cubin)
            if info.arch != self._capability:
                raise ValueError(f"the assembler made code for sm_{info.arch}, not sm_{self._capability}")
            ready = self._cache.put_object(key, cubin, metadata, info.registers, info.local)
            if task.get("ptx"):
                self._cache.put_ptx(ready.cubin, ptx)
        if task.get("card") and ready is not None:
            proxy_for(self._target, get_target(task["card"])).assemble(self._cache, ready)
        self._cache.put_launch(task["key"], object_key=key)
        return {"object": key, "reused": reused}


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it started and that ended, the assembler above all."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """Have a directory of its own for Triton's cache and the assembler's temporary files, gone afterwards."""
    tempfile.tempdir = os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp(
        prefix="compile-", dir=os.environ["GDN_AOT_SCRATCH"]
    )
    try:
        yield
    finally:
        tempfile.tempdir = None
        shutil.rmtree(os.environ["TRITON_CACHE_DIR"], ignore_errors=True)


def _message(error: BaseException) -> str:
    return triton_internals.compiler_message(error)[:_MESSAGE_LENGTH]


class Server:
    """Answers the parent's requests until it closes the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._request = json.loads(connection.recv_bytes())
        try:
            self._module = start(self._request)
        except MISFITS as error:
            said = f"{type(error).__name__}: {error}"
            raise UnsupportedProviderError(f"provider {self._request['provider']} does not start: {said}") from error
        self._pool: pool.Pool | None = None
        self._told = 0.0
        _send(connection, {"event": "started"})

    def run(self) -> None:
        """Serve requests and pass on what the compile workers answer."""
        try:
            while True:
                workers = self._pool.connections() if self._pool else []
                ready = wait([self._connection, *workers], self._pool.seconds_left() if self._pool else None)
                if self._pool:
                    for number, answer in self._pool.collect():
                        _send(self._connection, {"event": "compiled", "task": number, **answer})
                if self._connection in ready:
                    self._serve(json.loads(self._connection.recv_bytes()))
        except EOFError:
            pass
        finally:
            if self._pool:
                self._pool.close()

    def _far(self, done: int, total: int, what: str) -> None:
        """Tell the parent how far a request is, a few times a second."""
        if (now := time.monotonic()) - self._told >= _TELL:
            self._told = now
            _send(self._connection, {"event": "far", "done": done, "of": total, "what": what})

    def _serve(self, message: dict[str, Any]) -> None:
        match message["do"]:
            case "trace":
                made = trace(self._module, {**self._request, **message}, self._far)
                Path(message["path"]).write_bytes(made.to_json())
                _send(self._connection, {"event": "traced"})
            case "pool":
                work = Compiler(BuildCache(Path(message["cache"])), self._request["target"], message["compiler"])
                self._pool = pool.Pool(work, message["jobs"], message["timeout"])
            case "compile":
                assert self._pool is not None  # noqa: S101
                self._pool.submit((message["task"], message["payload"]))
            case "coverage":
                from gdn_aot.tracing.replay import replay

                _send(
                    self._connection,
                    {"event": "covered", **replay(self._module, {**self._request, **message}, self._far)},
                )
            case "seed":
                from gdn_aot.tracing.seeding import places

                _send(self._connection, {"event": "placed", **places({**self._request, **message})})
            case other:
                raise ValueError(f"unknown request {other}")


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def main() -> None:
    """Serve on the connection to the parent."""
    connection = Connection(int(sys.argv[1]))
    logging.disable(logging.INFO)
    try:
        Server(connection).run()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        _send(
            connection,
            {
                "event": "error",
                "kind": type(error).__name__,
                "message": str(error),
                "hint": getattr(error, "hint", None),
            },
        )
        sys.exit(1)

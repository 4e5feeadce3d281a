"""Small sound artifacts of any target and build, and functions that run in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from artifact import factory

from gdn_aot.artifact import names
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.registry.layout import entry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gdn_aot.registry.layout import Entry

TARGETS = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def artifact(folder: Path, target: str = "sm_120", *, build: int = 0, dirty: bool = False) -> Path:
    """Write an artifact into a folder. Another ``build`` gives another binary under the same identifier."""
    plain = factory.make_manifest()
    cubin = b"\x7fELF" + f"{target} {build}".encode() * 50
    digits = target.removeprefix("sm_")
    manifest = replace(
        plain,
        identifier=names.make_identifier("fla", "0.6.0", "3.6.0", target),
        target=replace(plain.target, name=target, capability=(int(digits[:-1]), int(digits[-1]))),
        kernels=(factory.make_kernel(factory.make_binary(cubin)),),
        build=replace(plain.build, commit="c" * 40, dirty=dirty),
    )
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, cubin)}
    path = folder / f"build-{build}{'-dirty' * dirty}" / names.file_name(manifest.identifier)
    return write_artifact(manifest, blobs, path).path


def entry(path: Path, **changes: Any) -> Entry:
    """Return the entry of an artifact file, with some fields changed."""
    return replace(entry_of(open_artifact(path)), **changes)


def fork(function: Callable[[], object]) -> int:
    """Run a function in a copy of this process and return its id; an exception there is exit code 1."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is the test's to see
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pids: Sequence[int]) -> list[int]:
    """Return the exit codes of processes; one that was killed has minus the number of the signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def die_at(step: int) -> None:
    """Let this process be killed just before its ``step``-th change of a name in a file system."""
    left = step
    import pathlib

    def deadly(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **kwargs)

        return changed

    for module, verbs in (
        (os, ("replace", "rename", "link", "mkdir")),
        (pathlib.Path, ("replace", "hardlink_to", "mkdir")),
    ):
        for name in verbs:
            setattr(module, name, deadly(getattr(module, name)))

"""Copies of the installed FLA under other names, as packages of the Hub hold it."""

import importlib.util
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

HUB = "fla_0a1b2c3d"
"""A name as the ``kernels`` library gives: the kernel's, and a part of a digest."""


def installed_fla() -> Path:
    """Return the folder of the installed package."""
    spec = importlib.util.find_spec("fla")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    return Path(folder)


def copy_fla(
    package: Path, *, relative: bool = False, edits: Mapping[str, tuple[str, str]] | None = None, name: str = ""
) -> Path:
    """Copy the operators, modules and utilities of FLA into a new folder ``package``; return that.

    Its modules import each other by the folder's name, by ``name`` or relatively. ``edits`` are, per file, a text that
    it must have once and what is put there.
    """
    shutil.copytree(installed_fla(), package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in package.rglob("*.py"):
        text = file.read_text()
        if relative:
            dots = "." * len(file.relative_to(package).parts)
            text = re.sub(r"\bfrom fla\.", f"from {dots}", re.sub(r"\bfrom fla import", f"from {dots} import", text))
        else:
            text = re.sub(r"\bfla\.(?=[a-z])", f"{name or package.name}.", text)
            text = re.sub(r"\bfrom fla import", f"from {name or package.name} import", text)
        file.write_text(text)
    for path, (old, new) in (edits or {}).items():
        text = (package / path).read_text()
        assert text.count(old) == 1, (path, text.count(old))
        (package / path).write_text(text.replace(old, new))
    return package


def kernel_repository(root: Path, identifier: str = HUB, variant: str = "torch-cuda", **more: object) -> Path:
    """Make what a kernel repository of the Hub is on a disk; return the folder of its one build."""
    build = root / "build" / variant
    build.parent.mkdir(parents=True)
    copy_fla(build, relative=True, **more)  # type: ignore[arg-type]
    metadata = {
        "id": identifier, "name": "fla", "version": 2, "license": "MIT", "python-depends": [],
        "backend": {"type": "cuda"},
    }  # fmt: skip
    (build / "metadata.json").write_text(json.dumps(metadata))
    return build


FWD_H = "ops/common/chunk_delta_h.py"
KERNEL_H = "chunk_gated_delta_rule_fwd_kernel_h_blockdim64"
CHANGED_H = {FWD_H: ("b_v = b_v.to(k.dtype.element_ty)", "b_v = (b_v).to(k.dtype.element_ty)")}
"""An edit that changes the text of one kernel, and not what it computes."""

CALL = """
import importlib
def chunk(root, tokens=128, place=".ops.gated_delta_rule"):
    import torch
    operator = importlib.import_module(root + place).chunk_gated_delta_rule
    with torch.inference_mode():
        return operator(**inputs(tokens), output_final_state=True, use_qk_l2norm_in_kernel=True)
def step(root, batch=2):
    import torch
    operator = importlib.import_module(root + ".ops.gated_delta_rule").fused_recurrent_gated_delta_rule
    with torch.inference_mode():
        return operator(
            **inputs(1, batch), initial_state=torch.empty(batch, 32, 128, 128), output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
def tried(call, *args):
    try:
        call(*args)
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error} {getattr(error, 'hint', '')}"
def listen():
    import logging
    said = []
    class Handler(logging.Handler):
        def emit(self, record):
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())
    logging.getLogger("gdn_aot").addHandler(Handler())
    return said
"""
"""Calls of the operators of a package, for code that begins with `launching.PRELUDE`."""

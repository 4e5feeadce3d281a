"""What a deployment of a serving engine is, as far as it decides which kernels are launched: its description.

People write it as TOML, or as ``KEY=VALUE,...`` on the command line; an artifact that was built for it holds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, field

from gdn_aot._files import parse_toml, read_regular
from gdn_aot.codec import Form, Integer, Record
from gdn_aot.errors import DeploymentError, Problem, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES = 1 << 20
"""Bytes of a description, and of a ``config.json``."""
_COMMAS = 'values with commas go into a TOML file, as speculative_config = {method = "mtp", ...} under [engine]'
_HINT = "for example --deployment 'card=NVIDIA H200,max_model_len=16384,enforce_eager=true', or a TOML file"
_DIGITS = 8
"""Of the digest, in the name of a deployment's workload."""
_OURS = ("card", "config")
_SECRET = re.compile(r"(^|_)token$|password|secret|api_key")

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}(?![\s\S])", description="lower-case letters, digits and _")]
Variable = Annotated[str, Meta(pattern=r"^VLLM_[A-Z0-9_]{1,64}(?![\s\S])", description="a variable of vLLM: VLLM_...")]
Card = Annotated[str, Meta(min_length=1, max_length=100)]
Value = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(max_length=_MAX_BYTES)]


class DeploymentFile(Record):
    """A description as people write it."""

    card: Card
    """Product name of the GPU, as ``nvidia-smi -L`` and ``torch.cuda.get_device_name`` print it."""
    config: Value = ""
    """Path of the checkpoint's ``config.json``; empty for that of the catalogue's model."""
    engine: dict[Name, bool | Integer | float | Value] = field(default_factory=dict)
    """Engine arguments by the names of the engine's own options; what is not here is as the engine has it."""
    environment: dict[Variable, Value] = field(default_factory=dict)
    """Variables that the engine is started with."""


class Deployment(Record):
    """A description, complete: what is built from."""

    model: str
    """Of the catalogue."""
    card: str
    """The GPU's product name, which decides tiles of kernels."""
    config: Text
    """The checkpoint's ``config.json``, in one line."""
    engine: tuple[tuple[str, bool | Integer | float | str], ...]
    """Engine arguments, sorted by name."""
    environment: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Eight digits of a SHA-256 of it, which end the name of the workload that stands for it."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:_DIGITS]


class Built(Deployment):
    """What an artifact was built for, as its manifest has it."""

    resolved: tuple[tuple[str, bool | Integer | float | str], ...]
    """What the engine itself made of the arguments: the values that decide kernels, given or not."""

    @classmethod
    def of(cls, asked: Deployment, resolved: dict[str, Any]) -> Built:
        """Return what a manifest keeps of a deployment."""
        return cls(**msgspec.structs.asdict(asked), resolved=tuple(sorted(resolved.items())))

    @property
    def asked(self) -> Deployment:
        """What was described."""
        return Deployment(**{name: getattr(self, name) for name in Deployment.__struct_fields__})


def _check(file: DeploymentFile) -> Iterator[Problem]:
    given = [(f"engine.{name}", name, value) for name, value in file.engine.items()]
    given += [(f"environment.{name}", name, value) for name, value in file.environment.items()]
    for place, name, value in given:
        if any(_SECRET.search(one.lower()) for one in (name, *_inner(value))):
            yield Problem(place, "is a secret, and an artifact keeps what it was built for")
    for name, value in file.engine.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield Problem(f"engine.{name}", f"{value} is no number that an artifact can hold")


def _inner(value: object) -> list[str]:
    """Return the names in a table, which is JSON, and in those that it has."""
    names: list[str] = []
    if isinstance(value, str) and value.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(value, object_pairs_hook=lambda pairs: names.extend(name for name, _ in pairs))
    return names


FORM = Form(DeploymentFile, "the deployment", format=1, limit=_MAX_BYTES, check=_check)
"""Of what the TOML stands for; no file has it as JSON."""


def read(text: str) -> DeploymentFile:
    """Read a description: a path of a TOML file, or ``KEY=VALUE,...``.

    Of the latter ``card`` and ``config`` are our own keys, names of ``VLLM_...`` are variables and all others engine
    arguments; values are read as TOML where they are numbers or truth values, else they are text. Paths are taken from
    the folder of the file.

    Raises:
        DeploymentError: It cannot be read, or something in it is wrong; every problem is named with its path.
    """
    inline = "=" in text and not Path(text).is_file()
    value = _pairs(text) if inline else _toml(Path(text))
    try:
        found = FORM.convert(_flat(value))
    except VerificationError as error:
        raise DeploymentError("the deployment is malformed", error.problems) from error
    if found.config and not inline:
        return msgspec.structs.replace(found, config=str(Path(text).parent / found.config))
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a checkpoint, or of the folder that it lies in.

    Raises:
        DeploymentError: There is none, or it is no JSON object.
    """
    place = path / "config.json" if path.is_dir() else path
    try:
        found = json.loads(read_regular(place, _MAX_BYTES))
    except OSError as error:
        hint = "give the folder of the checkpoint, or its config.json"
        raise DeploymentError(f"cannot read {place}: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise DeploymentError(f"{place} is not JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise DeploymentError(f"{place} holds no JSON object, so it is no config.json of a checkpoint")
    return found


def complete(file: DeploymentFile, model: str, config: dict[str, Any]) -> Deployment:
    """Return a description with the model's name and the content of its ``config.json``."""
    return Deployment(
        model=model,
        card=file.card,
        config=json.dumps(config, sort_keys=True, separators=(",", ":")),
        engine=tuple(sorted(file.engine.items())),
        environment=tuple(sorted(file.environment.items())),
    )


def _toml(path: Path) -> object:
    try:
        return parse_toml(read_regular(path, _MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise DeploymentError(f"cannot read the deployment {path}: {error.strerror}", hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise DeploymentError(f"{path} is not TOML: {str(error)[:200]}", hint=_HINT) from error


def _flat(value: object) -> object:
    """Return a description whose engine arguments that are tables are JSON, as on an engine's command line."""
    if not isinstance(value, dict) or not isinstance(engine := value.get("engine"), dict):
        return value
    tables = {
        name: json.dumps(given, sort_keys=True, default=str)
        for name, given in engine.items()
        if isinstance(given, dict)
    }
    return {**value, "engine": {**engine, **tables}}


def _pairs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"engine": {}, "environment": {}}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise DeploymentError(f"--deployment: {part.strip()!r} is not KEY=VALUE", hint=_COMMAS)
        variable = key.startswith("VLLM_")
        table = found if key in _OURS else found["environment" if variable else "engine"]
        name = key if variable else key.removeprefix("--").replace("-", "_")
        if name in table:
            raise DeploymentError(f"--deployment: {key} is given twice", hint=_HINT)
        table[name] = value if variable or key in _OURS else _scalar(value)
    return found


def _scalar(text: str) -> object:
    try:
        value = parse_toml(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) else text

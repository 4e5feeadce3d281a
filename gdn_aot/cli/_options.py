"""The options that more than one command has, written once. `together` makes several of them one decorator."""

from __future__ import annotations

import os
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

path = click.Path(path_type=Path)

_CHECKS = {
    "verify": "is the file whole, by its digests and its signature?",
    "inspect": "what is in it, and how much GPU memory does it take?",
    "coverage": "does every call of a model find its kernels in it?",
    "check": "do a target's kernels agree with float64?",
    "cache verify": "is every installed artifact unchanged?",
}
"""The commands that one may mean by "is it right", and the question that each answers."""


def together(*options: Decorator) -> Decorator:
    """Return a decorator that adds options, which ``--help`` lists in this order."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


def default(name: str, value: object, help: str, **more: Any) -> Decorator:  # noqa: A002 - as click calls it
    """Return an option that is shown with its default."""
    return click.option(name, default=value, show_default=True, help=help, **more)


def many(name: str, metavar: str | None, help: str, **more: Any) -> Decorator:  # noqa: A002 - as click calls it
    """Return an option that may be repeated."""
    return click.option(name, multiple=True, metavar=metavar, help=help, **more)


def other_checks(name: str) -> str:
    """Return the end of the help of a command that checks: what the other four do."""
    width = max(map(len, _CHECKS))
    lines = [f"  {other.ljust(width)}  {asks}" for other, asks in _CHECKS.items() if other != name]
    return "\n".join(("\b", "Other questions, other commands:", *lines))


def output(value: str, help: str) -> Decorator:  # noqa: A002 - as click calls it
    """Return ``--output``, a path."""
    return click.option("-o", "--output", type=path, default=Path(value), show_default=True, help=help)


def patience(seconds: float, what: str) -> Decorator:
    """Return ``--patience``, the seconds that a kind of process may be silent."""
    what = f"Seconds without a sign of life after which a {what} process is killed."
    return default("--patience", seconds, what, type=click.FloatRange(min=1))


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Print paths or names only, and no notes.")

arch = many("--arch", "SM", "Target, as sm_90; repeatable, or all.")
models = together(
    many("--model", "NAME", "Model of the catalogue; repeatable, or all."),
    default("--tp", "1", "Tensor-parallel sizes.", metavar="N,..."),
    many(
        "--shape",
        "KEY=VALUE,...",
        "Another shape, as heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16, or family=kda,heads=32,...; repeatable.",
    ),
    many("--dtype", "TYPE", "bf16, fp16 or fp32 instead of the model's own; repeatable."),
    default("--provider", "fla", "Provider of the kernels.", metavar="NAME"),
)
"""What `gdn_aot.cli._job.selected_shapes` reads."""
max_tokens = click.option(
    "--max-tokens", type=click.IntRange(min=1, max=(1 << 31) - 1), show_default="the longest context of the models",
    help="Largest number of tokens in one call.",
)  # fmt: skip
max_batch = default(
    "--max-batch", 64, "Largest number of sequences in one dense prefill batch.", type=click.IntRange(min=1)
)
mode = default("--mode", "inference", "train adds the backward kernels.", type=click.Choice(["inference", "train"]))
workloads = together(
    click.option(
        "--jobs", "-j", type=click.IntRange(min=1), default=lambda: os.cpu_count() or 1,
        show_default="number of CPUs", help="Compile workers.",
    ),
    many("--workload", "GLOB", "Only these call patterns; repeatable."),
    many("--exclude-workload", "GLOB", "Not these call patterns; repeatable."),
)  # fmt: skip
tuning = click.option(
    "--tuning", type=path, help="Directory of tuning records.  [default: artifacts/tuning, else those of the package]"
)
numerics = click.option(
    "--numerics", type=path,
    help="Directory of records of gdn-aot check.  [default: artifacts/numerics, else those of the package]",
)  # fmt: skip
card = click.option(
    "--card", metavar="NAME|SMS", default="",
    help="Show the local memory on this GPU: part of a name in gdn-aot targets, or a number of SMs.  "
    "[default: the GPU of the artifact's target there]",
)  # fmt: skip
prepare = click.option("--prepare", is_flag=True, help="Only trace and compile, into the build cache; needs no GPU.")
timeout = default(
    "--timeout", 300.0, "Seconds that one kernel may take to compile.", type=click.FloatRange(min=0, min_open=True)
)
cluster = together(
    default(
        "--executor", "local", "Work on this machine, or on the nodes of a Ray cluster.",
        type=click.Choice(["local", "ray"]),
    ),
    click.option(
        "--address", metavar="HOST:PORT",
        help="Address of the cluster of --executor ray, or auto.  [default: $RAY_ADDRESS, or auto]",
    ),
)  # fmt: skip
"""Where to work; `gdn_aot.cli._executor` reads it."""
cache_dir = click.option("--cache-dir", type=path, help="Build cache to use.")
matrix = default("--matrix", Path("artifacts/matrix.toml"), "File that lists the published artifacts.", type=path)

repo = click.option(
    "--repo", metavar="REPO",
    help="Registry: hf://org/name or a directory.  [default: $GDN_AOT_REPO, or hf://gdn-aot/kernels]",
)  # fmt: skip
revision = click.option("--revision", metavar="REV", help="Branch, tag or commit of the registry.  [default: v1]")
request = together(
    many("--arch", "SM", "Target, as sm_90, native or all; repeatable.  [default: native, the GPUs of this machine]"),
    default("--provider", "auto", "Provider of the kernels; auto takes every installed one.", metavar="NAME"),
    default(
        "--provider-version", "auto", "Version of the provider; auto takes the installed one.",
        metavar="VERSION",
    ),
    default("--triton", "auto", "Version of Triton; auto takes the installed one.", metavar="VERSION"),
    repo,
    revision,
)  # fmt: skip
"""What is wanted of which registry; `gdn_aot.registry.request` reads the first four."""
allow_unsigned = click.option(
    "--allow-unsigned", is_flag=True,
    help="Accept unsigned artifacts of this registry, now and in later runs.",
)  # fmt: skip
token = click.option(
    "--token", metavar="TOKEN",
    help="Token for the Hub. Other users see it in the list of processes: prefer HF_TOKEN or hf auth login.",
)  # fmt: skip
registry = together(token, quiet, as_json)
"""What every command that reads a registry has."""

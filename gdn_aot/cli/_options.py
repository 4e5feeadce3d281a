"""The options that more than one command has, written once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "arch",
    "as_json",
    "cache_dir",
    "cluster",
    "dtype",
    "exclude_workload",
    "fetch_arch",
    "fetch_provider",
    "jobs",
    "matrix",
    "max_batch",
    "max_tokens",
    "mode",
    "model",
    "only",
    "prepare",
    "provider",
    "provider_version",
    "quiet",
    "repo",
    "revision",
    "shape",
    "timeout",
    "token",
    "tp",
    "triton",
    "tuning",
    "workload",
]

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
arch = click.option("--arch", "arch", multiple=True, metavar="SM", help="Target, as sm_90; repeatable, or all.")
model = click.option(
    "--model", "model", multiple=True, metavar="NAME", help="Model of the catalogue; repeatable, or all."
)
tp = click.option("--tp", "tp", default="1", show_default=True, metavar="N,...", help="Tensor-parallel sizes.")
shape = click.option(
    "--shape",
    "shape",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="Another shape, as heads=16,v_heads=32,k_dim=128,v_dim=128,dtype=bf16; repeatable.",
)
dtype = click.option(
    "--dtype",
    "dtype",
    multiple=True,
    metavar="TYPE",
    help="bf16 or fp16 instead of the model's own; repeatable.",
)
provider = click.option(
    "--provider", "provider", default="fla", show_default=True, metavar="NAME", help="Whose kernels to build."
)
max_tokens = click.option(
    "--max-tokens",
    "max_tokens",
    type=click.IntRange(min=1),
    default=32768,
    show_default=True,
    help="Most tokens in one call.",
)
max_batch = click.option(
    "--max-batch",
    "max_batch",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Most sequences in one dense prefill batch.",
)
mode = click.option(
    "--mode",
    "mode",
    type=click.Choice(["inference", "train"]),
    default="inference",
    show_default=True,
    help="train adds the backward kernels.",
)
jobs = click.option(
    "--jobs",
    "-j",
    "jobs",
    type=click.IntRange(min=1),
    default=lambda: os.cpu_count() or 1,
    show_default="number of CPUs",
    help="Compile workers.",
)
workload = click.option(
    "--workload", "workload", multiple=True, metavar="GLOB", help="Only these call patterns; repeatable."
)
exclude_workload = click.option(
    "--exclude-workload", "exclude_workload", multiple=True, metavar="GLOB", help="Not these call patterns; repeatable."
)
timeout = click.option(
    "--timeout",
    "timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds that one kernel may take to compile.",
)
cache_dir = click.option(
    "--cache-dir", "cache_dir", type=click.Path(path_type=Path), default=None, help="Build cache to use."
)
_executor = click.option(
    "--executor", "executor", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Where to work: on this machine, or on the nodes of a Ray cluster.",
)  # fmt: skip
_address = click.option(
    "--address", "address", default=None, metavar="HOST:PORT",
    help="Of the cluster of --executor ray, or auto.  [default: $RAY_ADDRESS, or auto]",
)  # fmt: skip


def cluster(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say where to work; `gdn_aot.cli._executor` reads them."""
    return _executor(_address(command))


prepare = click.option(
    "--prepare", "prepare", is_flag=True, help="Only trace and compile, into the build cache; needs no GPU."
)
tuning = click.option(
    "--tuning",
    "tuning",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory of tuning records.  [default: artifacts/tuning if it exists]",
)
matrix = click.option(
    "--matrix", "matrix", type=click.Path(path_type=Path), default=Path("artifacts/matrix.toml"), show_default=True,
    help="File that says what is published.",
)  # fmt: skip
only = click.option(
    "--only", "only", default=None, metavar="IDENTIFIER",
    help="Build this row of the matrix, which says what the other options would; see gdn-aot matrix.",
)  # fmt: skip
fetch_arch = click.option(
    "--arch", "arch", multiple=True, metavar="SM",
    help="Target, as sm_90, native or all; repeatable.  [default: native, the GPUs of this machine]",
)  # fmt: skip
fetch_provider = click.option(
    "--provider", "provider", default="auto", show_default=True, metavar="NAME",
    help="Whose kernels; auto takes every provider that is installed.",
)  # fmt: skip
provider_version = click.option(
    "--provider-version", "provider_version", default="auto", show_default=True, metavar="VERSION",
    help="Version of the provider; auto takes the one that is installed.",
)  # fmt: skip
triton = click.option(
    "--triton", "triton", default="auto", show_default=True, metavar="VERSION",
    help="Version of Triton; auto takes the one that is installed.",
)  # fmt: skip
repo = click.option(
    "--repo", "repo", default=None, metavar="REPO",
    help="Registry: hf://org/name or a directory.  [default: $GDN_AOT_REPO, or hf://gdn-aot/kernels]",
)  # fmt: skip
revision = click.option(
    "--revision", "revision", default=None, metavar="REV",
    help="Branch, tag or commit of the registry.  [default: v1]",
)  # fmt: skip
token = click.option(
    "--token", "token", default=None, metavar="TOKEN", help="Token for the Hub, instead of HF_TOKEN or hf auth login."
)
quiet = click.option("--quiet", "-q", "quiet", is_flag=True, help="Print paths or names only, and no notes.")

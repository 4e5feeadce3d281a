"""``gdn-aot inspect``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gdn_aot._text import plural, printable
from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_piece, out, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.artifact.cost import Cost, Reserve
    from gdn_aot.artifact.manifest import Manifest, PackedKernel
    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.deployment import Built


@click.command("inspect", epilog=_options.other_checks("inspect"))
@click.argument("file", type=click.Path(path_type=Path))
@_options.card
@_options.as_json
def command(file: Path, *, card: str, as_json: bool) -> None:
    """Show the content of an artifact, and the GPU memory that it takes. Verifies the file first."""
    from gdn_aot.artifact.cost import cost_of, reserve_of
    from gdn_aot.artifact.verify import open_artifact

    artifact = open_artifact(file)
    cost = cost_of(artifact.manifest)
    reserve = reserve_of(artifact.manifest, cost.local, card)
    if as_json:
        for piece in _json(artifact, cost, reserve):
            emit_piece(piece.decode())
        return
    for line in _describe(artifact, cost, reserve):
        out(printable(line))


def _json(artifact: Artifact, cost: Cost, reserve: Reserve | None) -> Iterator[bytes]:
    """Yield the document piece by piece: binaries share their parts in memory, and not in it."""
    from msgspec import to_builtins
    from msgspec.structs import replace

    from gdn_aot.reporting import facts

    document = to_builtins(replace(artifact.manifest, kernels=()))
    lacking, calls = facts.lacking(artifact.manifest)
    more: dict[str, object] = {
        "sizes": facts.sizes(artifact),
        "on_request": lacking,
        "uncovered": list(map(list, calls)),
    }
    more |= {"cost": {**asdict(cost), "reserve": asdict(reserve) if reserve else None}}
    more |= {
        "expected_error": {name: asdict(row) if row else None for name, row in facts.expected([artifact.manifest])}
    }
    begin, _, end = _text({**document, **more}, 0).partition(b'"kernels": []')
    yield begin + b'"kernels": ['
    for number, kernel in enumerate(artifact.manifest.kernels):
        document = to_builtins(replace(kernel, binaries=()))
        for choice in document["choices"]:
            choice["config"]["kwargs"] = dict(choice["config"]["kwargs"])
        before, _, after = _text(document, 4).partition(b'"binaries": []')
        yield b"," * bool(number) + before + b'"binaries": ['
        for place, binary in enumerate(kernel.binaries):
            yield b"," * bool(place) + _text(binary, 8)
        yield (b"\n      ]" if kernel.binaries else b"]") + after
    yield (b"\n  ]" if artifact.manifest.kernels else b"]") + end + b"\n"


def _text(value: object, indent: int) -> bytes:
    """Return a value as JSON; with an indent, on lines of its own."""
    from msgspec.json import encode
    from msgspec.json import format as layout

    text, line = layout(encode(value), indent=2), b"\n" + b" " * indent
    return line + text.replace(b"\n", line) if indent else text


def _describe(artifact: Artifact, cost: Cost, reserve: Reserve | None) -> Iterator[str]:
    from gdn_aot.reporting import facts

    manifest = artifact.manifest
    provider, target, build = manifest.provider, manifest.target, manifest.build
    commit = f", commit {build.commit}{' with changes' * build.dirty}" if build.commit else ""
    sizes = facts.sizes(artifact)
    yield f"identifier  {manifest.identifier}"
    yield f"target      {target.name}, {target.max_shared} bytes of shared memory per block"
    yield f"provider    {provider.name} ({provider.distribution} {provider.version}), licence {provider.license}"
    yield f"triton      {manifest.triton.version}, ptxas {manifest.triton.ptxas}"
    yield f"covers      {manifest.mode}, {manifest.max_tokens} tokens, dense batches of {manifest.max_batch}"
    yield f"workloads   {', '.join(manifest.workloads)}"
    if manifest.deployment:
        yield from _deployment(manifest.deployment)
    yield f"numerics    {manifest.numerics.status} {manifest.numerics.detail}".rstrip()
    yield f"built by    {build.tool}{commit}"
    yield f"file        {sizes['file']} bytes, sha256 {artifact.sha256}"
    yield (
        f"content     {sizes['uncompressed']} bytes: manifest {sizes['manifest']}, "
        f"{len(manifest.blobs)} blobs {sizes['blobs']}"
    )
    if manifest.placed:
        yield f"inspected   {plural(len(manifest.placed), 'model class', 'model classes')} of vLLM"
    if manifest.compile_cache:
        yield f"host code   {facts.host_code(manifest)}"
    yield from _cost(cost, reserve)
    yield ""
    models = [
        (row.name, row.family, row.tp, row.heads, row.v_heads, row.k_dim, row.v_dim, row.conv_width, row.dtype)
        for row in manifest.models
    ]
    yield from table(models, ("model", "family", "tp", "H", "HV", "K", "V", "conv", "dtype")).splitlines()
    yield ""
    kernels = [_kernel_row(kernel, manifest) for kernel in manifest.kernels]
    headers = ("kernel", "choices", "provenance", "binaries", "cubin bytes")
    yield from table(kernels, headers).splitlines()
    origins = list(facts.origins(manifest))
    if origins:
        yield ""
        yield "choices from"
        yield from (f"  {line}" for line in origins)
    if expected := facts.expected([manifest]):
        yield ""
        yield from (f"expected error  {name} {row or 'not known'}" for name, row in expected)
    if manifest.not_covered:
        yield ""
        yield "not covered"
        for item in manifest.not_covered:
            keys = f" ({len(item.keys)} autotune keys)" if item.keys else ""
            yield f"  {item.kernel}{keys}: {item.reason}"
    lacking, calls = facts.lacking(manifest)
    if lacking:
        yield ""
        yield f"built if --workload names them: {', '.join(lacking)}"
    if calls:
        yield ""
        yield "no workload covers (gdn-aot capture records what is launched, build --capture builds it)"
        yield from (f"  {call}" + f"; {instead}" * bool(instead) for call, instead in calls)


def _deployment(built: Built) -> Iterator[str]:
    yield f"deployment  {built.model} on {built.card}, with " + ", ".join(
        f"{name}={value}" for name, value in built.engine
    )
    if built.environment:
        yield "            " + " ".join(f"{name}={value}" for name, value in built.environment)
    yield "engine      " + ", ".join(f"{name}={value}" for name, value in built.resolved)


def _cost(cost: Cost, reserve: Reserve | None) -> Iterator[str]:
    from gdn_aot.artifact.cost import warning

    yield f"code        {cost.code} bytes on the card, if all of it is loaded"
    if not cost.spills:
        yield "local       no kernel uses local memory"
        return
    yield f"local       {reserve or 'a card that is not known'}: {cost.spills[0]}"
    if reserve and (text := warning(reserve)):
        yield f"warning     {text}"


def _kernel_row(kernel: PackedKernel, manifest: Manifest) -> tuple[str, int, str, int, int]:
    from gdn_aot.reporting.facts import cubin_bytes

    counts = Counter(choice.provenance for choice in kernel.choices)
    return (
        kernel.name,
        len(kernel.choices),
        ", ".join(f"{count} {name}" for name, count in sorted(counts.items())),
        len(kernel.binaries),
        cubin_bytes(kernel, manifest),
    )

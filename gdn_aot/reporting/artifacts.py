"""What the page says of artifacts: each by itself, and of a set what is where."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot.artifact.cost import MIB, cost_of, reserve_of, warning
from gdn_aot.catalogue.targets import known_target
from gdn_aot.choosing.transfer import Transfer
from gdn_aot.reporting import choices, facts, records
from gdn_aot.reporting.html import Html, e, table, unique
from gdn_aot.reporting.html import facts as facts_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest, PackedKernel
    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.reporting.html import Content
    from gdn_aot.reporting.pool import Pool


_MOST_NAMED = 3
"""Artifacts that a sentence names."""
_MOST_FITTING = 3
"""Targets whose columns fit on a narrow screen."""


class Places:
    """Where records lie, and the card that local memory is counted on."""

    def __init__(self, tuning: Path | None, numerics: Path | None, card: str = "") -> None:
        self.tuning, self.numerics, self.card = tuning, numerics, card
        self._transfers: dict[tuple[str, str, str, str], Transfer] = {}

    def transfer(self, manifest: Manifest) -> Transfer | None:
        """Return what finds the times of an artifact's choices; None where there can be none."""
        target, provider = known_target(manifest.target.name), manifest.provider
        if self.tuning is None or target is None or not facts.has_records(manifest):
            return None
        place = (target.name, provider.distribution, provider.version, manifest.triton.version)
        if place not in self._transfers:
            self._transfers[place] = Transfer(self.tuning, target, *place[1:])
        return self._transfers[place]


def without_times(manifests: Iterable[Manifest], places: Places) -> str:
    """Return a sentence about artifacts for whose choices no tuning record was found; empty if there are none."""
    names = [manifest.identifier for manifest in manifests if _all([manifest]) and not _is_timed(manifest, places)]
    if not names:
        return ""
    shown = ", ".join(names[:_MOST_NAMED]) + (f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else "")
    what = f"No tuning record was found below {places.tuning}" if places.tuning else "No directory of records was found"
    return f"{what}, so times and regret of {shown} are missing: pass --tuning DIR."


def _is_timed(manifest: Manifest, places: Places) -> bool:
    transfer = places.transfer(manifest)
    return transfer is not None and any(
        transfer.find(kernel.name, choice.key, kernel.digest)
        for kernel in manifest.kernels
        for choice in kernel.choices
    )


def overview(artifacts: Sequence[Artifact], titles: Sequence[str]) -> Html:
    """Return a table of the artifacts of a set."""
    headers = ("Artifact", "Target", "Provider", "Triton", "Mode", "Models", "Kernels", "Choices", "MB", "Numerics")
    rows = []
    for number, artifact in enumerate(artifacts):
        manifest = artifact.manifest
        counts = Counter(_all([manifest]))
        rows.append((
            e("a", titles[number], href=f"#artifact-{number}"),
            manifest.target.name,
            f"{manifest.provider.distribution} {manifest.provider.version}",
            manifest.triton.version,
            manifest.mode,
            len({model.name for model in manifest.models}),
            len(manifest.kernels),
            choices.chips(counts) if counts else "none",
            f"{artifact.size / 1e6:.2f}",
            manifest.numerics.status,
        ))  # fmt: skip
    return table(f"{plural(len(artifacts), 'artifact')}", headers, rows, numeric=(5, 6, 8))


def provenance(manifests: Sequence[Manifest]) -> Html:
    """Return where the choices of every kernel come from, by target, a map for each environment."""
    ordered = sorted(enumerate(manifests), key=lambda one: (_environment(one[1]), one[1].target.capability, one[0]))
    maps = [_map(name, list(ones)) for name, ones in groupby(ordered, key=lambda one: _environment(one[1]))]
    rows = [
        (f"{name}: {of or choices.PROVENANCES[name][1]}", choices.chips({name: count}),
         *((choices.percent(row.median), choices.percent(row.p90), row.source) if row else ("not known", "", "")))
        for name, of, count, row in facts.expected_rows(manifests)
    ]  # fmt: skip
    headers = ("Provenance", "Choices", "Median", "90th percentile", "Compared")
    legend = table("Expected error: time of a choice / time of the best candidate - 1", headers, rows, numeric=(2, 3),
                   fits=True)  # fmt: skip
    return Html("".join((legend, *maps)) if rows else e("p", "No kernel has a choice."))


def _all(manifests: Iterable[Manifest]) -> list[str]:
    return [choice.provenance for one in manifests for kernel in one.kernels for choice in kernel.choices]


def _environment(manifest: Manifest) -> str:
    return f"{manifest.provider.distribution} {manifest.provider.version}, Triton {manifest.triton.version}"


def _map(name: str, numbered: Sequence[tuple[int, Manifest]]) -> Html:
    manifests = [manifest for _, manifest in numbered]
    targets = unique([manifest.target.name for manifest in manifests])
    links = [e("a", text, href=f"#artifact-{number}") for text, (number, _) in zip(targets, numbered, strict=True)]
    kernels: dict[str, list[PackedKernel | None]] = {}
    for place, manifest in enumerate(manifests):
        for kernel in manifest.kernels:
            kernels.setdefault(kernel.name, [None] * len(manifests))[place] = kernel
    ids = [choices.ids([kernel.name for kernel in one.kernels], str(number)) for number, one in numbered]
    rows = [
        (e("span", kernel.partition(":")[2], title=kernel), *map(_cell, found, ids))
        for kernel, found in sorted(kernels.items())
    ]
    fits = len(links) <= _MOST_FITTING
    return table(f"Choices by kernel and target: {name}", ("Kernel", *links), rows, fits=fits)


def _cell(kernel: PackedKernel | None, ids: dict[str, str]) -> Content:
    if kernel is None:
        return "-"
    if not kernel.choices:
        return e("span", plural(len(kernel.binaries), "binary", "binaries"), class_="dim")
    chips = choices.chips(Counter(choice.provenance for choice in kernel.choices))
    return e("a", chips, href=f"#{ids[kernel.name]}", class_="plain")


def section(artifact: Artifact, title: str, number: int, pool: Pool, places: Places, *, alone: bool) -> Html:
    """Return what the page says of one artifact; opened if it is ``alone``."""
    manifest, name = artifact.manifest, f"artifact-{number}"
    chosen = choices.of_artifact(manifest, places.transfer(manifest), pool)
    ids = choices.ids([kernel.name for kernel in manifest.kernels], str(number))
    parts = (
        ("What it serves", _serves(artifact)),
        ("Models and shapes", _models(manifest)),
        ("Kernels and choices", _chosen(manifest, choices.details(chosen, pool, 4, ids))),
        ("Resources and memory", _resources(manifest, pool, places.card)),
        ("Numerics", _numerics(manifest, places.numerics, pool)),
        ("Coverage", _coverage(manifest)),
    )
    inner = [
        e("section", e("h3", what), pool.once(content, f"{name}-{place}", title), id=f"{name}-{place}")
        for place, (what, content) in enumerate(parts)
    ]
    head = e("summary", e("h2", title, id=f"{name}-title"))
    return e("section", e("details", head, *inner, open=alone, class_="whole"),
             id=name, aria_labelledby=f"{name}-title")  # fmt: skip


def _serves(artifact: Artifact) -> Html:
    manifest, sizes = artifact.manifest, facts.sizes(artifact)
    provider, target, build = manifest.provider, manifest.target, manifest.build
    commit = f", commit {build.commit}{' with changes' * build.dirty}" if build.commit else ""
    deployment, blobs = manifest.deployment, plural(len(manifest.blobs), "blob")
    return facts_list((
        ("Target", f"{target.name}, {target.max_shared} bytes of shared memory per block"),
        ("Provider", f"{provider.name} ({provider.distribution} {provider.version}), licence {provider.license}"),
        ("Triton", f"{manifest.triton.version}, ptxas {manifest.triton.ptxas}"),
        ("Mode", manifest.mode),
        ("Calls", f"up to {manifest.max_tokens} tokens, dense batches of {manifest.max_batch}"),
        ("Workloads", ", ".join(manifest.workloads)),
        ("Deployment", f"{deployment.model} on {deployment.card}" if deployment else ""),
        ("Engine", ", ".join(f"{name}={value}" for name, value in deployment.engine) if deployment else ""),
        ("Placed", plural(len(manifest.placed), "file") + " of an engine's cache" if manifest.placed else ""),
        ("Host code", facts.host_code(manifest)),
        ("File", f"{sizes['file']:,} bytes"),
        ("Content", f"{sizes['uncompressed']:,} bytes: manifest {sizes['manifest']:,}, {blobs} {sizes['blobs']:,}"),
        ("SHA-256", e("code", artifact.sha256)),
        ("Built by", f"{build.tool}{commit}"),
    ))  # fmt: skip


def _models(manifest: Manifest) -> Html:
    models = [
        (row.name, row.family, row.tp, row.heads, row.v_heads, row.k_dim, row.v_dim, row.conv_width, row.dtype)
        for row in manifest.models
    ]
    headers = ("Model", "Family", "TP", "Key heads", "Value heads", "K", "V", "Convolution", "Type")
    return table("Models and shapes, heads after division by TP", headers, models, numeric=range(2, 8))


def _chosen(manifest: Manifest, listed: Html) -> Html:
    plain = [
        (kernel.qualname, kernel.module, len(kernel.binaries)) for kernel in manifest.kernels if not kernel.choices
    ]
    origins = [e("li", line) for line in facts.origins(manifest)]
    said = (e("p", "Choices are from:"), e("ul", origins)) if origins else ()
    rest = table("Kernels that are not autotuned", ("Kernel", "Module", "Binaries"), plain, numeric=(2,))
    return Html("".join((*said, listed, rest if plain else "")))


def _resources(manifest: Manifest, pool: Pool, card: str) -> Html:
    cost = cost_of(manifest)
    reserve = reserve_of(manifest, cost.local, card)
    spills = {spill.kernel: spill for spill in cost.spills}
    rows: list[tuple[Content, ...]] = []
    points: list[list[int]] = []
    for kernel in manifest.kernels:
        taken = Counter(binary.resources for binary in kernel.binaries)
        if not taken:
            continue
        registers, spill = [one.registers for one in taken], spills.get(kernel.name)
        kept = reserve_of(manifest, spill.local, card) if spill else None
        rows.append((
            kernel.qualname,
            len(kernel.binaries),
            f"{facts.cubin_bytes(kernel, manifest):,}",
            f"{min(registers)} to {max(registers)}",
            f"{max(one.shared for one in taken):,}",
            spill.local if spill else 0,
            f"{kept.bytes / MIB:.0f}" if kept else "",
            spill.config if spill else "",
        ))  # fmt: skip
        points += [
            [pool.text(kernel.qualname), one.registers, one.shared, one.local, count]
            for one, count in sorted(taken.items(), key=lambda item: (item[0].registers, item[0].shared, item[0].local))
        ]
    where = f"{reserve}: {cost.spills[0]}" if reserve and cost.spills else "no kernel uses local memory"
    listed = facts_list((
        ("Code", f"{cost.code:,} bytes on the card, if all of it is loaded"),
        ("Local memory", where),
        ("Warning", warning(reserve) if reserve else ""),
    ))  # fmt: skip
    headers = ("Kernel", "Binaries", "Cubin bytes", "Registers per thread", "Shared bytes per block",
               "Local bytes per thread", "MiB on the card", "Configuration with the most local memory")  # fmt: skip
    shown = table("Registers and memory of the binaries of each kernel", headers, rows, numeric=range(1, 7))
    plot = records.drawn("Plot of registers and shared memory", pool.group("resources", rows=points), 4)
    return Html(listed + shown + (plot if points else ""))


def _numerics(manifest: Manifest, root: Path | None, pool: Pool) -> Html:
    said = facts_list((("Status", manifest.numerics.status), ("Detail", manifest.numerics.detail)))
    record = facts.numerics_of(manifest, root)
    if record is None:
        what = f"none was found below {root}" if root else "no directory of records was found"
        return Html(said + e("p", f"Record of checks of this target and version: {what}. Pass --numerics DIR."))
    return Html(said + records.checks(record, pool, 4))


def _coverage(manifest: Manifest) -> Html:
    gaps = [(gap.kernel, len(gap.keys) or "all", gap.reason) for gap in manifest.not_covered]
    requested, calls = facts.lacking(manifest)
    gone = facts.absent(manifest)
    lost = e("p", e("strong", "Default workloads that this artifact lacks: "), ", ".join(gone),
             ". Triton compiles the kernels of their calls.")  # fmt: skip
    named = e("p", f"Further workloads, which a build has only if --workload names them: {', '.join(requested)}.")
    whole = e("p", f"Every kernel of its workloads is covered: {', '.join(manifest.workloads)}.")
    missing = table("Not covered: Triton compiles these itself", ("Kernel", "Keys", "Reason"), gaps, numeric=(1,))
    rows = [(call, instead or "a recording by gdn-aot capture") for call, instead in calls]
    others = table("Calls outside every workload", ("Call", "Covered alternative"), rows)
    return Html("".join((
        lost if gone else "", missing if gaps else whole, named if requested else "", others if calls else "",
    )))  # fmt: skip

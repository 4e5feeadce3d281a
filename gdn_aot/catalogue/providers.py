"""The providers: installed packages whose GDN kernels are built.

To add one: write a package like `gdn_aot.providers.fla`, and add a row here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gdn_aot._text import suggest
from gdn_aot.catalogue.models import GDN, KDA, LONGEST_CONTEXT
from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class ProviderVersion:
    """One release of a provider's distribution and what is known about it here."""

    version: str
    status: str
    """``reference`` (every test runs on it), ``tested`` (traced and compiled in the tests) or ``known``."""
    note: str = ""
    triton: str = ""
    """What it requires of Triton, of which the first two numbers count: ``3.8.0``. Empty if any supported one does."""
    python: str = "3.10"
    """The first version of Python that it is installed on."""
    absent: tuple[str, ...] = ()
    """Targets that its own compiled code was not made for, so that it does not run there whatever Triton makes."""
    source: str = ""
    """Where the last three are from."""
    same_as: str = ""
    """A later release whose artifacts serve it, as kernels and launch keys are the same: ``benchmarks/releases.py``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderCopy:
    """A copy of a provider's package in a folder, from which is built in place of what is installed."""

    folder: str
    module: str
    """The name that it is imported under."""
    version: str
    licenses: tuple[tuple[str, bytes], ...]
    """(file name, text)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderInfo:
    """A provider, described without importing it."""

    name: str
    distribution: str
    license: str
    """SPDX identifier of the licence that its kernels are under."""
    package: str
    """Top-level import package."""
    marker: str = ""
    """A folder or module in it by which a copy of it is known; empty where copies are not built for."""
    workloads: tuple[str, ...]
    """Those of its workloads that are built unless others are asked for; older versions may lack some."""
    versions: tuple[ProviderVersion, ...]
    install: str
    """The command that installs it."""
    training: tuple[str, ...] = ()
    """More workloads, for the mode ``train``."""
    on_request: tuple[str, ...] = ()
    """Workloads of callers that no model of the catalogue has: built where ``--workload`` names them."""
    training_on_request: tuple[str, ...] = ()
    """More of these, for the mode ``train``."""
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Workload -> the families of models that make such calls; of a workload that is not here, GDN alone."""
    paged: bool = False
    """Its kernels see how an engine lays its cache out; see `gdn_aot.catalogue.models.ModelShape.paged_key`."""
    catalogue_only: str = ""
    """Why nothing but models of the catalogue can be built for it, no ``--shape``; empty if shapes can."""
    sizes: Mapping[str, str] = field(default_factory=dict)
    """Constexpr of its kernels -> the key of a ``--shape`` that it is, in kernels that have all four."""
    batch: str = ""
    """Constexpr of its kernels that is the dense batch, or empty."""
    bucket: str = ""
    """Constexpr of its kernels that grows with the tokens of a call, or empty."""
    copy: ProviderCopy | None = None
    """What stands for the installed package, if something else does."""
    serve: str = ""
    """The command that serves a model with it, to be recorded where the catalogue does not have the model."""

    inductor: str = ""
    """What Inductor, the default backend of ``torch.compile``, compiles of it itself, unserved."""

    def of_copy(self, copy: ProviderCopy, distribution: str) -> ProviderInfo:
        """Return this provider as a copy of it has it."""
        return replace(self, copy=copy, distribution=distribution)

    @property
    def inference(self) -> tuple[str, ...]:
        """Every workload that serving can cause."""
        return (*self.workloads, *self.on_request)

    def families_of(self, workloads: Iterable[str]) -> set[str]:
        """Return the families of models that make calls of at least one of these workloads."""
        return {family for name in workloads for family in self.families.get(name, (GDN,))}

    def for_families(self, workloads: tuple[str, ...], families: Collection[str]) -> tuple[str, ...]:
        """Return those of the workloads that models of these families make calls of; all, if there are no families.

        Raises:
            NothingSelectedError: None is left.
        """
        left = self._for(workloads, families)
        if workloads and not left:
            message = f"{', '.join(workloads)}: of no model of the family {' or '.join(sorted(families))}"
            own = self._for(self.inference, families)
            raise NothingSelectedError(message, hint=f"workloads of such models: {', '.join(own) or 'none'}")
        return left

    def _for(self, workloads: tuple[str, ...], families: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in workloads if not families or not self.families_of([name]).isdisjoint(families))

    @property
    def capture_hint(self) -> str:
        """How to build for a model that the catalogue does not have, if no ``--shape`` is taken."""
        return f"gdn-aot capture -o FILE -- {self.serve}, then gdn-aot build --capture FILE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds on the traffic that an artifact covers."""

    max_tokens: int = LONGEST_CONTEXT
    """Most tokens in one call, all sequences of the batch together."""
    max_batch: int = 64
    """Most sequences in one dense (padded) prefill batch."""
    mode: str = "inference"
    """``inference`` or ``train``; ``train`` adds the backward kernels."""


SMALL = Limits(max_tokens=256, max_batch=1)
"""Bounds on the calls that warm a process up."""


_TRACED = "traced and compiled for one target"


def _vllm(
    version: str,
    torch: str,
    triton: str,
    note: str = "",
    *,
    status: str = "tested",
    checked: str = "traced, compiled and covered for one target",
    same_as: str = "",
    pin: str = "",
    **more: Any,
) -> ProviderVersion:
    """Return a release of vLLM: its wheel asks for a release of torch, and that for one of Triton."""
    source = f"its wheel asks for torch {torch}, which asks for triton {pin or triton}"
    if "absent" in more:
        source += "; cuobjdump: code from sm_75 on"
    if same_as:
        status, checked = "known", f"traced; its kernels are those of {same_as}"
    made = f"{checked}; Triton {triton}{note}"
    return ProviderVersion(version, status, made, triton, source=source, same_as=same_as, **more)


def _sglang(
    version: str, torch: str, triton: str, *, status: str = "known", checked: str = "traced", same_as: str = ""
) -> ProviderVersion:
    """Return a release of SGLang: its wheel asks for a release of torch, and that for one of Triton."""
    source = f"its wheel asks for torch {torch}, which asks for triton {triton}"
    if same_as:
        checked += f"; its kernels are those of {same_as}"
    return ProviderVersion(version, status, f"{checked}; Triton {triton}", triton, source=source, same_as=same_as)


PROVIDERS: Mapping[str, ProviderInfo] = {
    "fla": ProviderInfo(
        name="fla",
        distribution="fla-core",
        license="MIT",
        package="fla",
        sizes={"H": "heads", "HV": "v_heads", "K": "k_dim", "V": "v_dim"},
        batch="B",
        bucket="NB",
        marker="ops/gated_delta_rule",
        install="pip install 'gdn-aot[fla]'",
        workloads=(
            "transformers-prefill",
            "transformers-decode",
            "transformers-conv",
            "gated-norm",
            "transformers-kda-prefill",
            "transformers-kda-decode",
        ),
        on_request=(
            "layer-prefill",
            "layer-recurrent",
            "short-conv",
            "small-chunks",
            "layer-kda-prefill",
            "layer-kda-recurrent",
            "kda-gate",
        ),
        training=("transformers-train", "transformers-conv-train", "gated-norm-train", "transformers-kda-train"),
        training_on_request=("layer-train", "short-conv-train", "layer-kda-train", "kda-gate-train"),
        families={
            **dict.fromkeys(("gated-norm", "short-conv", "gated-norm-train", "short-conv-train"), (GDN, KDA)),
            **dict.fromkeys(("transformers-kda-prefill", "transformers-kda-decode", "transformers-kda-train"), (KDA,)),
            **dict.fromkeys(("layer-kda-prefill", "layer-kda-recurrent", "layer-kda-train"), (KDA,)),
            **dict.fromkeys(("kda-gate", "kda-gate-train"), (KDA,)),
        },
        inductor="the recurrent operator (decode)",
        versions=(
            ProviderVersion("0.6.0", "reference", "every test"),
            ProviderVersion("0.5.2", "tested", _TRACED),
            ProviderVersion("0.5.1", "tested", _TRACED),
            ProviderVersion("0.5.0", "tested", f"{_TRACED}; no beta sigmoid in the operator"),
            ProviderVersion("0.4.2", "tested", f"{_TRACED}; key heads repeated to value heads, no gate in kernel"),
        ),
    ),
    "vllm": ProviderInfo(
        name="vllm",
        distribution="vllm",
        license="Apache-2.0",
        package="vllm",
        sizes={"Hg": "heads", "H": "v_heads", "K": "k_dim", "V": "v_dim"},
        install="pip install vllm; docs/how-to/vllm.md has the commands for a machine without a GPU",
        paged=True,
        catalogue_only=(
            "a shape does not say which layer of vLLM runs the model, nor the attention heads that size its cache pages"
        ),
        serve="vllm serve MODEL",
        workloads=("prefill", "decode", "mixed", "speculative", "gated-norm"),
        families=dict.fromkeys(("prefill", "decode", "mixed", "speculative", "gated-norm"), (GDN, KDA)),
        versions=(
            _vllm("0.24.0", "2.11.0", "3.6.0", status="reference", checked="every test", absent=("sm_70",)),
            _vllm(
                "0.33.0",
                "2.14.0",
                "3.8.0",
                "; drafts by its Triton kernels",
                pin="~=3.8.0",
                python="3.11",
                absent=("sm_70",),
            ),
            _vllm("0.32.0", "2.13.0", "3.7.1", python="3.11"),
            _vllm("0.31.0", "2.13.0", "3.7.1"),
            _vllm("0.30.0", "2.13.0", "3.7.1"),
            _vllm("0.29.0", "2.13.0", "3.7.1"),
            _vllm("0.28.0", "2.13.0", "3.7.1"),
            _vllm("0.27.1", "2.13.0", "3.7.1"),
            _vllm("0.27.0", "2.13.0", "3.7.1", same_as="0.27.1"),
            _vllm("0.26.0", "2.11.0", "3.6.0"),
            _vllm("0.25.1", "2.11.0", "3.6.0"),
            _vllm("0.25.0", "2.11.0", "3.6.0", same_as="0.25.1"),
            _vllm("0.23.0", "2.11.0", "3.6.0", same_as="0.24.0"),
            _vllm("0.22.1", "2.11.0", "3.6.0"),
            _vllm("0.22.0", "2.11.0", "3.6.0", same_as="0.22.1"),
            _vllm("0.21.0", "2.11.0", "3.6.0"),
            _vllm("0.20.2", "2.11.0", "3.6.0"),
            _vllm("0.20.1", "2.11.0", "3.6.0", same_as="0.20.2"),
            _vllm("0.20.0", "2.11.0", "3.6.0", same_as="0.20.2"),
            _vllm("0.19.1", "2.10.0", "3.6.0"),
            _vllm("0.19.0", "2.10.0", "3.6.0", same_as="0.19.1"),
            _vllm("0.18.1", "2.10.0", "3.6.0"),
            _vllm("0.18.0", "2.10.0", "3.6.0", same_as="0.18.1"),
            _vllm("0.17.1", "2.10.0", "3.6.0", "; no OLMo-Hybrid"),
            _vllm("0.17.0", "2.10.0", "3.6.0", "; no OLMo-Hybrid", same_as="0.17.1"),
        ),
    ),
    "sglang": ProviderInfo(
        name="sglang",
        distribution="sglang",
        license="Apache-2.0",
        package="sglang",
        sizes={"Hg": "heads", "H": "v_heads", "K": "k_dim", "V": "v_dim"},
        install="pip install sglang, or what constraints/sglang-0.5.17.txt says for a machine without a GPU",
        paged=True,
        catalogue_only="a shape does not say which layer of SGLang runs the model",
        serve="python -m sglang.launch_server --model-path MODEL",
        workloads=("prefill", "decode", "mixed", "speculative", "gated-norm"),
        families=dict.fromkeys(("prefill", "decode", "mixed", "speculative"), (GDN, KDA)),
        versions=(
            _sglang("0.5.17", "2.11.0", "3.6.0", status="reference", checked="every test"),
            _sglang("0.5.23", "2.14.1", "3.8.0", status="reference", checked="every test"),
            _sglang("0.5.22", "2.14.1", "3.8.0"),
            _sglang("0.5.21", "2.13.0", "3.7.1"),
            _sglang("0.5.20", "2.13.0", "3.7.1"),
            _sglang("0.5.19", "2.13.0", "3.7.1"),
            _sglang("0.5.18", "2.13.0", "3.7.1"),
            _sglang("0.5.16", "2.11.0", "3.6.0"),
            _sglang("0.5.15.post1", "2.11.0", "3.6.0"),
            _sglang("0.5.15", "2.11.0", "3.6.0", same_as="0.5.15.post1"),
            _sglang("0.5.14", "2.11.0", "3.6.0"),
            _sglang("0.5.13.post1", "2.11.0", "3.6.0"),
            _sglang("0.5.13", "2.11.0", "3.6.0", same_as="0.5.13.post1"),
            _sglang("0.5.12.post1", "2.11.0", "3.6.0"),
            _sglang("0.5.12", "2.11.0", "3.6.0", same_as="0.5.12.post1"),
            _sglang("0.5.11", "2.11.0", "3.6.0"),
        ),
    ),
}


def get_provider(name: str) -> ProviderInfo:
    """Return the provider called ``name``.

    Raises:
        UsageError: There is none; the hint suggests a close name.
    """
    if name in PROVIDERS:
        return PROVIDERS[name]
    hint = suggest(name, PROVIDERS, "see gdn-aot providers")
    raise UsageError(f"unknown provider {name!r}; known: {', '.join(PROVIDERS)}", hint=hint)


def _releases(distribution: str) -> tuple[ProviderVersion, ...]:
    """Return the known releases of a provider's distribution; none of what is no provider's, as a copy."""
    return next((info.versions for info in PROVIDERS.values() if info.distribution == distribution), ())


def same_source(distribution: str, version: str) -> tuple[str, ...]:
    """Return the versions of a distribution, beside ``version``, whose kernels are known to be the same.

    A local version, as ``0.24.0+cu129``, is taken to have the source of the release that it is named after.
    """
    releases, release = _releases(distribution), version.partition("+")[0]
    named = [one for one in releases if one.version == release]
    found = [release] * bool(named) + [one.same_as for one in named]
    return tuple(one for one in found if one and one != version)


def nearest_releases(distribution: str, version: str) -> list[str]:
    """Return the other known releases of a distribution, the nearest first and of two as near the later one.

    A version that is not known is taken for the latest.
    """
    release = version.partition("+")[0]
    ordered = sorted((one.version for one in _releases(distribution)), key=_numbers)
    place = ordered.index(release) if release in ordered else len(ordered)
    others = [one for one in range(len(ordered)) if one != place]
    return [ordered[one] for one in sorted(others, key=lambda one: (abs(one - place), -one))]


def _numbers(version: str) -> list[int]:
    """Return the numbers of a release, as ``0.5.15.post1``, that sort it."""
    return [int(part.removeprefix("post")) for part in version.split(".")]


def arch_word(target: str) -> str:
    """Return what ``--arch`` takes for a target, as advice: a placeholder where it is not known."""
    return target if target.startswith("sm_") else "TARGET"


def build_command(provider: str, target: str) -> str:
    """Return the command that builds an artifact, as advice: what is not known, and the model, are placeholders."""
    name = provider if provider in PROVIDERS else "PROVIDER"
    return f"gdn-aot build --arch {arch_word(target)} --provider {name} --model NAME"

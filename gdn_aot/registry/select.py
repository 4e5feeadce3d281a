"""Which of a registry's artifacts are wanted, and why every other one is not. Pure: it looks at nothing itself.

The caller says what is wanted (`request` finds it out); identifiers are unique in an index, so nothing has
to be ranked.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from gdn_aot.catalogue.providers import PROVIDERS, build_command
from gdn_aot.errors import NoArtifactError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Candidate(Protocol):
    """What is known of an artifact before it is downloaded."""

    @property
    def identifier(self) -> str:
        """Return for example ``fla0.6.0-triton3.6.0-sm_120``."""

    @property
    def target(self) -> str:
        """Return for example ``sm_120``."""

    @property
    def provider(self) -> str:
        """Return for example ``fla``."""

    @property
    def version(self) -> str:
        """Return the version of the provider's distribution."""

    @property
    def triton(self) -> str:
        """Return the version of Triton."""


_C = TypeVar("_C", bound=Candidate)


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedVersion:
    """A version that artifacts must be for."""

    text: str | None
    """None where the distribution is not installed, so that nothing of it fits."""
    installed: bool
    """It was found here; else it was named."""
    same: tuple[str, ...] = ()
    """Other versions that have the same source, as far as is known: the loader looks at the source itself."""

    @property
    def state(self) -> str:
        """Return ``installed`` or ``wanted``."""
        return "installed" if self.installed else "wanted"


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedProvider:
    """A provider whose artifacts are wanted."""

    name: str
    version: WantedVersion | None
    """None stands for every version there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What artifacts must be for."""

    targets: tuple[str, ...] | None
    """None stands for every target there is."""
    native: bool = False
    """The targets are those of this machine's GPUs; else they were named."""
    providers: tuple[WantedProvider, ...]
    others: bool = False
    """Providers that are not listed are wanted too, in any version."""
    triton: WantedVersion | None
    """None stands for every version there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What was decided about one artifact, and why."""

    identifier: str
    accepted: bool
    reason: str
    """``fits``, or why not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected(Generic[_C]):
    """What `select` found."""

    chosen: tuple[_C, ...]
    """Sorted by identifier."""
    verdicts: tuple[Judged, ...]
    """One for each candidate: those accepted first, then the others, the one that is nearest to fitting first."""
    missing: tuple[str, ...]
    """What is wanted and not there, for example ``fla 0.6.0 with Triton 3.6.0 for sm_100``."""


Difference: TypeAlias = tuple[int, str]
"""How far an artifact is from fitting, and what it is for: another Triton is the nearest miss, another provider the
farthest."""


def select(candidates: Sequence[_C], request: Request) -> Selected[_C]:
    """Choose the artifacts that are wanted.

    For each provider and each target of the request there must be one; where it names no targets, one for each
    provider. One for a version of the same source is chosen only where there is none for the version itself.
    """
    exact = {_place(candidate) for candidate in candidates if not _differs(candidate, request, same=False)}
    judged = [
        (candidate, _differs(candidate, request, same=_place(candidate) not in exact)) for candidate in candidates
    ]
    judged.sort(key=lambda pair: (len(pair[1]), sum(weight for weight, _ in pair[1]), pair[0].identifier))
    chosen = tuple(candidate for candidate, found in judged if not found)
    verdicts = tuple(
        Judged(identifier=candidate.identifier, accepted=not found, reason=reason_of(found) or "fits")
        for candidate, found in judged
    )
    return Selected(chosen=chosen, verdicts=verdicts, missing=tuple(_missing(chosen, request)))


def differences(candidate: Candidate, request: Request) -> list[Difference]:
    """Return everything that keeps an artifact from fitting; nothing if it fits."""
    return _differs(candidate, request, same=True)


def _differs(candidate: Candidate, request: Request, *, same: bool) -> list[Difference]:
    return [*_provider(candidate, request, same=same), *_target(candidate, request), *_triton(candidate, request)]


def _place(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.provider, candidate.target, candidate.triton


def reason_of(found: Sequence[Difference]) -> str:
    """Return differences in words: ``is for Triton 3.8.0; 3.6.0 is installed``. Nothing if there are none."""
    return "is " + ", and ".join(text for _, text in found) if found else ""


def _provider(candidate: Candidate, request: Request, *, same: bool) -> Iterator[Difference]:
    wanted = next((provider for provider in request.providers if provider.name == candidate.provider), None)
    if wanted is None:
        if not request.others:
            names = " or ".join(provider.name for provider in request.providers if _is_wanted(provider))
            yield 8, f"for {candidate.provider}; {names or 'nothing'} is wanted"
    elif wanted.version is not None and not (same and candidate.version in wanted.version.same):
        yield from _version(candidate.provider, candidate.version, wanted.version, 2)


def _is_wanted(provider: WantedProvider) -> bool:
    """Say whether anything of a provider fits: it is installed, or was named."""
    return provider.version is None or provider.version.text is not None


def _triton(candidate: Candidate, request: Request) -> Iterator[Difference]:
    if request.triton is not None:
        yield from _version("Triton", candidate.triton, request.triton, 1)


def _version(name: str, found: str, wanted: WantedVersion, weight: int) -> Iterator[Difference]:
    if wanted.text is None:
        yield 8, f"for {name} {found}, which is not installed"
    elif found != wanted.text:
        yield weight, f"for {name} {found}; {wanted.text} is {wanted.state}"


def _target(candidate: Candidate, request: Request) -> Iterator[Difference]:
    if request.targets is not None and candidate.target not in request.targets:
        names = " and ".join(request.targets) if request.native else " or ".join(request.targets)
        text = f"this machine has {names}" if request.native else f"{names} is wanted"
        yield 4, f"for {candidate.target}; {text}"


def _missing(chosen: Sequence[Candidate], request: Request) -> Iterator[str]:
    providers = () if request.others else tuple(filter(_is_wanted, request.providers))
    there = {pair for one in chosen for pair in product((one.target, None), (one.provider, None))}
    for target, provider in product(request.targets or (None,), providers or (None,)):
        if (target, provider and provider.name) not in there:
            yield _describe(target, provider, request.triton)


def _describe(target: str | None, provider: WantedProvider | None, triton: WantedVersion | None) -> str:
    name = "any provider" if provider is None else provider.name
    version = provider.version.text if provider is not None and provider.version is not None else None
    compiler = f" with Triton {triton.text}" if triton is not None else ""
    return f"{name}{f' {version}' if version else ''}{compiler} for {target or 'any target'}"


def missing_error(
    where: str, verdicts: Sequence[Judged], missing: Sequence[str], hint: str | None = None
) -> NoArtifactError:
    """Return what to raise where a registry, which ``where`` names with its revision, lacks what is wanted.

    The hint, unless another is given, is to build it or to look elsewhere.
    """
    rejected = [Problem(verdict.identifier, verdict.reason) for verdict in verdicts if not verdict.accepted]
    message = f"{where} has no artifact of {', nor of '.join(missing)}"
    if hint is not None:
        return NoArtifactError(message, rejected, hint=hint)
    if not verdicts:
        return NoArtifactError(f"{message}: it is empty", hint="publish to it, or name another with --repo")
    first = {text.partition(" ")[0]: text for text in reversed(missing)}  # by provider
    build = " or ".join(_build(first[name]) for name in PROVIDERS if name in first) or _build(missing[0])
    return NoArtifactError(message, rejected, hint=f"{build} makes one; or name another --revision or --repo")


def _build(missing: str) -> str:
    """Return the command that makes what `select` said is missing, with a placeholder for what was left open."""
    return build_command(missing.partition(" ")[0], missing.rpartition(" for ")[2])

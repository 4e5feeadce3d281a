"""Select from the index of a registry, and say what it lacks. No artifact is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.catalogue.providers import PROVIDERS, build_command
from gdn_aot.errors import NoArtifactError, Problem, UsageError
from gdn_aot.registry.base import locate, open_registry, read_index
from gdn_aot.registry.layout import branch_name
from gdn_aot.registry.select import select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.registry.base import Location
    from gdn_aot.registry.layout import Entry
    from gdn_aot.registry.select import Request, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What `gdn_aot.registry.fetch.fetch` would install into an empty store."""

    revision: str
    """What was asked for."""
    commit: str
    """What that is now."""
    entries: tuple[Entry, ...]


def choose(repo: str, revision: str | None, request: Request, token: str | None) -> Chosen:
    """Select from a registry's index.

    Args:
        repo: The registry, as ``--repo`` takes it.
        revision: Branch, tag or commit; None for that in ``repo``, or else the branch of this version.
        request: What is wanted; all of it must be there.
        token: For the Hub.

    Raises:
        NoArtifactError: Something that is wanted is missing.
        RegistryError: The registry cannot be reached or refuses.
        UsageError: The registry or the revision cannot be what was meant.
        VerificationError: The index is damaged.
    """
    location = locate(repo)
    asked = wanted_revision(location, revision)
    snapshot, index = read_index(open_registry(location.name, token=token), asked)
    selection = select(index.entries, request)
    if selection.missing:
        raise missing_error(f"{location.name} at {asked}", selection.verdicts, selection.missing)
    return Chosen(revision=asked, commit=snapshot.commit, entries=selection.chosen)


def wanted_revision(location: Location, revision: str | None) -> str:
    """Return the revision to ask for.

    Raises:
        UsageError: ``--revision`` and that after ``@`` in ``--repo`` differ.
    """
    if revision and location.revision and revision != location.revision:
        raise UsageError(
            f"--revision {revision} is not that in --repo, {location.revision}", hint="leave one of them out"
        )
    return revision or location.revision or branch_name()


def missing_error(
    where: str, verdicts: Sequence[Verdict], missing: Sequence[str], hint: str | None = None
) -> NoArtifactError:
    """Return what to raise where a registry lacks what is wanted.

    Args:
        where: The registry and its revision.
        verdicts: On everything that it has.
        missing: What it lacks.
        hint: What to do, where that is not to build it or to look elsewhere.
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

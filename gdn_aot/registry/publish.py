"""Publishing: artifacts into a registry, without losing what others publish at the same time.

First one commit to the moving branch with the files, its index and the card; then the tag; then the card and an index
that points to that branch to ``main``. Whoever is cut off in between publishes again: each step is only done if it is
not done yet. A commit names the one that it was made from; if the branch has moved since, the index is read again and
merged.
"""

from __future__ import annotations

import dataclasses
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from gdn_aot.errors import (
    ConflictError,
    EntryMissingError,
    Problem,
    RepositoryMissingError,
    StaleParentError,
    UsageError,
    VerificationError,
)
from gdn_aot.registry import card
from gdn_aot.registry.base import Addition, Refs, Snapshot, index_at
from gdn_aot.registry.layout import (
    CARD,
    INDEX,
    MAIN,
    MAJOR,
    Entry,
    RegistryIndex,
    artifact_path,
    branch_name,
    check_entry,
    entry_bytes,
    entry_of,
    entry_path,
    make_index,
    to_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from gdn_aot.registry.base import Registry

Action = Literal["added", "replaced", "unchanged", "refused"]

_T = TypeVar("_T")
_TRIES = 12
"""Commits that may find that somebody else was faster."""
_TAG = re.compile(r"v(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One artifact, and what is to become of it."""

    path: Path
    entry: Entry
    action: Action
    reason: str
    """Why it is refused; else empty."""

    @property
    def addition(self) -> Addition:
        """The artifact as a file of the registry."""
        return Addition(path=artifact_path(self.entry.identifier), content=self.path, sha256=self.entry.sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What publishing does to a registry as it was found."""

    items: tuple[Item, ...]
    """Sorted by identifier."""
    head: str | None
    """Where the moving branch is; None if there is none."""
    tagged: str | None
    """What the tag names already."""
    index: RegistryIndex
    """That of the moving branch, afterwards."""
    card: bytes
    """The card, afterwards."""

    def with_action(self, *actions: Action) -> list[Item]:
        """Return the artifacts of which this becomes."""
        return [item for item in self.items if item.action in actions]

    def refusal(self) -> ConflictError | None:
        """Return why this cannot be published, naming all that is in the way."""
        refused = self.with_action("refused")
        if not refused:
            return None
        return ConflictError("; ".join(f"{item.entry.identifier}: {item.reason}" for item in refused))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What was done, or what would be."""

    registry: str
    tag: str | None
    created: bool
    """The repository was made for this."""
    visibility_kept: bool
    """It was to be made private and was there already: whoever could see it before can see what is published."""
    plan: Plan
    commit: str | None
    """The commit that has the artifacts, and that the tag names; None after a dry run."""
    main: str | None
    """The commit to ``main``; None if it needed none."""


def publish(
    registry: Registry,
    files: Sequence[Path],
    *,
    tag: str | None = None,
    replace: bool = False,
    create: bool = False,
    private: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Verify artifacts and publish them.

    Args:
        registry: Where to.
        files: Artifact files. The same one twice counts once.
        tag: A name for this release, ``v<major>.<minor>.<patch>``.
        replace: Let an artifact take the place of another with its identifier; only together with a new tag.
        create: Make the registry if it is not there.
        private: Then, let nobody else see it. One that is there already stays as visible as it is.
        dry_run: Only say what would be done.

    Raises:
        ConflictError: The registry, or the tag, has other content under the same name.
        RegistryError: It was not reached, or refused.
        UsageError: Two files have the same identifier, or the tag cannot be one.
        VerificationError: A file is not a sound artifact, or the registry's index is damaged. Nothing was changed.
    """
    if tag is not None:
        check_tag(tag)
    elif replace:
        raise UsageError("replacing needs a new tag", hint="add --tag, so that the content before stays reachable")
    wanted = _open(files)
    if dry_run:
        plan, there = _plan_of_a_dry_run(registry, wanted, tag, replace=replace, create=create)
        return Outcome(
            registry=registry.name,
            tag=tag,
            created=False,
            visibility_kept=create and private and there,
            plan=plan,
            commit=None,
            main=None,
        )
    made = registry.create(private=private) if create else False
    plan, commit = _retried(lambda: _commit_files(registry, wanted, tag, replace=replace))
    if tag is not None and plan.tagged is None:
        registry.tag(tag, commit)
    main = _retried(lambda: _commit_main(registry))
    return Outcome(
        registry=registry.name,
        tag=tag,
        created=made,
        visibility_kept=create and private and not made,
        plan=plan,
        commit=commit,
        main=main,
    )


def check_tag(tag: str) -> None:
    """Refuse a tag that is none of this layout.

    Raises:
        UsageError: It is not ``v<major>.<minor>.<patch>`` with the major version of the layout.
    """
    found = _TAG.fullmatch(tag)
    if found is None or int(found[1]) != MAJOR:
        what = f"{tag[:80]!a} cannot be a tag of this registry format"
        raise UsageError(what, hint=f"write it as v{MAJOR}.<minor>.<patch>, for example v{MAJOR}.0.0")


def make_plan(registry: Registry, wanted: Sequence[tuple[Path, Entry]], tag: str | None, *, replace: bool) -> Plan:
    """Look at a registry and say what publishing would do to it.

    Args:
        registry: It; only read.
        wanted: Files and their entries, no identifier twice.
        tag: See `publish`.
        replace: See `publish`.
    """
    return _plan(registry, registry.refs(), wanted, tag, replace=replace)


def _plan_of_a_dry_run(
    registry: Registry, wanted: Sequence[tuple[Path, Entry]], tag: str | None, *, replace: bool, create: bool
) -> tuple[Plan, bool]:
    """Return the plan, and whether the registry is there."""
    try:
        return make_plan(registry, wanted, tag, replace=replace), True
    except RepositoryMissingError:
        if not create:
            raise
        return _plan(registry, Refs(branches={}, tags={}), wanted, tag, replace=replace), False


def _open(files: Sequence[Path]) -> list[tuple[Path, Entry]]:
    from gdn_aot.artifact.names import is_capture
    from gdn_aot.artifact.verify import open_artifact

    found: dict[str, tuple[Path, Entry]] = {}
    for path in files:
        artifact = open_artifact(path)
        if any(map(is_capture, artifact.manifest.workloads)):
            raise UsageError(
                f"{path} was built from a capture, for one deployment; a registry has what fits every deployment",
                hint="copy the file there, and name it in GDN_AOT_ARTIFACT",
            )
        entry = entry_of(artifact)
        problems = [Problem(field, what) for field, what in check_entry(entry)]
        if problems:
            hint = "build the artifact again"
            raise VerificationError(f"{path} has what no index of a registry may have", problems, hint=hint)
        before = found.setdefault(entry.identifier, (path, entry))
        if before[1].sha256 != entry.sha256:
            raise UsageError(
                f"{before[0]} and {path} are different builds of {entry.identifier}", hint="publish one of them"
            )
    if not found:
        raise UsageError("no artifact was given", hint="name gdn-aot-*.tar.zst files")
    return [found[identifier] for identifier in sorted(found)]


def _plan(
    registry: Registry, refs: Refs, wanted: Sequence[tuple[Path, Entry]], tag: str | None, *, replace: bool
) -> Plan:
    branch = branch_name()
    head = refs.branches.get(branch)
    before = _entries(registry, branch, head)
    tagged = refs.tags.get(tag) if tag is not None else None
    if tag is not None and tagged is not None:
        there = _entries(registry, tag, tagged)
        items = [_of_a_tag(path, entry, there.get(entry.identifier), tag) for path, entry in wanted]
    else:
        items = [_of_a_branch(path, entry, before.get(entry.identifier), replace=replace) for path, entry in wanted]
    new = {item.entry.identifier: item.entry for item in items if item.action in ("added", "replaced")}
    index = make_index([*(before | new).values()])
    return Plan(
        items=tuple(items),
        head=head,
        tagged=tagged,
        index=index,
        card=card.render(index, registry.name),
    )


def _entries(registry: Registry, revision: str, commit: str | None) -> dict[str, Entry]:
    """Return what a branch or tag has. A branch that was made and then left has nothing of its own yet."""
    if commit is None:
        return {}
    try:
        index = index_at(registry, Snapshot(revision=revision, commit=commit))
    except EntryMissingError:
        return {}
    return {} if index.tree is not None else {entry.identifier: entry for entry in index.entries}


def _of_a_tag(path: Path, entry: Entry, there: Entry | None, tag: str) -> Item:
    if there is not None and there.sha256 == entry.sha256:
        return Item(path=path, entry=entry, action="unchanged", reason="")
    what = "does not have it" if there is None else f"has it with sha256 {there.sha256}, not {entry.sha256}"
    return Item(path=path, entry=entry, action="refused", reason=f"the tag {tag} is there and {what}")


def _of_a_branch(path: Path, entry: Entry, there: Entry | None, *, replace: bool) -> Item:
    if there is None:
        return Item(path=path, entry=entry, action="added", reason="")
    if there.sha256 == entry.sha256:
        return Item(path=path, entry=entry, action="unchanged", reason="")
    if replace:
        return Item(path=path, entry=entry, action="replaced", reason="")
    reason = f"it is there with sha256 {there.sha256}, not {entry.sha256}"
    return Item(path=path, entry=entry, action="refused", reason=reason)


def _commit_files(
    registry: Registry, wanted: Sequence[tuple[Path, Entry]], tag: str | None, *, replace: bool
) -> tuple[Plan, str]:
    """Do the first step and return the commit that has all of the artifacts."""
    plan = make_plan(registry, wanted, tag, replace=replace)
    if refusal := plan.refusal():
        raise refusal
    new = plan.with_action("added", "replaced")
    branch = branch_name()
    if not new:
        registry.settle(branch, [item.addition for item in plan.items])
        commit = plan.tagged or plan.head
        if commit is None:
            raise AssertionError("unchanged, and nothing is there")
        return plan, commit
    additions = [item.addition for item in new]
    additions += [Addition(path=entry_path(item.entry.identifier), content=entry_bytes(item.entry)) for item in new]
    additions += [Addition(path=INDEX, content=to_bytes(plan.index)), Addition(path=CARD, content=plan.card)]
    return plan, registry.commit(branch, plan.head, additions, _message(item.entry for item in new))


def _commit_main(registry: Registry) -> str | None:
    """Do the last step: let ``main`` show what the moving branch has now. None if it does."""
    refs, branch = registry.refs(), branch_name()
    index = make_index([*_entries(registry, branch, refs.branches.get(branch)).values()], tree=branch)
    head = refs.branches.get(MAIN)
    if head is not None:
        snapshot = Snapshot(revision=MAIN, commit=head)
        try:
            there = index_at(registry, snapshot)
            registry.read(snapshot, CARD)
        except EntryMissingError:
            pass
        else:
            newer = there.tree is not None and int(there.tree[1:]) > MAJOR
            if newer or there == index:
                return None
    shown = card.render(dataclasses.replace(index, tree=None), registry.name)
    additions = [Addition(path=INDEX, content=to_bytes(index)), Addition(path=CARD, content=shown)]
    return registry.commit(MAIN, head, additions, f"Show branch {branch}")


def _message(entries: Iterable[Entry]) -> str:
    first, *others = [entry.identifier for entry in entries]
    more = f" and {len(others)} more" if others else ""
    return f"Publish {first}{more}"


def _retried(step: Callable[[], _T]) -> _T:
    """Do a step again, from the start, while somebody else is faster."""
    for attempt in range(_TRIES - 1):
        try:
            return step()
        except StaleParentError:
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 6)))  # noqa: S311 - so that not all come at once
    return step()

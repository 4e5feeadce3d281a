"""Publishing: artifacts into a registry, without losing what others publish at the same time.

First one commit to the moving branch with the files, its index and the card; then the tag; then, in a repository, the
card and an index that points to that branch to ``main``. Whoever is cut off in between publishes again: each step is
only done if it is not done yet. A commit names the one that it was made from; if the branch has moved since, the index
is read again and merged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from gdn_aot.errors import (
    ConflictError,
    EntryMissingError,
    NotWritableError,
    RepositoryMissingError,
    StaleParentError,
    UsageError,
    VerificationError,
)
from gdn_aot.registry import card
from gdn_aot.registry.base import Addition, Refs, Snapshot, index_at
from gdn_aot.registry.layout import (
    BRANCH,
    CARD,
    ENTRY_FORM,
    INDEX,
    INDEX_FORM,
    MAIN,
    MAJOR,
    REPORT,
    Entry,
    RegistryIndex,
    artifact_path,
    entry_of,
    entry_path,
    make_index,
)
from gdn_aot.registry.page import file_of, read_page
from gdn_aot.registry.signing import check_repository, content_of, provenance_of, publication
from gdn_aot.store.seen import remember
from gdn_aot.store.store import Store
from gdn_aot.trust.envelope import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from gdn_aot.registry.base import Registry
    from gdn_aot.registry.signing import Content, Publication, Signing

    Wanted: TypeAlias = tuple[Path, Entry, Content | None]
    """An artifact file, its entry, and what is signed of it."""

Action = Literal["added", "replaced", "signed", "unchanged", "refused"]
"""``signed``: it is there, and its signature is new."""

_T = TypeVar("_T")
_TRIES = 12
"""Commits that may find that somebody else was faster."""
_TAG = re.compile(r"v(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One artifact, and what is to become of it."""

    path: Path
    entry: Entry
    content: Content | None
    """What is signed of it; None where nothing is signed."""
    action: Action
    reason: str
    """Why it is refused; else empty."""

    @property
    def additions(self) -> tuple[Addition, Addition]:
        """The artifact and its entry as files of the registry."""
        name, content = self.entry.identifier, ENTRY_FORM.encode(self.entry)
        return (
            Addition(path=artifact_path(name), content=self.path, sha256=self.entry.sha256),
            Addition(path=entry_path(name), content=content),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishPlan:
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
    report: bytes | None
    """The page that is published, if it is not there already."""
    outdated: bool
    """The page that is there was made before this, so the card no longer links to it."""
    publication: Publication | None
    """How it is signed."""
    uncounted: tuple[str, ...]
    """Artifacts of the branch whose signatures a new keyring lets count no more: nobody can use them."""

    def with_action(self, *actions: Action) -> list[Item]:
        """Return the artifacts of which this becomes."""
        return [item for item in self.items if item.action in actions]

    @property
    def is_signed_anew(self) -> bool:
        """Something is published that is signed; else what is there stays as it is."""
        new = self.with_action("added", "replaced", "signed")
        return self.publication is not None and bool(new or self.publication.resigned)

    def refusal(self) -> ConflictError | None:
        """Return why this cannot be published, naming all that is in the way."""
        refused = self.with_action("refused")
        if not refused:
            return None
        return ConflictError("; ".join(f"{item.entry.identifier}: {item.reason}" for item in refused))


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishResult:
    """What was done, or what would be."""

    registry: str
    tag: str | None
    created: bool
    """The repository was made for this."""
    visibility_kept: bool
    """It was to be made private and was there already: whoever could see it before can see what is published."""
    plan: PublishPlan
    commit: str | None
    """The commit that has the artifacts, and that the tag names; None after a dry run."""
    main: str | None
    """The commit to ``main``; None if it needed none, as a directory never does."""


def publish(
    registry: Registry,
    files: Sequence[Path],
    *,
    tag: str | None = None,
    report: Path | None = None,
    signing: Signing | None = None,
    replace: bool = False,
    create: bool = False,
    private: bool = False,
    dry_run: bool = False,
) -> PublishResult:
    """Verify artifacts, sign them and publish them.

    Args:
        registry: Where to.
        files: Artifact files. The same one twice counts once. None are needed where a keyring is published.
        report: A page of ``gdn-aot report`` about them, in place of the one that is there; the card links to it.
        signing: With what they are signed; None where nobody signs.
        tag: A name for this release, ``v<major>.<minor>.<patch>``.
        replace: Let an artifact take the place of another with its identifier; only together with a new tag.
        create: Make the registry if it is not there.
        private: Then, let nobody else see it. One that is there already stays as visible as it is.
        dry_run: Only say what would be done.

    Raises:
        ConflictError: The registry, or the tag, has other content under the same name.
        RegistryError: It was not reached, or refused.
        SigningError: It could not be signed, or must be and no key is given.
        UsageError: Two files have the same identifier, the tag cannot be one, or the page cannot be read or is none.
        VerificationError: A file is not a sound artifact, the registry's index is damaged, or the key or keyring may
            not sign there. Nothing was changed.
    """
    if tag is not None:
        check_tag(tag)
    elif replace:
        raise UsageError("replacing needs a new tag", hint="add --tag, so that the content before stays reachable")
    if signing is not None and signing.keyring is not None:
        check_repository(registry, signing.keyring)
    wanted = _open(files, signing)
    how = partial(publication, registry, signing=signing, dry_run=dry_run)
    look = partial(_plan, registry, wanted, tag, how, read_page(report), replace=replace)
    made, commit, main = False, None, None
    if dry_run:
        try:
            refs, there = registry.refs(), True
        except RepositoryMissingError:
            if not create:
                raise
            refs, there = Refs(branches={}, tags={}), False
        plan = look(refs)
    else:
        made = registry.create(private=private) if create else False
        there = not made
        plan, commit = _retried(lambda: _commit_files(registry, look(registry.refs())))
        if tag is not None and plan.tagged is None:
            registry.tag(tag, commit)
        main = _retried(lambda: _commit_main(registry))
        if signing is not None and signing.home and plan.publication is not None and plan.is_signed_anew:
            with contextlib.suppress(NotWritableError):  # then a later one cannot tell an older state
                repo, serial = plan.publication.keyring.repo, plan.publication.serial
                remember(Store(signing.home), repo, published={registry.name: serial})
    return PublishResult(
        registry=registry.name,
        tag=tag,
        created=made,
        visibility_kept=create and private and there,
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


def _open(files: Sequence[Path], signing: Signing | None) -> list[Wanted]:
    from gdn_aot.artifact.names import is_single
    from gdn_aot.artifact.verify import open_artifact

    found: dict[str, Wanted] = {}
    for path in files:
        artifact = open_artifact(path)
        if any(map(is_single, artifact.manifest.workloads)):
            raise UsageError(
                f"{path} was built for one deployment; a registry has what fits every deployment",
                hint="copy the file there, and name it in GDN_AOT_ARTIFACT",
            )
        entry = entry_of(artifact)
        try:
            ENTRY_FORM.convert(msgspec.to_builtins(entry))
        except VerificationError as error:
            what = f"{path} has what no index of a registry may have"
            raise VerificationError(what, error.problems, hint="build the artifact again") from error
        content = content_of(artifact) if signing else None
        before = found.setdefault(entry.identifier, (path, entry, content))
        if before[1].sha256 != entry.sha256:
            raise UsageError(
                f"{before[0]} and {path} are different builds of {entry.identifier}", hint="publish one of them"
            )
    if not found and not (signing and signing.keyring):
        raise UsageError("no artifact was given", hint="name gdn-aot-*.tar.zst files")
    return [found[identifier] for identifier in sorted(found)]


def _plan(
    registry: Registry,
    wanted: Sequence[Wanted],
    tag: str | None,
    how: Callable[[str | None], Publication | None],
    page: bytes | None,
    refs: Refs,
    *,
    replace: bool,
) -> PublishPlan:
    head = refs.branches.get(BRANCH)
    before = _entries(registry, BRANCH, head)
    tagged = refs.tags.get(tag) if tag is not None else None
    there = before if tagged is None else _entries(registry, str(tag), tagged)
    sealed = how(head)
    items = [_item(one, there.get(one[1].identifier), tag if tagged else None, replace=replace) for one in wanted]
    if sealed is not None and not tagged:
        items = [
            dataclasses.replace(item, action="signed")
            if item.action == "unchanged" and not sealed.counts(registry, head, item.entry)
            else item
            for item in items
        ]
    revoked = set(sealed.keyring.revoked) if sealed else set()
    if bad := [item.entry.identifier for item in items if item.entry.sha256 in revoked]:
        raise refused("is revoked by the keyring, so nobody could fetch it", bad[0], hint="leave it out, or build anew")
    given = {item.entry.identifier for item in items}
    others = [entry for entry in before.values() if entry.identifier not in given and entry.sha256 not in revoked]
    uncounted = [one for one in others if sealed and sealed.resigned and not sealed.counts(registry, head, one)]
    new = {item.entry.identifier: item.entry for item in items if item.action in ("added", "replaced")}
    index = make_index((before | new).values())
    linked = card.has_report(file_of(registry, head, CARD))
    is_new = page is not None and not tagged and (not linked or file_of(registry, head, REPORT) != page)
    return PublishPlan(
        items=tuple(items),
        head=head,
        tagged=tagged,
        index=index,
        card=card.render(index, registry.name, report=page is not None or (linked and not new)),
        report=page if is_new else None,
        outdated=page is None and linked and bool(new),
        publication=sealed,
        uncounted=tuple(one.identifier for one in uncounted),
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


def _item(wanted: Wanted, there: Entry | None, tag: str | None, *, replace: bool) -> Item:
    """Say what is to become of an artifact where there is another one, or none; ``tag`` is one that is there."""
    path, entry, content = wanted
    action: Action = "refused"
    reason = ""
    if there is not None and there.sha256 == entry.sha256:
        action = "unchanged"
    elif tag is not None:
        what = "does not have it" if there is None else f"has it with sha256 {there.sha256}, not {entry.sha256}"
        reason = f"the tag {tag} exists and {what}"
    elif there is None:
        action = "added"
    elif replace:
        action = "replaced"
    else:
        reason = f"it exists with sha256 {there.sha256}, not {entry.sha256}"
    return Item(path=path, entry=entry, content=content, action=action, reason=reason)


def _commit_files(registry: Registry, plan: PublishPlan) -> tuple[PublishPlan, str]:
    """Do the first step and return the commit that has all of the artifacts."""
    if refusal := plan.refusal():
        raise refusal
    new, sealed = plan.with_action("added", "replaced"), plan.publication
    signed = plan.with_action("added", "replaced", "signed")
    report = [Addition(path=REPORT, content=plan.report)] if plan.report is not None else []
    shown = [*report, Addition(path=CARD, content=plan.card)]
    if not signed and not plan.is_signed_anew:
        if report:
            return plan, registry.commit(BRANCH, plan.head, shown, "Publish a report")
        registry.settle([*(item.additions[0] for item in plan.items), *shown])
        return plan, plan.tagged or str(plan.head)
    index = INDEX_FORM.encode(plan.index)
    additions = [addition for item in new for addition in item.additions]
    additions += [Addition(path=INDEX, content=index), *shown]
    additions += provenance_of((item.entry, item.path) for item in signed)
    if sealed is not None:
        additions += [sealed.statement(item.entry, item.content) for item in signed if item.content]
        additions += sealed.index(index)
    return plan, registry.commit(BRANCH, plan.head, additions, _message(signed, sealed))


def _message(signed: Sequence[Item], sealed: Publication | None) -> str:
    if not signed:
        return f"Publish version {sealed.keyring.version if sealed else 0} of the keyring"
    more = f" and {len(signed) - 1} more" if len(signed) > 1 else ""
    return f"Publish {signed[0].entry.identifier}{more}"


def _commit_main(registry: Registry) -> str | None:
    """Do the last step: let ``main`` show what the moving branch has now. None if it does."""
    refs, branch = registry.refs(), BRANCH
    if (head := refs.branches.get(MAIN)) is None:  # a directory
        return None
    index = make_index(_entries(registry, branch, refs.branches.get(branch)).values(), tree=branch)
    snapshot = Snapshot(revision=MAIN, commit=head)
    linked = card.has_report(file_of(registry, refs.branches.get(branch), CARD))
    with contextlib.suppress(EntryMissingError):
        there = index_at(registry, snapshot)
        as_before = card.has_report(registry.read(snapshot, CARD)) == linked
        if (there.tree is not None and int(there.tree[1:]) > MAJOR) or (there == index and as_before):
            return None
    shown = card.render(msgspec.structs.replace(index, tree=None), registry.name, report=linked)
    additions = [Addition(path=INDEX, content=INDEX_FORM.encode(index)), Addition(path=CARD, content=shown)]
    return registry.commit(MAIN, head, additions, f"Show branch {branch}")


def _retried(step: Callable[[], _T]) -> _T:
    """Do a step again, from the start, while somebody else is faster."""
    for attempt in range(_TRIES - 1):
        try:
            return step()
        except StaleParentError:
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 6)))  # noqa: S311 - so that not all come at once
    return step()

"""Every keyring that lies where keyrings are known from, sound or not, and which of each repository counts.

`gdn_aot.trust.known` is what decides; this is for people, who want to see what it does not take, and why.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.errors import GdnAotError, KeyringError, UntrustedError
from gdn_aot.machine.owners import check_trust
from gdn_aot.trust.ed25519 import verify_all
from gdn_aot.trust.envelope import refused
from gdn_aot.trust.keyring import SignedKeyring, read_keyring
from gdn_aot.trust.known import file_name, learned_path, newest, read_placed
from gdn_aot.trust.places import BESIDE, KEYS, OURS, check_named, places
from gdn_aot.trust.statement import is_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.trust.known import Known

REGISTRY = "registry"


@dataclass(frozen=True)
class Found:
    """A keyring that lies here.

    Args:
        path: Where it is.
        source: As in `gdn_aot.trust.known.Known`.
        repo: Of which repository, going by the name of the file; empty if that is the name of none.
        signed: The keyring, if it could be read and its signatures are right.
        counts: It is the one of its repository that counts.
        problem: Why it is refused. Then nothing that the repository published counts as signed.
    """

    path: str
    source: str
    repo: str
    signed: SignedKeyring | None = None
    counts: bool = False
    problem: str = ""


def survey(home: str) -> list[Found]:
    """Return every keyring here by place, then those that were taken from registries."""
    try:
        check_named()
    except KeyringError as error:
        return [Found(error.problems[0].where, KEYS, "", problem=error.problems[0].what)]
    placed = [found for source, folder in places() for found in _placed(source, folder)]
    learned = [_repo(path.name[:-1]) for path in sorted(Path(home, BESIDE).glob("*.jsonl"))] if home else []
    found: list[Found] = []
    for repo in dict.fromkeys([*(one.repo for one in placed), *filter(None, learned)]):
        found += _of(repo, [one for one in placed if one.repo == repo], home)
    return found


def _of(repo: str, placed: list[Found], home: str) -> Iterator[Found]:
    """Yield the keyrings of one repository, those that were put in a place and those that were learned."""
    chain: list[Known] = []
    problem = ""
    if repo and not any(one.problem for one in placed):
        try:
            chain = newest(repo, home)
            if not verify_all([signed for known in chain for signed in known.signed.signed()]):
                raise refused("has a signature that is not right", learned_path(repo, home))
        except (GdnAotError, OSError, ValueError) as error:
            chain, problem = [], _why(error)
    last = chain[-1] if chain else None
    for one in placed:
        counts = last is not None and one.path == last.path
        yield Found(one.path, one.source, one.repo, one.signed, counts, one.problem)
    for known in chain:
        if known.source == REGISTRY:
            yield Found(known.path, REGISTRY, repo, known.signed, known is last)
    if problem or not placed:
        yield Found(learned_path(repo, home), REGISTRY, repo, problem=problem)


def _placed(source: str, folder: str) -> Iterator[Found]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone, and an error if it cannot be read
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        yield Found(folder, source, "", problem=_why(error))
        return
    if problem := "" if source == OURS else _shared(folder):
        yield Found(folder, source, "", problem=problem)
    for name in names:
        if name.endswith(".json"):
            yield _look(f"{folder}/{name}", source, name)


def _shared(folder: str) -> str:
    """Return who else may change a directory: whoever takes a keyring out hides what it revokes. No read-only mount."""
    try:
        if not (hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY):
            check_trust(Path(folder).stat(), folder, always=True)
    except UntrustedError as error:
        return f"{error.problems[0].what}: whoever may write it can hide what a keyring in it revokes"
    except OSError:
        pass
    return ""


def _look(path: str, source: str, name: str) -> Found:
    repo = _repo(name)
    try:
        signed = read_keyring(read_placed(path, source))
        signed.verify()
        if name != file_name(signed.keyring.repo):
            raise refused(f"is for {signed.keyring.repo}: {file_name(signed.keyring.repo)} would be its name", path)
    except (GdnAotError, OSError, ValueError) as error:
        return Found(path, source, repo, problem=_why(error))
    return Found(path, source, repo, signed)


def _repo(name: str) -> str:
    """Return the repository whose keyring has this name of a file, or nothing."""
    repo = f"hf://{name.removesuffix('.json').replace('--', '/')}"
    return repo if is_repository(repo) else ""


def _why(error: Exception) -> str:
    """Return what is wrong, without the path."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    problems = error.problems if isinstance(error, GdnAotError) else ()
    return problems[0].what if problems else str(error)

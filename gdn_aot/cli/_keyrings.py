"""What the commands of ``gdn-aot keys`` share: reading and writing keyrings, and showing them."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot._files import read_regular, write_whole
from gdn_aot._files import write_new as _write_new
from gdn_aot._text import plural, shown
from gdn_aot.cli._output import emit_json, note, out, out_path
from gdn_aot.errors import NotWritableError, SignatureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from gdn_aot.trust.keyring import Keyring, SignedKeyring
    from gdn_aot.trust.survey import Found


def today() -> str:
    """Return the day, as keyrings have it."""
    return datetime.now(timezone.utc).date().isoformat()


def is_public(text: str) -> bool:
    """Say whether a word is a public key rather than a path."""
    from gdn_aot.trust.statement import is_digest

    return is_digest(text.lower())


def public_of(text: str) -> str:
    """Return a public key as keyrings have it.

    Raises:
        UsageError: The word is none.
    """
    if not is_public(text):
        raise UsageError(
            f"{shown(text)!r} is no public key", hint="it is 64 hexadecimal digits: gdn-aot keys new --key"
        )
    return text.lower()


def read(path: Path) -> SignedKeyring:
    """Return the keyring of a file. Its signatures are not verified, and it may be unfinished.

    Raises:
        UsageError: The file cannot be read.
        SignatureError: It holds no keyring.
    """
    from gdn_aot.trust import MAX_ENVELOPE
    from gdn_aot.trust.keyring import read_keyring

    try:
        content = read_regular(path, MAX_ENVELOPE)
    except (OSError, ValueError) as error:
        what = f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, hint="name the file of a keyring") from error
    with naming(path, "take the file from its publisher again"):
        return read_keyring(content)


def finished(path: Path) -> Keyring:
    """Return the keyring of a file whose signatures are right and enough.

    Raises:
        UsageError: The file cannot be read.
        SignatureError: It holds none.
    """
    signed = read(path)
    with unfinished(path):
        return signed.verify()


def unfinished(path: Path) -> AbstractContextManager[None]:
    """Have errors name a file that may lack signatures."""
    return naming(path, "where signatures are missing, holders of its root keys add them: gdn-aot keys sign")


@contextmanager
def naming(path: Path, hint: str) -> Iterator[None]:
    """Have errors name the file, and say what to do."""
    try:
        yield
    except SignatureError as error:
        raise SignatureError(f"{path}: {error.message}", hint=hint) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say that a path cannot be written, where it cannot."""
    try:
        yield
    except (OSError, ValueError) as error:
        what = f"cannot write {path}: {getattr(error, 'strerror', None) or error}"
        raise NotWritableError(what) from error


def known_of(repo: str) -> list[Keyring]:
    """Return the versions of a repository's keyring that are known here, the one that counts last, all of them sound.

    Raises:
        KeyringError: One cannot be read or is damaged, or somebody else may have written it.
    """
    from gdn_aot.store.store import default_home
    from gdn_aot.trust.known import at_fault, newest

    chain = newest(repo, default_home())
    for known in chain:
        try:
            known.signed.verify()
        except SignatureError as error:
            raise at_fault(known.path, error) from error
    return [known.signed.keyring for known in chain]


def put(path: Path, content: bytes) -> bool:
    """Write a keyring where all users may read it, whatever the umask is, and say whether that changed anything.

    Raises:
        NotWritableError: It cannot be written.
    """
    with _for_all(), writing(path):
        if path.is_file() and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content, sync=True, mode=0o644)
    return True


@contextmanager
def _for_all() -> Iterator[None]:
    """Let all users read what is made, and this one alone write it."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def place_for(*, system: bool) -> Path:
    """Return the directory that keyrings are added to; one that the environment names is there then.

    Raises:
        UsageError: This user has none.
        NotWritableError: It cannot be made.
    """
    from gdn_aot.trust.places import KEYS, SYSTEM, places

    if system:
        return Path(SYSTEM)
    source, folder = places()[-1]
    if source not in ("user", KEYS):
        raise UsageError("this user has no home directory", hint=f"use --system, or let {KEYS} name a directory")
    path = Path(folder)
    if source == KEYS and path.is_absolute() and not os.path.lexists(path):
        with _for_all(), writing(path):
            path.mkdir(parents=True)
    return path


def write_new(files: Mapping[Path, bytes]) -> None:
    """Write files where nothing is, all or none of them; private keys so that nobody else can read them.

    Raises:
        UsageError: One is there.
        NotWritableError: One cannot be written.
    """
    made: list[Path] = []
    try:
        for path, content in files.items():
            with writing(path):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    _write_new(path, content, mode=0o600 if b"PRIVATE KEY" in content else 0o644)
                except FileExistsError:
                    what = f"{path} exists already, and is not overwritten"
                    raise UsageError(what, hint="name another place with -o") from None
            made.append(path)
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.unlink()
        raise


def sign_and_write(
    signed: SignedKeyring, root_keys: Iterable[Path], output: Path, *, quiet: bool, as_json: bool
) -> None:
    """Sign a keyring with root keys, write it, and say what it lacks.

    Raises:
        UsageError: A key cannot be read, or something else is there already.
        SignatureError: A key is none of its roots.
        NotWritableError: It cannot be written.
    """
    from gdn_aot.trust import edit
    from gdn_aot.trust.signer import read_private

    made = edit.sign(signed, [read_private(path) for path in root_keys])
    if os.path.lexists(output):
        there = None
        with suppress(UsageError, SignatureError):
            there = read(output).keyring
        if there != made.keyring:
            raise UsageError(f"{output} exists and holds something else", hint="name another file with -o")
    with writing(output):
        write_whole(output, made.envelope.encode(), sync=True, mode=0o644)
    tell_keyring(output, made, quiet=quiet, as_json=as_json)


def tell_keyring(
    path: Path, signed: SignedKeyring, *, quiet: bool, as_json: bool, files: Sequence[Path] | None = None
) -> None:
    """Say what was written: a keyring, and ``files`` with private keys."""
    from gdn_aot.trust.edit import missing

    lacking = missing(signed)
    if as_json:
        keys = {} if files is None else {"private": [*map(str, files)]}
        emit_json({"path": str(path), **document(signed), **keys})
        return
    for file in files or ():
        out_path(file)
    if quiet:
        out_path(path)
        return
    show(signed, shown(path))
    for gap in lacking:
        note(f"unfinished: {plural(gap.signatures, 'signature')} more of {', '.join(gap.of)} needed")
    if lacking:
        note(f"Hint: gdn-aot keys sign {shown(path)} --root-key PEM -o {shown(path)}")
    if files:
        note("keep the root keys in different places, none of them on a machine that publishes")


def tell_key(path: Path, public: bytes, *, quiet: bool, as_json: bool) -> None:
    """Say which private key was written."""
    from gdn_aot.trust.envelope import key_id

    if as_json:
        emit_json({"path": str(path), "public": public.hex(), "id": key_id(public)})
    elif quiet:
        out_path(path)
    else:
        out(f"public {public.hex()}\nid     {key_id(public)}")
        note(f"{shown(path)} is the private key: only this user can read it, and it has no password")


def show_found(found: Found) -> None:
    """Write to stdout what lies in a place for keyrings."""
    where = f"{shown(found.path)} ({found.source})"
    if found.signed is not None:
        state = "refused" if found.problem else "counts" if found.counts else "does not count: another one does"
        show(found.signed, f"{where}: {state}")
    elif not found.problem:
        out(f"{where}: does not count: no keyring of {found.repo} was added here")


def show(signed: SignedKeyring, what: str) -> None:
    """Write to stdout what a keyring says."""
    from gdn_aot.trust.edit import ids

    keyring = signed.keyring
    lines = [what, f"{keyring.repo}, version {keyring.version} of {keyring.created}"]
    for kind, roots in (("root", keyring.roots), ("former root", keyring.former_roots)):
        lines += [
            f"{kind} {root}, {'has signed' if root in signed.envelope.signatures else 'has not signed'}"
            for root in ids(roots)
        ]
    for key in keyring.keys:
        end = "on" if key.to_serial is None else f"to {key.to_serial}"
        lines.append(f"key {key.id}, serials {key.from_serial} {end}{', revoked' if key.revoked else ''}")
    if keyring.revoked:
        lines.append(f"{plural(len(keyring.revoked), 'artifact')} revoked")
    out("\n  ".join(lines))


def document(signed: SignedKeyring) -> dict[str, Any]:
    """Return a keyring as ``--json`` has it."""
    from gdn_aot.trust.edit import ids, missing

    keyring, signatures = signed.keyring, signed.envelope.signatures
    return {
        "repo": keyring.repo,
        "version": keyring.version,
        "created": keyring.created,
        "roots": [{"id": root, "signed": root in signatures} for root in ids(keyring.roots)],
        "former_roots": [{"id": root, "signed": root in signatures} for root in ids(keyring.former_roots)],
        "keys": [{"id": key.id, **key.to_dict()} for key in keyring.keys],
        "revoked": list(keyring.revoked),
        "missing": [gap._asdict() for gap in missing(signed)],
    }


def found_document(found: Found) -> dict[str, Any]:
    """Return what lies in a place for keyrings as ``--json`` has it."""
    about = {"path": found.path, "source": found.source, "counts": found.counts, "problem": found.problem}
    return {**about, "repo": found.repo, **(document(found.signed) if found.signed is not None else {})}

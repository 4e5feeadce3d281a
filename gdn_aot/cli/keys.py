"""``gdn-aot keys``: whose signatures count on this machine, and making and changing the keyrings of publishers."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gdn_aot._text import plural, shown
from gdn_aot.cli import _options
from gdn_aot.cli._group import SuggestingGroup
from gdn_aot.cli._keyrings import (
    document,
    finished,
    found_document,
    is_public,
    known_of,
    naming,
    place_for,
    public_of,
    put,
    read,
    show,
    show_found,
    sign_and_write,
    tell_key,
    tell_keyring,
    today,
    unfinished,
    write_new,
)
from gdn_aot.cli._output import conclude, emit_json, note, out, out_path
from gdn_aot.errors import KeyringError, Problem, SignatureError, UsageError

_MAX_SERIAL = (1 << 53) - 1
_keyring = click.argument("keyring", metavar="KEYRING", type=_options.path)
_output = click.option("-o", "--output", type=_options.path, required=True, help="The file to write.")
_root_keys = _options.many(
    "--root-key", "PEM", "Root key to sign with; repeatable. gdn-aot keys sign adds missing signatures.",
    type=_options.path,
)  # fmt: skip


@click.group("keys", cls=SuggestingGroup, no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List and add trusted publishers, and make signing keys.

    A keyring lists the keys that sign the artifacts of one repository. It has three root keys, of which two must sign
    each version of it. Machines know keyrings from the package, from /etc/gdn-aot/keys.d and from
    ~/.config/gdn-aot/keys.d; $GDN_AOT_KEYS names a directory that replaces the last two.

    \b
    Examples:
      gdn-aot keys new --repo hf://org/name -o keys
      gdn-aot publish FILES --repo hf://org/name --key keys/signing.pem --keyring keys/keyring.json
      gdn-aot keys add keyring.json
      gdn-aot keys list
    """  # noqa: D301 - \b is click's
    if ctx.invoked_subcommand is None:
        out(ctx.get_help())


@command.command("new")
@click.option("--repo", metavar="REPO", help="Repository of the keyring: hf://org/name.")
@click.option("--key", is_flag=True, help="Make one private key and no keyring.")
@_options.many("--root-public", "HEX", "Root key that somebody else holds; three of them, and --public.")
@click.option("--public", metavar="HEX", help="Signing key that somebody else or a KMS holds.")
@click.option("-o", "--output", type=_options.path, required=True, help="Directory, or file of --key or --root-public.")
@_options.quiet
@_options.as_json
def new_command(
    repo: str | None,
    root_public: tuple[str, ...],
    public: str | None,
    output: Path,
    *,
    key: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make keys, and version 1 of a keyring.

    Writes root-1.pem, root-2.pem, root-3.pem, signing.pem unless --public names another key, and keyring.json into the
    directory. Private keys have no password and only this user may read them: store the root keys elsewhere. With
    --root-public writes only a keyring, which two holders of these keys then sign. Overwrites no file.

    \b
    Examples:
      gdn-aot keys new --repo hf://org/name -o keys
      gdn-aot keys new --key -o root-1.pem
      gdn-aot keys new --repo hf://org/name --root-public HEX --root-public HEX --root-public HEX --public HEX \\
        -o keyring.json
    """  # noqa: D301 - \b is click's
    from gdn_aot.trust import edit
    from gdn_aot.trust.keyring import ROOTS
    from gdn_aot.trust.signer import new_private, read_key

    if key:
        if repo or root_public or public:
            raise UsageError("--key makes no keyring", hint="leave out --repo, --root-public and --public")
        private = new_private()
        write_new({output: private})
        tell_key(output, read_key(private, str(output)).public, quiet=quiet, as_json=as_json)
        return
    if repo is None:
        raise UsageError("a keyring is for one repository", hint="name it: --repo hf://org/name; or --key for a key")
    if root_public:
        if public is None:
            raise UsageError("the key that signs is missing", hint="name it: --public HEX")
        made = edit.unsigned(edit.first(repo, today(), [*map(public_of, root_public)], public_of(public)))
        write_new({output: made.envelope.encode()})
        tell_keyring(output, made, quiet=quiet, as_json=as_json)
        return
    files = {output / f"root-{number}.pem": new_private() for number in range(1, ROOTS + 1)}
    roots = [read_key(content, str(path)) for path, content in files.items()]
    if public is None:
        place = output / "signing.pem"
        files[place] = new_private()
        public = read_key(files[place], str(place)).public.hex()
    keyring = edit.first(repo, today(), [root.public.hex() for root in roots], public_of(public))
    made = edit.sign(edit.unsigned(keyring), roots)
    place = output / "keyring.json"
    write_new({**files, place: made.envelope.encode()})
    tell_keyring(place, made, quiet=quiet, as_json=as_json, files=list(files))


@command.command("list")
@_options.quiet
@_options.as_json
def list_command(*, quiet: bool, as_json: bool) -> None:
    """List the keyrings that are known here.

    For each repository says which keyring counts. Ends with 5 if one is damaged, or if somebody else may have written
    it. With --quiet prints the paths of those that count.
    """
    from gdn_aot.store.store import default_home
    from gdn_aot.trust.survey import survey

    found = survey(default_home())
    problems = [Problem(one.path, one.problem) for one in found if one.problem]
    error = None
    if problems:
        what = f"{plural(len(problems), 'keyring')} here cannot be used"
        hint = "replace it with gdn-aot keys add, or remove the file"
        error = KeyringError(what, problems, hint=hint)
    if as_json:
        conclude({"keyrings": [*map(found_document, found)]}, error, as_json=True)
        return
    for one in found:
        if not quiet:
            show_found(one)
        elif one.counts:
            out_path(one.path)
    if not (found or quiet):
        note("no keyring is known here: gdn-aot keys add FILE")
    if error is not None:
        raise error


@command.command("add")
@click.argument("file", metavar="FILE", type=_options.path)
@click.option("--system", is_flag=True, help="For all users of this machine: into /etc/gdn-aot/keys.d.")
@_options.quiet
@_options.as_json
def add_command(file: Path, *, system: bool, quiet: bool, as_json: bool) -> None:
    """Let the signatures of a publisher count here.

    FILE is the publisher's keyring, such as keyrings/1.json of a directory registry. If a keyring of that repository is
    known, the new one must follow it. Compare the ids of the roots with those that the publisher tells you through
    another channel: whoever gave you the file may have written it.

    \b
    Examples:
      gdn-aot keys add keyring.json
      sudo gdn-aot keys add --system /media/stick/registry/keyrings/1.json
    """  # noqa: D301 - \b is click's
    from gdn_aot.trust.envelope import key_id
    from gdn_aot.trust.known import file_name
    from gdn_aot.trust.places import KEYS, SYSTEM

    if system and os.environ.get(KEYS):
        raise UsageError(f"{KEYS} names a directory in place of {SYSTEM}", hint=f"unset {KEYS}, or leave out --system")
    signed = read(file)
    with unfinished(file):
        signed.verify()
    folder = place_for(system=system)
    chain = known_of(signed.keyring.repo)
    if chain and signed.keyring not in chain:
        last = chain[-1]
        others = {key_id(bytes.fromhex(root)) for root in last.roots}.isdisjoint(signed.envelope.signatures)
        if others and signed.keyring.version >= last.version:
            what = f"its roots differ from those of version {last.version}, which is known here"
            hint = "ask the publisher which is right; gdn-aot keys list shows the path of the other"
            raise SignatureError(f"{file}: {what}", hint=hint)
        with naming(file, "a keyring follows only what two of its roots have signed"):
            signed.verify(last)
    place = folder / file_name(signed.keyring.repo)
    changed = put(place, signed.envelope.encode())
    if as_json:
        emit_json({"path": str(place), "changed": changed, **document(signed)})
        return
    if quiet:
        out_path(place)
        return
    show(signed, f"{'added as' if changed else 'is there already:'} {shown(place)}")
    if not chain:
        note("compare the ids of the roots with what the publisher tells you another way")


@command.command("rotate")
@_keyring
@_root_keys
@click.option("--new-key", metavar="PEM", type=_options.path, help="Key that signs from now on.")
@click.option("--new-public", metavar="HEX", help="The same, if somebody else or a KMS holds it.")
@click.option(
    "--serial", metavar="N", type=click.IntRange(0, _MAX_SERIAL - 1),
    help="Serial of the last publication with the old key; the new one signs from N+1 on.",
)  # fmt: skip
@_options.many("--new-root", "PEM|HEX", "New root key; give all three. Files of private keys also sign.")
@_output
@_options.quiet
@_options.as_json
def rotate_command(
    keyring: Path,
    root_key: tuple[Path, ...],
    new_key: Path | None,
    new_public: str | None,
    serial: int | None,
    new_root: tuple[str, ...],
    output: Path,
    **how: bool,
) -> None:
    """Write the next version, with other keys.

    Replaces the signing key, the roots, or both. New roots need the signatures of two old and two new roots.

    \b
    Examples:
      gdn-aot keys rotate keyring.json --root-key root-1.pem --root-key root-2.pem --new-key signing-2.pem \\
        --serial 41 -o keyring-2.json
      gdn-aot keys rotate keyring.json --root-key root-1.pem --root-key root-2.pem \\
        --new-root new-1.pem --new-root new-2.pem --new-root HEX -o keyring-2.json
    """  # noqa: D301 - \b is click's
    from gdn_aot.trust import edit
    from gdn_aot.trust.signer import read_private

    if new_key is not None and new_public is not None:
        raise UsageError("--new-key and --new-public are both given", hint="give one of them")
    public = public_of(new_public) if new_public is not None else None
    if new_key is not None:
        public = read_private(new_key).public.hex()
    held = [Path(root) for root in new_root if not is_public(root)]
    roots = [root.lower() if is_public(root) else read_private(Path(root)).public.hex() for root in new_root]
    before = finished(keyring)
    made = edit.rotate(before, today(), public=public, serial=serial, roots=roots)
    sign_and_write(edit.unsigned(made), [*root_key, *held], output, **how)


@command.command("revoke")
@_keyring
@click.argument("names", nargs=-1, required=True, metavar="KEYID|SHA256...")
@_root_keys
@_output
@_options.quiet
@_options.as_json
def revoke_command(
    keyring: Path, names: tuple[str, ...], root_key: tuple[Path, ...], output: Path, **how: bool
) -> None:
    """Write the next version, with something revoked.

    Revoking a key revokes everything that it ever signed. Another key must be there to sign, so rotate first. Name an
    artifact by the SHA-256 of its file.

    \b
    Example:
      gdn-aot keys revoke keyring.json KEYID --root-key root-1.pem --root-key root-2.pem -o keyring-2.json
    """  # noqa: D301 - \b is click's
    from gdn_aot.trust import edit

    made = edit.revoke(finished(keyring), today(), dict.fromkeys(names))
    sign_and_write(edit.unsigned(made), root_key, output, **how)


@command.command("sign")
@_keyring
@_options.many("--root-key", "PEM", "Root key to sign with; repeatable.", type=_options.path, required=True)
@_output
@_options.quiet
@_options.as_json
def sign_command(keyring: Path, root_key: tuple[Path, ...], output: Path, **how: bool) -> None:
    """Add signatures of roots to a keyring.

    Holders of root keys need never meet. Check what you sign: this prints the keys and ranges of the keyring. -o may be
    KEYRING itself.

    \b
    Example:
      gdn-aot keys sign keyring-2.json --root-key root-2.pem -o keyring-2.json
    """  # noqa: D301 - \b is click's
    sign_and_write(read(keyring), root_key, output, **how)

"""``gdn-aot fetch``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gdn_aot.cli import _options
from gdn_aot.cli._output import emit_json, no_bars, note, notes, out, out_path, problems_of, tell
from gdn_aot.errors import GdnAotError, UsageError

if TYPE_CHECKING:
    from gdn_aot.registry.fetch import Fetched, FetchOrder, FetchResult


@click.command("fetch")
@_options.request
@click.option(
    "--from", "bundle", type=_options.path, metavar="BUNDLE", help="Install from a bundle, without a network."
)
@click.option("--locked", is_flag=True, help="Install the artifacts that gdn-aot.lock pins, and no others.")
@click.option(
    "--lock-file", type=_options.path, metavar="PATH",
    help="The lock file of --locked.  [default: gdn-aot.lock]",
)  # fmt: skip
@_options.allow_unsigned
@click.option("--dry-run", is_flag=True, help="Show what would be installed; download no artifact, change nothing.")
@click.option("--strict", is_flag=True, help="A failure ends with its exit code. This is the default.")
@click.option("--optional", is_flag=True, help="End with 0 whatever happens, and report failures.")
@_options.registry
def command(
    *, locked: bool, lock_file: Path | None, strict: bool, optional: bool, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Install the artifacts that fit from a registry.

    An artifact fits if the serving process has its target, its version of the provider and its version of Triton.
    Without options, takes the GPUs and versions of this machine. With --arch, needs no GPU.

    Does not download installed artifacts again, and asks no server in offline mode (HF_HUB_OFFLINE=1). If some wanted
    artifacts are missing, installs the others and ends with 4.

    \b
    Examples:
      gdn-aot fetch
      gdn-aot fetch --arch sm_90 --arch sm_100 --revision v1.2.0
      gdn-aot fetch --locked
      gdn-aot fetch --repo ./registry --arch all --dry-run
      gdn-aot fetch --from kernels.tar
    """  # noqa: D301 - \b is click's
    start = time.monotonic()
    if strict and optional:
        raise UsageError("--strict and --optional exclude each other", hint="give one of them, or none")
    no_bars(quiet=quiet)
    fetched: list[Fetched] = []

    def add(item: Fetched) -> None:
        fetched.append(item)
        if not as_json:
            out_path(item.path or item.identifier) if quiet else out(_line(item))

    order, result = None, None
    error: GdnAotError | None = None
    try:
        from gdn_aot.registry.fetch import fetch
        from gdn_aot.store.store import Store, default_home

        order = _order(lock_file or (Path("gdn-aot.lock") if locked else None), **options)
        result = fetch(order, Store(default_home()), add, notes(quiet=quiet))
        error = result.error()
    except GdnAotError as caught:
        error = caught
    except Exception as caught:  # with --optional nothing may stop a container
        if not optional:
            raise
        error = GdnAotError(" ".join(f"{type(caught).__name__}: {caught}".split()))
    if as_json:
        emit_json(_document(order, result, fetched, ok=error is None, seconds=time.monotonic() - start), error)
    if error is not None:
        tell(error.message, error.hint, problems_of(error, brief=True), word="Warning" if optional else "Error")
        if not optional:
            raise click.exceptions.Exit(error.exit_code)
        note("--optional: continuing; Triton compiles and benchmarks kernels that no artifact serves")


def _source(repo: str | None, path: Path | None) -> str | None:
    """Return what ``--repo`` says, or the bundle in that form."""
    if path is None:
        return repo
    if repo is not None:
        raise UsageError("--from names the bundle and --repo a registry", hint="give one of them")
    if not path.is_file():
        raise UsageError(f"there is no bundle {path}", hint="gdn-aot bundle makes one")
    return str(path.absolute())


def _order(
    lock_file: Path | None,
    *,
    repo: str | None,
    bundle: Path | None,
    revision: str | None,
    token: str | None,
    dry_run: bool,
    allow_unsigned: bool,
    **wanted: Any,
) -> FetchOrder:
    from gdn_aot.registry.fetch import FetchOrder
    from gdn_aot.registry.lockfile import read_lock, repository_of
    from gdn_aot.registry.open import default_repo, locate
    from gdn_aot.registry.request import locked_request, make_request

    repo = _source(repo, bundle)
    more: dict[str, Any] = {"token": token, "dry_run": dry_run, "allow_unsigned": allow_unsigned}
    if lock_file is None:
        request = make_request(**wanted)
        return FetchOrder(repo=default_repo(repo), revision=revision, request=request, **more)
    lock = read_lock(lock_file)
    source = repository_of(lock, lock_file)
    if bundle is not None:
        source = str(repo)  # which says of what it is a copy, and whose commit is compared
    elif repo is not None and (named := locate(repo).name) != locate(source).name:
        raise UsageError(f"--repo {named} is not what {lock_file} pins, {source}", hint="leave --repo out")
    if revision is not None:
        raise UsageError(f"{lock_file} pins the commit, so --revision cannot", hint="leave --revision out")
    request = locked_request(**wanted)
    return FetchOrder(repo=source, revision=None, request=request, lock=lock, **more)


def _document(
    order: FetchOrder | None, result: FetchResult | None, fetched: list[Fetched], *, ok: bool, seconds: float
) -> dict[str, object]:
    from gdn_aot.registry.open import shown_repo

    found = msgspec.to_builtins(result) if result else {}
    asked = {"repo": shown_repo(order.repo), "revision": order.revision} if order else {}
    return {
        "ok": ok,
        "repo": found.get("repository", asked.get("repo")),
        "revision": found.get("revision", asked.get("revision")),
        "commit": found.get("commit"),
        "asked": found.get("asked"),
        "artifacts": msgspec.to_builtins(fetched),
        "verdicts": found.get("verdicts", []),
        "missing": found.get("missing", []),
        "seconds": round(seconds, 3),
    }


def _line(item: Fetched) -> str:
    parts = [f"{item.identifier}: {item.state.replace('-', ' ')}{f', {item.path}' if item.path else ''}"]
    if item.size is not None:
        parts.append(f"{item.size} bytes")
    if item.signed is not None:
        parts.append(f"signed by {item.signed}")
    if item.choices is not None:
        counts = msgspec.structs.asdict(item.choices)
        parts.append(f"choices: {', '.join(f'{count} {name}' for name, count in counts.items() if count) or 'none'}")
    return "; ".join(parts)

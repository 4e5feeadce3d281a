"""``gdn-aot fetch``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click
import msgspec

from gdn_aot.cli import _options
from gdn_aot.cli._output import describe, emit_json, no_bars, note, out, problems_of, tell
from gdn_aot.errors import GdnAotError, UsageError

if TYPE_CHECKING:
    from gdn_aot.registry.fetch import Fetched, FetchOrder, FetchResult


@click.command("fetch")
@_options.fetch_arch
@_options.fetch_provider
@_options.provider_version
@_options.triton
@_options.repo
@_options.revision
@click.option("--locked", is_flag=True, help="Install what gdn-aot.lock pins, and accept nothing else.")
@click.option(
    "--lock-file", type=click.Path(path_type=Path), default=None, metavar="PATH",
    help="The lock file of --locked.  [default: gdn-aot.lock]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be installed; download no artifact, change nothing.")
@click.option("--strict", is_flag=True, help="A failure ends with its exit code. This is the default.")
@click.option("--optional", is_flag=True, help="End with 0 whatever happens, and say what did.")
@_options.token
@_options.quiet
@_options.as_json
def command(
    *,
    arch: tuple[str, ...],
    provider: str,
    provider_version: str,
    triton: str,
    repo: str | None,
    revision: str | None,
    locked: bool,
    lock_file: Path | None,
    dry_run: bool,
    strict: bool,
    optional: bool,
    token: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Install the artifacts that fit from a registry.

    What fits is what the serving process will have: the target, the provider's version and Triton's. Without options
    it is what this machine has. No GPU is needed where --arch is given.

    What is installed already is not downloaded again, and in offline mode (HF_HUB_OFFLINE=1) nothing is asked for.
    Everything wanted must be there: where only some of it is, that is installed, and the exit code is 4.

    \b
    Examples:
      gdn-aot fetch
      gdn-aot fetch --arch sm_90 --arch sm_100 --revision v1.2.0
      gdn-aot fetch --locked
      gdn-aot fetch --repo ./registry --arch all --dry-run
    """  # noqa: D301 - \b is click's
    start = time.monotonic()
    report = _Report(as_json=as_json, quiet=quiet)
    error: GdnAotError | None = None
    if strict and optional:
        raise UsageError("--strict and --optional exclude each other", hint="give one of them, or none")
    no_bars(quiet=quiet)
    try:
        from gdn_aot.registry.fetch import fetch
        from gdn_aot.store.store import Store, default_home

        if locked or lock_file is not None:
            order = _locked_order(lock_file, repo, revision, (arch, provider, provider_version, triton))
        else:
            order = _order(repo, revision, (arch, provider, provider_version, triton))
        order = replace(order, token=token, dry_run=dry_run)
        report.order = order
        report.result = fetch(order, Store(default_home()), report.add, report.say)
        error = report.result.error()
    except GdnAotError as caught:
        error = caught
    except Exception as caught:  # with --optional nothing may stop a container
        if not optional:
            raise
        error = GdnAotError(" ".join(f"{type(caught).__name__}: {caught}".split()))
    report.end(error, optional=optional, seconds=time.monotonic() - start)


_Wanted: TypeAlias = tuple[tuple[str, ...], str, str, str]
"""Values of --arch, --provider, --provider-version and --triton."""


def _order(repo: str | None, revision: str | None, wanted: _Wanted) -> FetchOrder:
    from gdn_aot.registry.fetch import FetchOrder
    from gdn_aot.registry.open import default_repo
    from gdn_aot.registry.request import make_request

    return FetchOrder(repo=default_repo(repo), revision=revision, request=make_request(*wanted))


def _locked_order(lock_file: Path | None, repo: str | None, revision: str | None, wanted: _Wanted) -> FetchOrder:
    from gdn_aot.registry.fetch import FetchOrder
    from gdn_aot.registry.lockfile import NAME, read_lock, repository_of
    from gdn_aot.registry.open import locate
    from gdn_aot.registry.request import locked_request

    path = lock_file or Path(NAME)
    lock = read_lock(path)
    source = repository_of(lock, path)
    if repo is not None and (named := locate(repo).name) != locate(source).name:
        raise UsageError(f"--repo {named} is not what {path} pins, {source}", hint="leave --repo out")
    if revision is not None:
        raise UsageError(f"{path} pins the commit, so --revision cannot", hint="leave --revision out")
    return FetchOrder(repo=source, revision=None, request=locked_request(*wanted), lock=lock)


class _Report:
    """What is said about a fetch, while it runs and at its end."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.order: FetchOrder | None = None
        self.result: FetchResult | None = None
        self._as_json = as_json
        self._quiet = quiet
        self._fetched: list[Fetched] = []

    def say(self, text: str) -> None:
        """Tell a person what is going on."""
        if not self._quiet:
            note(text)

    def add(self, item: Fetched) -> None:
        """Report one artifact as soon as it is there."""
        self._fetched.append(item)
        if not self._as_json:
            out(_short(item) if self._quiet else _line(item))

    def end(self, error: GdnAotError | None, *, optional: bool, seconds: float) -> None:
        """Report how it ended, and set the exit code."""
        if self._as_json:
            self._emit(error, seconds)
        if error is None:
            return
        tell(error.message, error.hint, problems_of(error, brief=True), word="Warning" if optional else "Error")
        if optional:
            note("--optional: going on; what no artifact serves is compiled and benchmarked at run time")
        else:
            raise click.exceptions.Exit(error.exit_code)

    def _emit(self, error: GdnAotError | None, seconds: float) -> None:
        from gdn_aot.registry.open import shown_repo

        order, result = self.order, self.result
        document: dict[str, object] = {
            "ok": error is None,
            "repo": result.repository if result else shown_repo(order.repo) if order else None,
            "revision": result.revision if result else order.revision if order else None,
            "commit": result.commit if result else None,
            "asked": result.asked if result else None,
            "artifacts": msgspec.to_builtins(self._fetched),
            "verdicts": msgspec.to_builtins(result.verdicts) if result else [],
            "missing": list(result.missing) if result else [],
            "seconds": round(seconds, 3),
        }
        if error is not None:
            document["error"] = describe(error.code, error.message, error.hint, problems_of(error))
        emit_json(document)


def _short(item: Fetched) -> str:
    return item.path or item.identifier


def _line(item: Fetched) -> str:
    parts = [f"{item.identifier}: {item.state.replace('-', ' ')}{f', {item.path}' if item.path else ''}"]
    if item.size is not None:
        parts.append(f"{item.size} bytes")
    if item.choices is not None:
        counts = msgspec.structs.asdict(item.choices)
        parts.append(f"choices: {', '.join(f'{count} {name}' for name, count in counts.items() if count) or 'none'}")
    return "; ".join(parts)

"""What ``tune --submit`` and ``verify`` do with a tuning record that somebody wants to contribute."""

from __future__ import annotations

import hashlib
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gdn_aot._files import read_regular
from gdn_aot._text import plural
from gdn_aot.cli._job import RECORDS, check_output
from gdn_aot.cli._output import conclude, note, out, problems_json
from gdn_aot.errors import GdnAotError, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gdn_aot.measuring.contribution import Covered, Examined
    from gdn_aot.records.tuning import TuningRecord

PAGE = "docs/how-to/contribute-a-record.md"
_FIXED = ("prepare", "proxy", "output", "shape", "dtype", "max_batch", "tokens", "weights", "bound", "rounds")
"""Options of ``tune`` that change what a record is of, or how it is measured, from what all records share."""
_SHOWN = 12
_HINT = f"{PAGE} says what a contribution is; tune again on an idle card, records are not edited by hand"


def check_submit(options: Mapping[str, Any], *, prepare: bool) -> None:
    """Check, before anything is measured, that ``--submit`` can end well.

    Raises:
        UsageError: It is given with an option that makes another kind of record.
        NotWritableError: Its folder cannot be written.
    """
    if options["submit"] is None:
        return
    source = click.get_current_context().get_parameter_source
    given = [name for name in _FIXED if source(name) is ParameterSource.COMMANDLINE]
    if prepare or given:
        name = "--" + given[0].replace("_", "-")
        hint = f"leave {name} out, or tune without --submit; {PAGE}"
        raise UsageError(f"--submit measures as all records are measured, without {name}", hint=hint)
    check_output(options["submit"].parent)


def is_record(file: Path) -> bool:
    """Say whether a file may be a record and is no artifact: whether it begins as JSON objects do."""
    with suppress(OSError):
        if file.is_file():
            with file.open("rb") as opened:
                return opened.read(1) == b"{"
    return False


class Contribution:
    """A file that somebody wants to contribute: what was found, and the error that says so.

    Raises:
        UsageError: It cannot be read.
    """

    def __init__(self, file: Path) -> None:
        from gdn_aot.compiling.cache import default_cache
        from gdn_aot.measuring.contribution import examine
        from gdn_aot.records.tuning import FORM

        self.file = file
        self.record: TuningRecord | None = None
        self.found: Examined | None = None
        self.error: GdnAotError | None = None
        try:
            data = read_regular(file, FORM.limit)
        except OSError as error:
            raise UsageError(f"{click.format_filename(file)} cannot be read: {error.strerror}") from error
        self.size, self.sha256 = len(data), hashlib.sha256(data).hexdigest()
        try:
            self.record = FORM.decode(data, f"the tuning record {click.format_filename(file)}")
        except VerificationError as error:
            self.error = error
            return
        self.found = examine(self.record, default_cache())
        if self.found.problems:
            what = f"the tuning record {click.format_filename(file)} cannot be contributed"
            self.error = VerificationError(what, self.found.problems, hint=_HINT)

    def document(self) -> dict[str, Any]:
        """Return what ``--json`` says."""
        document: dict[str, Any] = {
            "ok": self.error is None,
            "problems": problems_json(self.error.problems if self.error else ()),
            "path": str(self.file),
            "sha256": self.sha256,
            "size": self.size,
        }
        if self.record is not None and self.found is not None:
            document["record"] = {
                "target": self.record.target,
                "provider": self.record.provider.name,
                "version": self.record.provider.version,
                "triton": self.record.triton,
                "device": {"name": self.record.device.name, "driver": self.record.device.driver},
                "unasked": self.found.unasked,
                "other_traffic": self.found.other_traffic,
                "models": [
                    {"model": one.model, "tp": one.tp, "keys": one.keys, "missing": one.missing}
                    for one in self.found.models
                ],
            }
        return document

    def lines(self) -> list[str]:
        """Return what is said of a record that is sound."""
        from gdn_aot.records.contribution import summary

        assert self.record is not None  # noqa: S101 - it is sound
        assert self.found is not None  # noqa: S101
        said = [summary(self.record)]
        if self.found.unasked:
            return [*said, f"keys and candidates were not compared with the provider's: {self.found.unasked}"]
        whole = [f"{one.model} tp {one.tp}" for one in self.found.models if not one.missing]
        part = [one for one in self.found.models if one.missing]
        said.append(f"complete: {_listed(whole)}")
        if part:
            said.append(f"in part: {_listed([_lacks(one) for one in part])}")
        if self.found.other_traffic:
            said.append(
                f"{plural(self.found.other_traffic, 'key')} of other traffic than that of the catalogue's models"
            )
        return said

    def next_steps(self) -> list[str]:
        """Return how a sound record becomes a pull request, as commands, and what is in its place now."""
        from gdn_aot.records import contribution, tuning

        record = self.record
        assert record is not None  # noqa: S101 - it is sound
        said = record.provider
        place = tuning.record_path(RECORDS / "tuning", record.target, said.distribution, said.version)
        commands = [
            ("gh", "repo", "fork", "--remote"),
            ("git", "switch", "-c", f"record-{record.target}-{place.stem}"),
            ("install", "-D", "-m", "644", str(self.file.absolute()), place.as_posix()),
            ("git", "add", place.as_posix()),
            ("git", "commit", "-m", f"Tuning record: {contribution.summary(record)}"),
            ("gh", "pr", "create", "--fill"),
        ]
        lines = ["To contribute it, in a clone of the repository:", *(f"  {shlex.join(words)}" for words in commands)]
        with suppress(GdnAotError):
            there = tuning.load(place)
            if there is not None and there.device.name != record.device.name:
                lines.append(f"{place} is of another card, {there.device.name}: {PAGE} says which one stays")
        return lines


def verify(file: Path, *, as_json: bool) -> None:
    """Say whether a record may be contributed.

    Raises:
        VerificationError: It may not.
    """
    checked = Contribution(file)
    conclude(checked.document(), checked.error, as_json=as_json)
    if not as_json:
        out(f"{click.format_filename(file)}: ok, {checked.size} bytes, sha256 {checked.sha256}")
        for line in checked.lines():
            out(f"  {line}")


def submit(file: Path) -> dict[str, Any]:
    """Take paths of this machine out of a record that was just measured, check it, and say how to contribute it.

    Returns what ``--json`` has of it more.

    Raises:
        VerificationError: It may not be contributed.
    """
    from gdn_aot.records import contribution, tuning

    record = tuning.load(file)
    assert record is not None  # noqa: S101 - it was just written
    if (tidied := contribution.tidied(record)) != record:
        tuning.save(tidied, file)
    checked = Contribution(file)
    if checked.error is not None:
        raise checked.error
    for line in (*checked.lines(), *checked.next_steps()):
        note(line)
    return {"submission": checked.document()}


def _lacks(one: Covered) -> str:
    return f"{one.model} tp {one.tp} lacks {one.missing} of {one.keys} keys"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "no model"

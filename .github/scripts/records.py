"""Records of ``gdn-aot tune`` and ``gdn-aot check`` on their way from a machine with a GPU to a pull request.

    python .github/scripts/records.py collect artifacts records         # on the GPU machine: those new or changed
    python .github/scripts/records.py accept records artifacts body.md  # elsewhere: read, compare with place, write

``accept`` says in ``body.md``, in Markdown, what was measured on what. It takes files that are, byte for byte, the
record of their place; if anything else is among them, nothing is written (2).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import GdnAotError, UsageError
from gdn_aot.records import numerics, tuning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.records.files import RecordForm

_FORMS: dict[str, RecordForm[Any]] = {"tuning": tuning.FORM, "numerics": numerics.FORM}
_PLACE = re.compile(r"(tuning(?:/second|/proxy)?|numerics)/(sm_[0-9]{2,3})/([a-z0-9-]+)-([0-9][A-Za-z0-9.]*)\.json")
_LARGEST = 16 << 20
"""Bytes of a record; those that there are have less than 1 MiB."""


def collect(root: Path, into: Path) -> list[str]:
    """Copy the records below ``root``, a folder of a git checkout, that its commit does not have so; return them."""
    command = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard", "--", *_FORMS]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    names = sorted({name for name in listed if name and (root / name).is_file()})
    for name in names:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, into / name)
    return names


def accept(incoming: Path, root: Path) -> list[str]:
    """Write the records that are below ``incoming`` to their places below ``root``; return a line on each.

    Raises:
        UsageError: Something there is no record, or is not the record of its place. Nothing was written.
    """
    found = [_read(path, path.relative_to(incoming).as_posix()) for path in _files(incoming)]
    for place, record, _ in found:
        _FORMS[place.partition("/")[0]].save(record, root / place)
    return [line for _, _, line in found]


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise UsageError(f"{path.relative_to(folder)} is no plain file", hint="hand on records alone")
        if path.is_file():
            yield path


def _read(path: Path, place: str) -> tuple[str, Any, str]:
    """Return where a record belongs, the record, and a line on it."""
    named = _PLACE.fullmatch(place)
    if named is None or path.stat().st_size > _LARGEST:
        raise UsageError(f"{place[:120]!a} is not the place of a record", hint="hand on records alone")
    kind, target, distribution, version = named.groups()
    record = _FORMS[kind.partition("/")[0]].load(path, target=target, distribution=distribution, version=version)
    assert record is not None  # noqa: S101 - the file is there
    if bool(getattr(record, "proxy", None)) != kind.endswith("/proxy"):
        raise UsageError(f"{place} is by proxy, or not, against its place", hint="hand on records as tune wrote them")
    card = record.device
    ran = f"{_plain(card.name)}, driver {_plain(card.driver)}" if card is not None else "not run"
    return place, record, f"- `{place}`: {ran}, Triton {_plain(record.triton)}"


def _plain(text: str) -> str:
    """Return the words of a driver without what Markdown reads."""
    return re.sub(r"[^A-Za-z0-9 ._()-]", "?", text)[:80]


def main(argv: list[str]) -> int:
    """Do what the words say; return the exit code."""
    match argv:
        case ["collect", root, into]:
            lines = collect(Path(root), Path(into))
        case ["accept", incoming, root, body]:
            try:
                lines = accept(Path(incoming), Path(root))
            except GdnAotError as error:
                print(f"Error: {error.message}\nHint: {error.hint}", file=sys.stderr)
                return error.exit_code
            Path(body).write_text("".join(f"{line}\n" for line in lines))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

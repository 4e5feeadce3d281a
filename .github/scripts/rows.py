"""What a run of the workflow builds: rows of the matrix, for ``strategy.matrix``.

    EVENT=workflow_dispatch SELECT='fla*-sm_90' python .github/scripts/rows.py

Reads ``EVENT``, ``SELECT``, ``MATRIX`` and ``ONE_RECORD`` from the environment, since people write some of
them, and writes the outputs ``matrix`` and ``count`` to ``$GITHUB_OUTPUT``. Exit codes are those of ``gdn-aot matrix``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 256
"""Jobs that GitHub makes of one matrix at most."""
PULL_REQUEST = ("fla*-triton3.6.0-sm_90", "vllm0.24.0-*-sm_120", "sglang0.5.17-*-sm_90")
"""What a pull request builds, whatever it changes: a row of each provider. A tag builds all."""
_LONGEST = 500
"""Characters of an input."""
_GLOBS = re.compile(r"[A-Za-z0-9._*?!{},\[\]-]+( [A-Za-z0-9._*?!{},\[\]-]+)*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class Refused(Exception):  # noqa: N818 - an input that is refused
    """An input has characters that it cannot have."""


def arguments(given: Mapping[str, str]) -> list[str]:
    """Return the arguments of ``gdn-aot matrix`` for an event.

    Args:
        given: ``EVENT``, the name of GitHub; ``SELECT``, globs with spaces between; ``MATRIX``, a file of the checkout.

    Raises:
        Refused: One of them has other characters than it can have.
    """
    wanted = " ".join(given.get("SELECT", "").split())
    found = ["--matrix", _checked("MATRIX", given["MATRIX"], _FILE)] if given.get("MATRIX") else []
    for pattern in _checked("SELECT", wanted, _GLOBS).split() if wanted else []:
        found += ["--select", pattern]
    if given["EVENT"] == "pull_request":
        found += [part for pattern in PULL_REQUEST for part in ("--select", pattern)]
    return found


def outputs(document: str, *, one_record: bool = False) -> str:
    """Return the lines for ``$GITHUB_OUTPUT`` from what ``gdn-aot matrix --json`` printed.

    Args:
        document: That.
        one_record: Refuse rows that have one tuning record: a record is of one target, one version of the provider and
            one of Triton, and its file is named after the first two.

    Raises:
        Refused: There are more rows than GitHub makes jobs, or two of one record.
    """
    rows = json.loads(document)["include"]
    records: dict[tuple[str, ...], str] = {}
    for row in rows if one_record else ():
        place = (row["arch"], row["provider"], row["provider_version"])
        other = records.setdefault(place, row["identifier"])
        if other != row["identifier"]:
            raise Refused(f"{other} and {row['identifier']} have one tuning record: narrow `select` to one of them")
    if len(rows) > MOST:
        raise Refused(f"{len(rows)} artifacts are selected, and GitHub makes at most {MOST} jobs: narrow `select`")
    return f"matrix={json.dumps({'include': rows}, separators=(',', ':'))}\ncount={len(rows)}\n"


def _checked(name: str, value: str, form: re.Pattern[str]) -> str:
    if not form.fullmatch(value) or len(value) > _LONGEST:
        raise Refused(f"{name} cannot be {value[:80]!a}: it has to match {form.pattern}")
    return value


def main() -> int:
    """Write the outputs; return the exit code."""
    try:
        command = [sys.executable, "-m", "gdn_aot", "matrix", "--json", *arguments(os.environ)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            return done.returncode
        text = outputs(done.stdout, one_record=os.environ.get("ONE_RECORD") == "true")
    except Refused as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    with Path(os.environ["GITHUB_OUTPUT"]).open("a") as file:
        file.write(text)
    for row in json.loads(done.stdout)["include"]:
        print(row["identifier"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The card of a registry, ``README.md``: made from the index alone, so the same index gives the same bytes.

What manifests say is foreign text: in YAML it stands in quotes, in Markdown every character that could mean something
is written as an entity.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import astuple

from gdn_aot.registry.layout import BRANCH, REPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gdn_aot.registry.layout import Entry, RegistryIndex

LIBRARY = "gdn-aot"
"""The library of the card's metadata."""

_LICENSES = frozenset((
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "mpl-2.0", "lgpl-2.1",
    "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "cc0-1.0", "epl-1.0", "epl-2.0", "eupl-1.1", "artistic-2.0",
    "bsl-1.0", "ncsa", "ofl-1.1", "osl-3.0", "postgresql", "unlicense", "wtfpl", "zlib",
))  # fmt: skip
"""Licences that the Hub knows by their SPDX name in lower case: https://huggingface.co/docs/hub/repositories-licenses."""
_INTRODUCTION = f"""\
Compiled Triton kernels and the configurations chosen for them: one artifact for each GPU architecture, version of the
package that the kernels are from, and version of Triton. [gdn-aot](https://pypi.org/project/gdn-aot/) fetches them and
serves them to Triton, so that nothing is compiled and nothing is benchmarked when a model starts.
The files are on branch `{BRANCH}`. This card is generated: `gdn-aot publish` writes it anew."""
_PROVENANCE = """\
A choice is the configuration shipped for one size of a kernel's call: *measured* on this architecture, by
*proxy*, with this architecture's code on a card of another, *transferred* from a measurement for another, or *default*,
the first of the provider's own that fits. *Not covered* counts kernels that Triton compiles itself for some calls.
*Numerics* says whether results were compared with float64 on a GPU."""
_REPORT = "What each kernel runs, why, and how fast the other candidates were: "
"""What the line with the link to the page begins with."""
_LONGEST = 120
"""Characters of a foreign text in a table."""


def render(index: RegistryIndex, registry: str, *, report: bool = False) -> bytes:
    """Return the card of what the moving branch has. A registry's path is not shown: it is of the machine.

    Args:
        index: Of the moving branch.
        registry: As messages name it.
        report: The branch has a `REPORT`, which the card links to.
    """
    repo = registry if registry.startswith("hf://") else "./kernels"
    parts = [
        _metadata(index.entries),
        "# Gated Delta Net kernels, compiled ahead of time",
        _INTRODUCTION,
        _dirty(index.entries),
        _report(registry) if report else "",
        "## Artifacts",
        _artifacts(index.entries),
        "## Models",
        _models(index.entries),
        "## Provenance",
        _PROVENANCE,
        _provenance(index.entries),
        "## How to use",
        _use(index.entries, repo),
        "## Licences",
        _licenses(index.entries),
    ]
    return ("\n\n".join(filter(None, parts)) + "\n").encode()


def has_report(card: bytes | None) -> bool:
    """Say whether there is a card, and it links to a page."""
    return f"\n{_REPORT}".encode() in (card or b"")


def _report(registry: str) -> str:
    """Return the line with the link. The Hub shows no HTML, so what it links to there is to be downloaded."""
    name, _, _ = registry.removeprefix("hf://").partition("@")
    hub = registry.startswith("hf://")
    link = f"https://huggingface.co/{name}/resolve/{BRANCH}/{REPORT}?download=true" if hub else REPORT
    return f"{_REPORT}[{REPORT}]({link}), a page that loads nothing and is opened from the disk."


def _metadata(entries: Sequence[Entry]) -> str:
    targets = sorted({entry.target for entry in entries}, key=_target_order)
    lines = ["---", f"library_name: {LIBRARY}", *_license_lines({entry.license for entry in entries}), "tags:"]
    tags = ["triton", "gated-deltanet", "kernel-cache", *sorted({entry.provider for entry in entries}), *targets]
    lines += [f"- {_quoted(tag)}" for tag in tags]
    return "\n".join([*lines, "---"])


def _license_lines(licenses: set[str]) -> list[str]:
    known = {text.lower() for text in licenses}
    if not known:
        return []
    only = next(iter(known))
    if len(known) == 1 and only in _LICENSES:
        return [f"license: {only}"]
    name = "-and-".join(sorted(known))
    slug = re.sub(r"[^a-z0-9.]+", "-", name).strip("-.")[:_LONGEST] or "unknown"
    return ["license: other", f"license_name: {_quoted(slug)}"]


def _dirty(entries: Iterable[Entry]) -> str:
    dirty = [f"`{entry.identifier}`" for entry in entries if entry.dirty]
    if not dirty:
        return ""
    return f"> **Warning:** built from a checkout with uncommitted changes: {', '.join(dirty)}."


def _artifacts(entries: Iterable[Entry]) -> str:
    headers = ("Target", "Provider", "Version", "Triton", "ptxas", "Models", "Mode", "Tokens", "MB", "Identifier")
    rows = [
        (
            entry.target,
            _text(entry.provider),
            f"{_text(entry.distribution)} {_text(entry.version)}",
            _text(entry.triton),
            _text(entry.ptxas),
            str(len({model.name for model in entry.models})),
            entry.mode,
            str(entry.max_tokens),
            f"{entry.size / 1e6:.2f}",
            f"`{entry.identifier}`",
        )
        for entry in sorted(entries, key=_entry_order)
    ]
    return _table(headers, rows)


def _models(entries: Sequence[Entry]) -> str:
    """Say which artifact has which model; most have the same ones."""
    has: dict[tuple[str, str, int], set[str]] = {}
    for entry in entries:
        for model in entry.models:
            has.setdefault((model.name, model.dtype, model.tp), set()).add(entry.identifier)
    groups: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
    for (name, dtype, tp), identifiers in sorted(has.items()):
        groups.setdefault((name, dtype, tuple(sorted(identifiers))), []).append(tp)
    rows = []
    for (name, dtype, where), sizes in groups.items():
        shown = "all" if len(where) == len(entries) else ", ".join(f"`{identifier}`" for identifier in where)
        rows.append((_text(name), _text(dtype), ", ".join(map(str, sizes)), shown))
    return _table(("Model", "Type", "Tensor parallel", "In"), rows)


def _provenance(entries: Iterable[Entry]) -> str:
    headers = (
        "Identifier", "Kernels", "Binaries", "Measured", "Proxy", "Transferred", "Default", "Not covered", "Numerics",
    )  # fmt: skip
    rows = []
    for entry in entries:
        detail = f": {_text(entry.numerics.detail)}" if entry.numerics.detail else ""
        built = f"{_text(entry.tool)}{f' at `{entry.commit[:12]}`' if entry.commit else ''}{', dirty' * entry.dirty}"
        counts = (entry.kernels, entry.binaries, *astuple(entry.choices), entry.not_covered)
        rows.append((f"`{entry.identifier}`", *map(str, counts), _text(entry.numerics.status) + detail, built))
    return _table((*headers, "Built by"), rows)


def _use(entries: Sequence[Entry], repo: str) -> str:
    target = min(entries, key=_entry_order).target if entries else "sm_90"
    return f"""In an image or at container start; with `--arch` this needs no GPU:

```sh
pip install gdn-aot
gdn-aot fetch --repo {repo} --arch {target}
```

In the process that serves, before the model is loaded:

```python
import gdn_aot

gdn_aot.install()
```

`gdn-aot doctor` says whether everything fits together. Add `--revision` with a tag to stay with one release."""


def _licenses(entries: Iterable[Entry]) -> str:
    distributions: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        distributions.setdefault((entry.distribution, entry.license), set()).add(entry.version)
    intro = (
        "A compiled kernel is derived from the package it was compiled from, and has its licence. Each artifact carries"
    )
    rows = [
        (_text(distribution), ", ".join(_text(version) for version in sorted(known)), _text(license_))
        for (distribution, license_), known in sorted(distributions.items())
    ]
    return f"{intro} the text.\n\n{_table(('Package', 'Versions', 'Licence (SPDX)'), rows)}"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Return foreign text that says nothing to Markdown or HTML: letters, digits and a few signs stay."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    escaped = "".join(
        letter if letter.isalnum() or letter in " .,-+" or _is_inner(text, place) else f"&#{ord(letter)};"
        for place, letter in enumerate(text)
    )
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", escaped) or "-"  # else an address becomes a link


def _is_inner(text: str, place: int) -> bool:
    """Say whether there is an underscore inside a word, which means nothing."""
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return text[place] == "_" and len(around) == 2 and around.isalnum()  # noqa: PLR2004


def _quoted(text: str) -> str:
    """Return a YAML scalar, odd characters escaped."""
    plain = (letter if " " <= letter <= "~" and letter not in '"\\' else f"\\U{ord(letter):08x}" for letter in text)
    return f'"{"".join(plain)}"'


def _target_order(name: str) -> tuple[int, str]:
    digits = name.removeprefix("sm_")
    return (int(digits) if digits.isdigit() else 0, name)


def _entry_order(entry: Entry) -> tuple[tuple[int, str], str]:
    return _target_order(entry.target), entry.identifier

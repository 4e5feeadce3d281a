"""The page as one file: what is written here, and what its script and its plotting library draw when it is asked."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot._version import __version__
from gdn_aot.artifact.verify import Artifact
from gdn_aot.errors import UsageError
from gdn_aot.records.numerics import NumericsRecord
from gdn_aot.records.tuning import TuningRecord
from gdn_aot.reporting import artifacts, compare, records
from gdn_aot.reporting.html import Html, e, unique
from gdn_aot.reporting.inputs import read_all
from gdn_aot.reporting.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gdn_aot.reporting.artifacts import Places
    from gdn_aot.reporting.inputs import Named

_ASSETS = Path(__file__).with_name("assets")
_EXPORTED = "window.vegaEmbed = vegaEmbed;"
"""What the bundle of the library leaves for the page's script."""
_MOST_LINKS = 12
_HINT = "pip install 'gdn-aot[report]'"


def report(paths: Sequence[Path], places: Places, *, comparing: bool = False, say: Callable[[str], None]) -> str:
    """Return the page of some files; the same one for the same files, records and versions.

    Args:
        paths: Artifacts and records, in any mixture.
        places: Where the records lie that artifacts' choices and checks are looked up in.
        comparing: Say what changed from the first of two files to the second.
        say: Called with a sentence about records that were not found, which the page begins with.

    Raises:
        UsageError: A file cannot be read, a record is refused, two files cannot be compared, or the plotting library is
            missing.
        VerificationError: A file is no sound artifact.
    """
    plotting = _plotting()
    inputs = read_all(paths)
    pool = Pool()
    changed = [("compare", "What changed", compare.section(inputs, pool, places))] if comparing else []
    sections = [*changed, *_sections(inputs, pool, places, comparing=comparing)]
    manifests = [one.held.manifest for one in inputs if isinstance(one.held, Artifact)]
    if untimed := artifacts.without_times(manifests, places):
        say(untimed)
        sections.insert(0, ("", "", e("p", untimed, class_="warning")))
    return _document(_title(inputs, comparing=comparing), sections, pool, plotting)


@functools.cache
def _plotting() -> tuple[str, str]:
    """Return the plotting library, as one script, and what it is.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        what = f"the plots of a report need vl-convert-python, which cannot be imported here: {error}"
        raise UsageError(what, hint=_HINT) from error
    script = vl_convert.javascript_bundle(_EXPORTED).replace("</script", "<\\/script").replace("<!--", "<\\!--")
    lite = vl_convert.get_vegalite_versions()[-1]
    return script, f"Vega {vl_convert.get_vega_version()} and Vega-Lite {lite}"


def _sections(inputs: Sequence[Named], pool: Pool, places: Places, *, comparing: bool) -> list[tuple[str, str, Html]]:
    """Return the id, name and content of each part of the page."""
    names = [_name(one) for one in inputs]
    titles = [f"{side}: {name}" for side, name in zip("AB", names, strict=True)] if comparing else unique(names)
    opened = [(one.held, title) for one, title in zip(inputs, titles, strict=True) if isinstance(one.held, Artifact)]
    found: list[tuple[str, str, Html]] = []
    if opened:
        shown = artifacts.overview(*zip(*opened, strict=True))
        found.append(("overview", "Artifacts", _part("overview", "Artifacts", shown)))
        shown = artifacts.provenance([artifact.manifest for artifact, _ in opened])
        found.append(("provenance", "Provenance", _part("provenance", "Where choices come from", shown)))
    alone = len(inputs) == 1 and not comparing
    for number, (artifact, title) in enumerate(opened):
        made = artifacts.section(artifact, title, number, pool, places, alone=alone)
        found.append((f"artifact-{number}", title, made))
    for number, (named, title) in enumerate(zip(inputs, titles, strict=True)):
        held = named.held
        if isinstance(held, TuningRecord):
            found.append((f"record-{number}", title, records.tuning(held, title, number, pool)))
        elif isinstance(held, NumericsRecord):
            found.append((f"record-{number}", title, records.numerics(held, title, number, pool)))
    return found


def _part(name: str, title: str, content: Html) -> Html:
    return e("section", e("h2", title, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title")


def _title(inputs: Sequence[Named], *, comparing: bool) -> str:
    names = [_name(one) for one in inputs]
    if comparing:
        return f"{names[0]} and {names[1]} compared"
    return names[0] if len(names) == 1 else f"{plural(len(names), 'file')} of compiled kernels and measurements"


def _name(one: Named) -> str:
    held = one.held
    if isinstance(held, Artifact):
        return held.manifest.identifier
    return records.tuning_title(held) if isinstance(held, TuningRecord) else records.numerics_title(held)


def _document(title: str, sections: Sequence[tuple[str, str, Html]], pool: Pool, plotting: tuple[str, str]) -> str:
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    library, versions = plotting
    allowed = f"script-src {_digest(script)} {_digest(library)}; style-src {_digest(style)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    head = e("head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        e("title", f"{title} - gdn-aot report"),
        Html(f"<style>{style}</style>"),
    )  # fmt: skip
    named = [one for one in sections if one[0]]
    named = named if len(named) <= _MOST_LINKS else named[:2]  # the table of the set links to each
    links = [e("li", e("a", name, href=f"#{place}")) for place, name, _ in named]
    body = e("body",
        e("a", "Skip to the content", href="#content", class_="skip"),
        e("header", e("h1", title), e("nav", e("ul", links), aria_label="Parts of this page")),
        e("main", e("noscript", e("p", "Keys and plots need JavaScript; tables of each kernel's totals do not.")),
          [content for _, _, content in sections], id="content", tabindex=-1),
        _footer(versions),
        Html(f'<script type="application/json" id="data">{pool.document()}</script>'),
        Html(f'<script type="text/plain" id="plotting">{library}</script>'),
        Html(f"<script>{script}</script>"),
    )  # fmt: skip
    return f"<!doctype html>\n{e('html', head, body, lang='en')}\n"


def _footer(versions: str) -> Html:
    said = e("p", f"Made by gdn-aot {__version__}. Plots by {versions}. This file loads nothing.")
    licences = e("details", e("summary", "Licences of the libraries in this file"), e("pre", _asset("licences.txt")))
    return e("footer", said, licences)


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

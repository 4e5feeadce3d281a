"""HTML, written element by element: every text in it is escaped, so that nothing of a file becomes markup."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Html(str):
    """Markup that is ours: it is put in as it is, where any other text is escaped."""

    __slots__ = ()


Content: TypeAlias = "str | int | Iterable[Content] | None"


def e(name: str, *content: Content, **attributes: str | int | bool | None) -> Html:
    """Return an element.

    Args:
        name: As ``td``.
        content: Texts, `Html`, or lists of both; None is nothing.
        attributes: Their names with ``_`` for ``-``, and one at the end where the name is Python's. True has no value,
            False and None are left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            word = key.rstrip("_").replace("_", "-")
            words.append(word if value is True else f'{word}="{escape(str(value))}"')
    return Html(f"<{' '.join(words)}>{joined(content)}</{name}>")


def joined(content: Content) -> Html:
    """Return contents one after the other."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, (str, int)):
        return Html(escape(str(content)))
    return Html("".join(map(joined, content)))


def escape(text: str) -> str:
    """Return text that is neither markup nor the end of an attribute; what no document may hold is replaced."""
    clean = "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
    return html.escape(clean, quote=True)


def table(
    caption: str,
    headers: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    *,
    numeric: Sequence[int] = (),
    fits: bool = False,
) -> Html:
    """Return a table that scrolls by itself where it is too wide. The first column names the rows.

    Args:
        caption: What it is of; for those who cannot see what is around it too.
        headers: Of the columns.
        rows: Each as long as ``headers``.
        numeric: Places of the columns that hold numbers.
        fits: It has so few columns that words may be broken to fit it on a narrow screen.
    """
    aligned = ["n" if place in numeric else None for place in range(len(headers))]
    head = e("tr", [e("th", text, scope="col", class_=kind) for text, kind in zip(headers, aligned, strict=True)])
    body = [
        e("tr", e("th", row[0], scope="row"), [
            e("td", cell, class_=kind) for cell, kind in zip(row[1:], aligned[1:], strict=True)
        ])
        for row in rows
    ]  # fmt: skip
    inner = e("table", e("caption", caption), e("thead", head), e("tbody", body))
    return e("div", inner, class_="scroll fits" if fits else "scroll", role="group", aria_label=caption)


def facts(rows: Iterable[tuple[str, Content]]) -> Html:
    """Return names with what they are; those that are nothing are left out."""
    return e("dl", [e("div", e("dt", name), e("dd", value)) for name, value in rows if value not in ("", None)])


def unique(names: Sequence[str]) -> list[str]:
    """Return names of which each is one thing's alone: those of one name get a number."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]

"""What a page of ``gdn-aot report`` holds, read with the standard library's parser."""

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from helpers import ROOT

RECORDS = ROOT / "artifacts"
PLACES = ("--tuning", RECORDS / "tuning", "--numerics", RECORDS / "numerics")
PROXIES = [RECORDS / "tuning" / "proxy" / target / "fla-core-0.6.0.json" for target in ("sm_80", "sm_86")]
HOSTILE = "</script><script>window.taken=1</script><img src=x onerror=window.taken=1>\"'&<!--\u2028]]>"
"""Markup, where a text is wanted."""
_VOID = ("meta",)


class Page(HTMLParser):
    """The elements of a page, and the text in each."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        inner: list[str] = []
        self.elements.append((tag, dict(attrs), inner))
        if tag not in _VOID:
            self._open.append((tag, inner))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag

    def handle_data(self, data: str) -> None:
        for _, inner in self._open:
            inner.append(data)

    def texts(self, tag: str) -> list[str]:
        """The text of each element of a kind."""
        return ["".join(inner) for name, _, inner in self.elements if name == tag]

    @property
    def policy(self) -> dict[str, list[str]]:
        """The page's policy, by directive."""
        (content,) = (attrs["content"] for _, attrs, _ in self.elements if "http-equiv" in attrs)
        assert content is not None
        return {words[0]: words[1:] for words in map(str.split, content.split(";"))}

    @property
    def data(self) -> dict[str, Any]:
        """What the script draws."""
        (found,) = ("".join(inner) for _, attrs, inner in self.elements if attrs.get("id") == "data")
        document: dict[str, Any] = json.loads(found)
        return document

    def script(self, kind: str | None) -> list[str]:
        """The text of scripts of a type."""
        return [
            "".join(inner) for name, attrs, inner in self.elements if name == "script" and attrs.get("type") == kind
        ]


def digest(text: str) -> str:
    """A text as a policy allows it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

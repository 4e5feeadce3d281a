"""Lets pages link to any file of the repository: what they link to is put into the site beside the pages.

On GitHub such a link leads to the file itself. Both ways readers see the state that the page was written for.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
_DOCS, _OTHERS = "docs/", "repository/"
_LINK = re.compile(r"(?<=\]\()[^()\s#:]+(?=[)#])")
"""The path of a relative link. It may stand in a block of code too, where it does no harm."""
_AS_THEY_ARE = {".md", ".json", ".svg"}
"""What browsers show; of other files a page is made."""


def _resolved(link: str, page: str) -> str:
    """Return the path in the repository that a page, by its own path there, links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _in_site(path: str) -> str | None:
    """Return the source of the site for a path of the repository, or None if nothing is there."""
    place = ROOT / path
    if path.startswith("..") or not place.exists():
        return None
    if place.is_dir():
        path += "/README.md" if (place / "README.md").is_file() else "/index.md"
    elif place.suffix not in _AS_THEY_ARE:
        path += ".md"
    shown = "/".join(part.lstrip(".") for part in path.split("/"))  # hosts leave out what is hidden
    return path.removeprefix(_DOCS) if path.startswith(_DOCS) else _OTHERS + shown


def _file(config: MkDocsConfig, path: str, source: str) -> File:
    place, level = ROOT / path, InclusionLevel.NOT_IN_NAV
    if place.is_dir() and (place / "README.md").is_file():
        path, place = f"{path}/README.md", place / "README.md"
    if place.is_dir():
        names = sorted(str(found.relative_to(place)) for found in place.rglob("*") if found.is_file())
        content = "".join([f"# `{path}`\n\n", *(f"- [{name}]({name})\n" for name in names)])
    elif place.suffix in _AS_THEY_ARE:
        file = File.generated(config, source, abs_src_path=str(place), inclusion=level)
        file.repository_path = path
        return file
    else:
        fence = "~" * 8
        content = f"# `{path}`\n\n{fence}{{.{_language(place)}}}\n{place.read_text(encoding='utf-8')}\n{fence}\n"
    file = File.generated(config, source, content=content, inclusion=level)
    file.repository_path = f"{path}/index.md" if place.is_dir() else path
    return file


def _language(place: Path) -> str:
    if "Dockerfile" in place.name:
        return "docker"
    return {".py": "python", ".yml": "yaml", ".sh": "bash"}.get(place.suffix, place.suffix.lstrip(".") or "text")


def _path(file: File) -> str:
    return getattr(file, "repository_path", _DOCS + file.src_uri)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that a pattern of ``nav`` names in its place."""
    docs = Path(config.docs_dir)

    def filled(entry: object) -> list[object]:
        if isinstance(entry, dict):
            return [{name: filled(inner) if isinstance(inner, list) else inner for name, inner in entry.items()}]
        if isinstance(entry, list):
            return [one for inner in entry for one in filled(inner)]
        if isinstance(entry, str) and "*" in entry:
            return sorted(str(found.relative_to(docs)) for found in docs.glob(entry))
        return [entry]

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside the documents that a page links to, and what those link to in turn."""
    waiting = [file for file in files.documentation_pages() if not file.inclusion.is_excluded()]
    while waiting:
        file = waiting.pop()
        for link in _LINK.findall(file.content_string):
            path = _resolved(link, _path(file))
            source = _in_site(path)
            if source and source.startswith(_OTHERS) and not files.get_file_from_path(source):
                files.append(added := _file(config, path, source))
                waiting += [added] if added.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links that lead from or to a file outside the documents."""
    del config

    def there(match: re.Match[str]) -> str:
        source = _in_site(_resolved(match[0], _path(page.file)))
        if source is None or not files.get_file_from_path(source):
            return match[0]
        return posixpath.relpath(source, posixpath.dirname(page.file.src_uri))

    return _LINK.sub(there, markdown)

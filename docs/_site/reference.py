"""Writes the parts of the reference that follow from the code: `<!-- command line -->` and `<!-- exit codes -->`."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click

from gdn_aot import errors
from gdn_aot.cli.main import GROUPS, cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LITERAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, also in a table."""
    return _LITERAL.sub(r"\\\1", " ".join(text.split())).replace(r"\|", "&#124;").replace(r"\<", "&lt;")


def _prose(help_text: str) -> Iterator[str]:
    r"""Yield the paragraphs of a help text; one after a line of \b keeps its lines."""
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield f"```\n{paragraph.lstrip(chr(8)).strip(chr(10))}\n```"
        else:
            yield _plain(paragraph)


def _command(command: click.Command, parent: click.Context, depth: int) -> Iterator[str]:
    """Yield the blocks of a command and of those below it."""
    context = type(command).context_class(command, info_name=command.name, parent=parent)
    yield f"{'#' * depth} {context.command_path}"
    yield from _prose(command.help or "")
    yield f"```\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```"
    records = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [f"| `{names}` | {_plain(text)} |" for names, text in filter(None, records)]
    yield "\n".join(["| option | what |", "|---|---|", *rows])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _command(below, context, depth + 1)


def command_line() -> str:
    """Return every command with its options, by what it is for."""
    with click.Context(cli, info_name="gdn-aot", **cli.context_settings) as root:
        blocks = []
        for title, lines in GROUPS.items():
            blocks.append(f"## {title}")
            for name in lines:
                command = cli.get_command(root, name)
                if command is None:
                    raise LookupError(f"no module of gdn_aot.cli has the command {name}")
                blocks += _command(command, root, 3)
    return "\n\n".join(blocks)


def exit_codes() -> str:
    """Return the table of errors, by exit code and in the order of the module."""
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    rows = [
        f"| {kind.exit_code} | `{kind.code}` | {_plain(inspect.cleandoc(kind.__doc__ or ''))} "
        f"| {_plain(kind.default_hint)} | `{kind.__name__}` |"
        for kind in sorted(found, key=lambda kind: kind.exit_code)
    ]
    return "\n".join(["| exit code | `code` | what happened | hint | class |", "|---|---|---|---|---|", *rows])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what the page asks for; a page without headings has no table of contents, but room for a table."""
    del config, files
    for marker, made in (("<!-- command line -->", command_line), ("<!-- exit codes -->", exit_codes)):
        if marker in markdown:
            markdown = markdown.replace(marker, made())
    if "\n## " not in markdown:
        page.meta.setdefault("hide", ["toc"])
    return markdown

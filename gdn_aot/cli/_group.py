"""A group of commands that suggests one for a name that it does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gdn_aot._text import nearest

if TYPE_CHECKING:
    from collections.abc import Collection


class SuggestingGroup(click.Group):
    """A group that suggests a command for one that it does not have."""

    def names(self) -> Collection[str]:
        """Return the names of its commands, as messages list them."""
        return self.commands

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; an unknown one gets a suggestion."""
        name, known = args[0] if args else "", self.names()
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            near = nearest(name, known)
            what = f" Did you mean {near!r}?" if near else f" Commands are {', '.join(known)}."
            raise click.UsageError(f"No such command {name!r}.{what}", ctx)
        return super().resolve_command(ctx, args)

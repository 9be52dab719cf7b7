"""How the commands' help looks: every command with its whole first line, options under headings."""

from __future__ import annotations

from typing import Any

import typer
import typer.core


class CommandsInFull(typer.core.TyperGroup):
    """The commands, each with the whole first line of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in the order that they are declared in."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, (command.help or "").partition("\n")[0]) for name, command in self.commands.items()]
            )


class GroupedHelp(typer.core.TyperCommand):
    """A command whose options stand in its help under headings, each as wide as they need to be."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options heading by heading, in the order that they are declared in."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def option(heading: str, text: str, default: str = "", *names: str, metavar: str | None = None) -> Any:
    """Return an option that stands under a heading, with its default told in few words."""
    shown = f"{text} [{default}]" if default else text
    return typer.Option(*names, help=shown, show_default=False, metavar=metavar, rich_help_panel=heading or None)

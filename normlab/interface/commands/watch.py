"""`normlab watch`."""

from typing import Annotated

import typer

from normlab.interface.commands import AnyFolder, Panel

PANEL = Panel.MAKE


def command(
    folder: AnyFolder,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
) -> None:
    """Show a sweep while it runs, from any terminal, until all runs are finished."""
    from rich.console import Console

    from normlab.interface.watch import watch

    watch(folder, Console(), once)

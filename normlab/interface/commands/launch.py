"""`normlab launch`."""

from typing import Annotated

import typer

from normlab.interface.commands import Panel

PANEL = Panel.MAKE

CONTEXT = {"allow_interspersed_args": False}
"""The words after the command's name are that command's, its options too."""


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            help="A command of normlab, such as run FILE.", metavar="COMMAND", show_default=False
        ),
    ],
    processes: Annotated[
        int, typer.Option("--processes", "-n", min=1, help="Start so many.", metavar="N")
    ],
) -> None:
    """Start several processes on this machine that make each run together."""
    from normlab.interface.launching import launch

    raise typer.Exit(launch(words, processes))

"""`normlab family`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.interface.commands import Panel

PANEL = Panel.LOOK_UP


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A normaliser, to show what came from it.",
            metavar="NAME",
            show_default="all of them",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The .svg to draw the whole family in.", metavar="FILE", show_default="none"
        ),
    ] = None,
) -> None:
    """Show which normaliser came from which, as text and as a picture."""
    from normlab.errors import UserError
    from normlab.interface.lineage import picture, tree

    print(tree(name))
    if out is None:
        return
    if out.suffix != ".svg":
        raise UserError(f"--out is the name of an .svg, found '{out}'")
    try:
        out.write_text(picture(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    print(f"\ndrawn in {out}")

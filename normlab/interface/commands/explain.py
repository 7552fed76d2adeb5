"""The command `explain`. Heavy imports stand inside it."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.errors import UserError

app = typer.Typer()


@app.command()
def explain(
    what: Annotated[
        str | None,
        typer.Argument(help="A YAML experiment, or a normaliser's name.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes: norm.groups=4; of a name, groups=4.", show_default=False),
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help="A library: what its layer of that name is.")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two libraries: how their layers differ.", metavar="ONE OTHER"),
    ] = None,
) -> None:
    """Say what normalisation a config does, arm by arm; or how libraries' layers differ."""
    from rich.console import Console

    from normlab.interface.explain import explain_difference, explain_file, explain_norm, show

    console = Console()
    if diff is not None:
        if overrides or dialect:
            raise UserError("--diff takes two libraries and at most a normaliser's name")
        show(console, explain_difference(*diff, what), closing=None)
        return
    if what is None:
        raise UserError(
            "say what: a config, a normaliser's name, or two libraries as in --diff torch flax"
        )
    if what.endswith((".yaml", ".yml")):
        if dialect is not None:
            raise UserError("a config says its own dialect: norm.dialect=torch overrides it")
        show(console, explain_file(Path(what), overrides or ()))
    else:
        show(console, explain_norm(what, dialect, overrides or ()))

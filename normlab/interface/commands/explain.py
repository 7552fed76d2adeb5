"""`normlab explain`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.errors import UserError
from normlab.interface.commands import Panel, Trust

PANEL = Panel.LOOK_UP


def command(
    what: Annotated[
        str | None,
        typer.Argument(
            help="An experiment in YAML, or the name of a normaliser.",
            metavar="FILE|NAME",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Other values: norm.groups=4 for a file, groups=4 for a name.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            help="Explain this library's layer of that name.",
            metavar="LIBRARY",
            show_default="normlab's own",
        ),
    ] = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Tell how the layers of two libraries differ.",
            metavar="ONE OTHER",
            show_default=False,
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Explain what the normalisers of a config compute, or how two libraries' layers differ."""
    from rich.console import Console

    from normlab.interface.explain import (
        explain_difference,
        explain_experiment,
        explain_norm,
        show,
    )
    from normlab.interface.trusting import admit_name, load_trusted

    console = Console()
    if diff is not None:
        if overrides or dialect:
            raise UserError("--diff takes two libraries and at most the name of a normaliser")
        show(console, explain_difference(*diff, what), closing=None)
        return
    if what is None:
        raise UserError(
            "there is nothing to explain: give a config, the name of a normaliser, or two "
            "libraries as in --diff torch flax"
        )
    if what.endswith((".yaml", ".yml")):
        if dialect is not None:
            raise UserError("a config names its own dialect; norm.dialect=torch overrides it")
        experiment = load_trusted(Path(what), tuple(overrides or ()), trust)
        show(console, explain_experiment(experiment))
    else:
        admit_name(what, trust)
        show(console, explain_norm(what, dialect, overrides or ()))

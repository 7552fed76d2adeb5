"""`normlab plot`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.errors import UserError
from normlab.interface.commands import (
    Baseline,
    ExperimentFolder,
    MeasureText,
    Panel,
)
from normlab.measures.measures import USUAL_MEASURE

PANEL = Panel.READ


def command(
    path: ExperimentFolder,
    kind: Annotated[
        str,
        typer.Argument(
            help="differences, curves, values, price, heat, over, beside, profile or probes.",
            metavar="KIND",
            show_default=False,
        ),
    ],
    baseline: Baseline = None,
    measure: MeasureText = USUAL_MEASURE,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The .svg, .png or .pdf to write.",
            metavar="FILE",
            show_default="KIND.svg in the folder",
        ),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            help="With probes: the probe to draw.", metavar="NAME", show_default="the first"
        ),
    ] = None,
    quantity: Annotated[
        str | None,
        typer.Option(
            help="With probes: the one quantity to draw, large.",
            metavar="NAME",
            show_default="several",
        ),
    ] = None,
) -> None:
    """Draw one picture of the report into a file of its own."""
    from normlab.interface.reporting import draw

    options = {"probe": probe, "quantity": quantity}
    given = {name: value for name, value in options.items() if value is not None}
    if given and kind != "probes":
        raise UserError(f"--{next(iter(given))} is for `normlab plot FOLDER probes` alone")
    print(draw(path, kind, baseline, measure, out or path / f"{kind}.svg", **given))

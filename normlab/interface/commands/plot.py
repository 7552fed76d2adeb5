"""`normlab plot`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.errors import UserError
from normlab.interface.commands import Baseline, ExperimentFolder, MeasureText, Panel
from normlab.measures.measures import USUAL_MEASURE
from normlab.store.bundles import place_for

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
    width: Annotated[
        str | None,
        typer.Option(
            help="The width, such as 3.25 (inches), 84mm or 8.4cm.",
            metavar="WIDTH",
            show_default="6.6 inches",
        ),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(
            help="Sizes of text and lines: paper or talk.",
            metavar="STYLE",
            show_default="a report's",
        ),
    ] = None,
) -> None:
    """Draw one picture of the report into a file of its own."""
    from normlab.interface.reporting import draw

    options = {"probe": probe, "quantity": quantity}
    given = {name: value for name, value in options.items() if value is not None}
    if given and kind != "probes":
        raise UserError(f"--{next(iter(given))} is for `normlab plot FOLDER probes` alone")
    file = out or place_for(path, f"{kind}.svg")
    print(draw(path, kind, baseline, measure, file, width, style, **given))

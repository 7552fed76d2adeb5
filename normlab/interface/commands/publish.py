"""`normlab publish`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.interface.commands import Baseline, ExperimentFolder, Panel

PANEL = Panel.SHARE


def command(
    path: ExperimentFolder,
    folder: Annotated[
        Path,
        typer.Argument(
            help="The folder to write, which is to be committed.",
            metavar="RESULTS",
            show_default=False,
        ),
    ],
    baseline: Baseline = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="The measure to compare.",
            metavar="MEASURE",
            show_default="the one that most claims use",
        ),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            help="A picture of `normlab plot`.", metavar="KIND", show_default="as suits the sweep"
        ),
    ] = None,
) -> None:
    """Write an experiment small enough to commit: a page, a picture, its numbers and their origin.

    All runs must be finished.
    """
    from normlab.reports.publishing import publish
    from normlab.store.loading import load_runs

    print(publish(load_runs(path), folder, baseline=baseline, measure=measure, figure=figure))

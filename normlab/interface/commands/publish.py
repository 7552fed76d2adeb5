"""The commands about results that others are to see: `publish`, `agree`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

DISAGREES = 1
"""The exit status of `agree` where anything differs."""


@app.command()
def publish(
    path: Annotated[Path, typer.Argument(help="An experiment's folder, its runs finished.")],
    folder: Annotated[Path, typer.Argument(help="Where its results are to lie, to be committed.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            help="An arm, or a value of an axis for the arms that have it; the first if left out."
        ),
    ] = None,
    measure: Annotated[
        str | None, typer.Option(help="What to compare; what most claims measure if left out.")
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(help="A kind of `normlab plot`; what suits the sweep if left out."),
    ] = None,
) -> None:
    """Make an experiment small enough to commit: a page, a picture, its numbers, their origin."""
    from normlab.reports.publishing import publish as write
    from normlab.store.loading import load_runs

    print(write(load_runs(path), folder, baseline=baseline, measure=measure, figure=figure))


@app.command()
def agree(
    rerun: Annotated[Path, typer.Argument(help="The folder of an experiment that was run again.")],
    published: Annotated[Path, typer.Argument(help="What `normlab publish` wrote of it.")],
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="For values of another kind of machine: absolute below 1, relative above; 0.001 "
            "if left out. Of the same kind they must agree to rounding."
        ),
    ] = None,
    common: Annotated[
        bool,
        typer.Option("--common", help="Only the runs that both have, without tuning and verdicts."),
    ] = False,
) -> None:
    """Say where a rerun and published results differ, seed by seed; exit status 1 if they do."""
    from normlab.reports.agreement import agreement
    from normlab.reports.pairs import TOLERANCE
    from normlab.store.loading import load_runs

    within = TOLERANCE if tolerance is None else tolerance
    found = agreement(load_runs(rerun), load_runs(published), tolerance=within, common=common)
    print(found)
    if found.disagreements:
        raise typer.Exit(DISAGREES)

"""`normlab agree`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.interface.commands import NEGATIVE, Panel

PANEL = Panel.SHARE


def command(
    rerun: Annotated[
        Path,
        typer.Argument(
            help="The experiment that was run again: its folder, or a bundle.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    published: Annotated[
        Path,
        typer.Argument(
            help="What it is compared with: the folder that `normlab publish` wrote, another "
            "experiment's folder, or a bundle.",
            metavar="RESULTS",
            show_default=False,
        ),
    ],
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="How far values from another kind of machine may be apart: absolute below 1, "
            "relative above. Values from the same kind must agree to rounding.",
            metavar="X",
            show_default="0.001",
        ),
    ] = None,
    common: Annotated[
        bool,
        typer.Option(
            "--common",
            help="Compare only the runs that both have, and neither tuning nor verdicts.",
        ),
    ] = False,
) -> None:
    """Tell where two makings of one experiment differ, seed by seed; exit status 1 if they do."""
    from normlab.reports.agreement import agreement
    from normlab.reports.run_agreement import TOLERANCE
    from normlab.store.loading import load_runs

    within = TOLERANCE if tolerance is None else tolerance
    found = agreement(load_runs(rerun), load_runs(published), tolerance=within, common=common)
    print(found)
    if found.disagreements:
        raise typer.Exit(NEGATIVE)

"""`normlab variance`."""

from pathlib import Path
from typing import Annotated

import typer

from normlab.interface.commands import ExperimentFolder, MeasureText, Panel
from normlab.measures.measures import USUAL_MEASURE

PANEL = Panel.READ


def command(
    path: ExperimentFolder,
    measure: MeasureText = USUAL_MEASURE,
    again: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder that holds the same runs, made again on another machine or with other "
            "threads: it shows what rounding adds. It may be given several times.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say how much of the noise is initial weights, order, augmentation, test images, rounding."""
    import json

    from rich.console import Console

    from normlab.evidence.variance import variances
    from normlab.interface.terminal import places, say
    from normlab.measures.measures import Measure
    from normlab.reports.markdown import WIDTH
    from normlab.reports.noise import noise_text
    from normlab.store.loading import load_runs

    runs, others = load_runs(path), [load_runs(folder) for folder in again or []]
    found = variances(runs, Measure.parse(measure), others)
    if as_json:
        print(json.dumps([one.to_dict() for one in found], indent=1))
    else:
        console = Console()
        say(noise_text(found, min(WIDTH, places(console))), console)

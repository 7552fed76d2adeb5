"""`normlab runs clean`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[
        Path,
        typer.Argument(
            help="The folder of an experiment, or one that holds experiments.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Delete the checkpoints of finished runs as well, which run.params() reads.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; without this nothing is changed.")
    ] = False,
) -> None:
    """Delete failed runs and orphans, the runs that the experiment's last command does not make."""
    from normlab.interface.runs_clean import clean

    for line in clean(path, checkpoints, yes):
        print(line)

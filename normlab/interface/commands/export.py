"""`normlab export`."""

import zipfile
from pathlib import Path
from typing import Annotated

import typer

from normlab.interface.commands import ExperimentFolder, Panel

PANEL = Panel.SHARE


def command(
    path: ExperimentFolder,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="The file to write.",
            metavar="FILE.zip",
            show_default="the folder's name with .zip, in the current folder",
        ),
    ] = None,
) -> None:
    """Write an experiment into one file that others can judge, audit and compare.

    The file holds all but the checkpoints, byte for byte, so it also names the computer and the
    folders of the runs; `normlab publish` leaves them out.
    """
    from normlab.interface.terminal import say
    from normlab.store.bundles import METADATA, write_bundle
    from normlab.store.loading import load_runs

    runs = load_runs(path)
    file = write_bundle(runs, bundle or Path(f"{path.resolve().name}.zip"))
    print(file)
    if METADATA not in zipfile.ZipFile(file).namelist():
        say(
            f"note: it has no {METADATA}, by which archives understand it; "
            "pip install 'normlab[archive]' adds it"
        )

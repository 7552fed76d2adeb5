"""The commands of `normlab`, one file a command; a folder is a group such as `normlab runs`.

`normlab.cli` finds a new file by itself. The file holds a function called `command`, whose
docstring is the help, and a `PANEL` unless it lies in a group; `CONTEXT` may hold settings of
click's. `normlab --help` imports every file, so a command imports jax, matplotlib and scipy inside
its function. `normlab.interface` and `normlab.reports` make what a command shows, so that notebooks
find it too.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NEGATIVE, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit statuses: a run failed, a claim is refuted or results differ; a mistake in what was given;
Ctrl-C."""


class Panel(StrEnum):
    """The headings of `normlab --help`, in their order."""

    MAKE = "Make runs"
    READ = "Read runs"
    SHARE = "Share results"
    LOOK_UP = "Look things up"


ConfigFile = Annotated[
    Path, typer.Argument(help="An experiment in YAML.", metavar="FILE", show_default=False)
]
ExperimentFolder = Annotated[
    Path,
    typer.Argument(
        help="The folder of an experiment, such as runs/quickstart, or a bundle of one.",
        metavar="FOLDER",
        show_default=False,
    ),
]
AnyFolder = Annotated[
    Path,
    typer.Argument(
        help="The folder of a run or of an experiment.", metavar="FOLDER", show_default=False
    ),
]
Out = Annotated[Path, typer.Option(help="The folder that keeps runs.", metavar="FOLDER")]
Baseline = Annotated[
    str | None,
    typer.Option(
        help="The arm to compare the others with. A value of an axis stands for the arms that "
        "have it.",
        metavar="ARM",
        show_default="the first",
    ),
]
MeasureText = Annotated[
    str,
    typer.Option(
        "--measure",
        help="The measure to compare, such as steps_to(test_accuracy, 0.6).",
        metavar="MEASURE",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Let code in this folder run, now and later: what the config names as my_file:MyNorm.",
    ),
]

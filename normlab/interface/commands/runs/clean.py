"""The `normlab runs` commands; the work is in the modules beside this one."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Runs on disk: what there is, how they differ.", no_args_is_help=True)

Folder = Annotated[
    Path, typer.Argument(help="A run's folder, or an experiment's.", show_default=False)
]


@app.command("list")
def runs_list(
    out: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
) -> None:
    """List every experiment: its runs by state, orphans, size, last change."""
    from normlab.interface.runs_commands import list_experiments

    print(list_experiments(out))


@app.command("show")
def runs_show(path: Folder) -> None:
    """Show a run: state, config, last metrics, provenance; of an experiment, a line a run."""
    from normlab.interface.runs_commands import show

    print(show(path))


@app.command("diff")
def runs_diff(first: Folder, second: Folder) -> None:
    """Show how two runs differ, or two experiments: config, provenance, metrics."""
    from normlab.interface.runs_diff import diff

    print(diff(first, second))


@app.command("clean")
def runs_clean(
    path: Annotated[
        Path,
        typer.Argument(
            help="An experiment's folder, or one that holds experiments.", show_default=False
        ),
    ],
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Also those of finished runs; run.params() needs them."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it nothing changes.")] = False,
) -> None:
    """Delete failed runs and orphans, which the experiment's last command does not make."""
    from normlab.interface.runs_clean import clean

    for line in clean(path, checkpoints, yes):
        print(line)

"""The command line. Heavy imports stand inside the commands: `--help` and `list` need no jax."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from normlab.errors import UserError
from normlab.interface.explain_app import app as explain_app
from normlab.interface.publish_app import app as publish_app
from normlab.interface.report_app import app as report_app
from normlab.interface.runs_app import app as runs_app

app = typer.Typer(
    name="normlab",
    help="A laboratory for normalisation: run experiments from YAML, compare normalisers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Datasets on this machine.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(runs_app, name="runs")
app.add_typer(explain_app)
app.add_typer(publish_app)
app.add_typer(report_app)  # its commands are commands of normlab's own

BAD_INPUT, RUN_FAILED, INTERRUPTED = 2, 1, 130
"""Exit statuses: a mistake in what was given, a run that failed, Ctrl-C."""

ConfigFile = Annotated[Path, typer.Argument(help="A YAML experiment.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Changes to it: norm.groups=4, train.epochs=5, seed=3.", show_default=False
    ),
]
Out = Annotated[Path, typer.Option(help="Where runs are kept.")]

ExperimentPath = Annotated[
    Path, typer.Argument(help="An experiment's folder, as runs/quickstart.", show_default=False)
]


class Kind(StrEnum):
    """What `list` can list."""

    norms = "norms"
    kernels = "kernels"
    probes = "probes"
    models = "models"
    data = "data"
    augmentations = "augmentations"
    optimizers = "optimizers"
    schedules = "schedules"
    measures = "measures"


@app.command()
def run(
    file: ConfigFile,
    overrides: Overrides = None,
    out: Out = Path("runs"),
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many runs are made at once.", show_default="as pays on this machine"
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(min=1, help="Begin no more runs after so many failed.", show_default="never"),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(help="Also log to tensorboard, wandb or mlflow.", show_default="nowhere"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be run.")] = False,
) -> None:
    """Make the runs of a config: those that are finished are kept, a broken one goes on."""
    if jobs is not None and jobs > 1:
        # This process looks at shapes alone: a GPU's memory is for its workers, which share it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from normlab.engine.process import prepare

    prepare()  # before anything imports jax
    from normlab.configs.experiment import load_experiment
    from normlab.engine.jobs import jobs_for

    experiment = load_experiment(file, tuple(overrides or ()))
    jobs = jobs or jobs_for(experiment, out)
    console = Console()
    if dry_run:
        from normlab.interface.preview import print_preview

        print_preview(console, experiment, out, jobs)
        return

    from normlab.engine.engine import Engine
    from normlab.interface.console import Display, print_comparison
    from normlab.reports.comparison import compare
    from normlab.store.layout import DAMAGED

    sinks = []
    if log:
        from normlab.interface.sinks import Sink

        sinks = [Sink(name, out / experiment.name) for name in log]
    with Display(console, jobs) as display:

        def tell(event: Any) -> None:
            for listener in (display, *sinks):
                listener(event)

        engine = Engine(experiment, out, tell, jobs=jobs, max_failures=max_failures)
        outcome = engine.run_all()
    console.print()
    if experiment.question:
        console.print(experiment.question, style="bold", markup=False, soft_wrap=True)
    if outcome.runs.entries:  # there are none until tuning is through
        print_comparison(console, compare(outcome.runs))
    folder = outcome.runs.path
    closing = f"runs: {folder}; the whole report: normlab report {folder}"
    console.print(closing, markup=False, highlight=False, soft_wrap=True)
    if outcome.interrupted:
        console.print("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED)
    if {"failed", "busy", DAMAGED} & {*outcome.states}:
        raise typer.Exit(RUN_FAILED)


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="Configs, or folders of them.")],
) -> None:
    """Find every mistake in every config."""
    from normlab.configs.experiment import load_experiment

    files: list[Path] = []
    for path in paths:
        files += sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"there is no .yaml file in {', '.join(map(str, paths))}")
    wrong = 0
    for file in files:
        try:
            experiment = load_experiment(file)
        except UserError as error:
            wrong += 1
            print(error, file=sys.stderr)
        else:
            parts = [_count(len(experiment.runs), "run")]
            if experiment.tuning is not None:
                parts.append(_count(len(experiment.tuning.trials), "trial"))
            if experiment.claims:
                parts.append(_count(len(experiment.claims), "claim"))
            print(f"{file}: fine, {', '.join(parts)}")
    if wrong:
        print(f"{_count(wrong, 'file')} of {len(files)} must be mended", file=sys.stderr)
        raise typer.Exit(BAD_INPUT)


@app.command("list")
def list_entries(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List what a config can name."""
    if kind is Kind.measures:
        from normlab.measures.measures import described

        _columns(described())
        return
    from normlab import catalogue
    from normlab.configs.optax_names import OPTIMIZERS, SCHEDULES

    shelves = {
        Kind.norms: catalogue.NORMS,
        Kind.kernels: catalogue.KERNELS,
        Kind.probes: catalogue.PROBES,
        Kind.models: catalogue.MODELS,
        Kind.data: catalogue.DATA,
        Kind.augmentations: catalogue.AUGMENTATIONS,
        Kind.optimizers: OPTIMIZERS,
        Kind.schedules: SCHEDULES,
    }
    _columns({entry.name: entry.summary for entry in shelves[kind].entries().values()})


def _columns(summaries: dict[str, str]) -> None:
    from normlab.reports.columns import columns

    print("\n".join(columns([[name, summary] for name, summary in summaries.items()])))


@app.command()
def describe(
    name: Annotated[
        str, typer.Argument(help="A name from `normlab list`, or `train`.", show_default=False)
    ],
) -> None:
    """Say what something is: its fields and defaults, its paper, how to write it in YAML."""
    from normlab.interface.describe import describe_entry

    print(describe_entry(name))


@app.command()
def schema() -> None:
    """Print the JSON schema of a config, for editors that complete YAML."""
    import json

    from normlab.configs.json_schema import json_schema

    print(json.dumps(json_schema(), indent=1))


@app.command()
def doctor() -> None:
    """Print versions, devices, settings and folders: what a report of a problem needs."""
    from normlab.engine.process import prepare

    prepare()  # as `normlab run` does, so that its settings are those of a run
    from normlab.interface.doctor import diagnosis

    for heading, found in diagnosis().items():
        print(f"{heading}: {found}")


@data_app.command("list")
def data_list() -> None:
    """Show which datasets are here, where, and how to get the others."""
    from normlab.data.dataset import data_root
    from normlab.data.listing import status

    print(f"looking in {data_root()} (set NORMLAB_DATA to change it)")
    for entry in status():
        size = f", {entry.size_bytes / 1e6:.0f} MB" if entry.size_bytes else ""
        here = f"{entry.path or 'built in'}{size}" if entry.present else f"({entry.how_to_get})"
        print(f"{entry.name:10} {'here  ' if entry.present else 'absent'} {here}")


@data_app.command("fetch")
def data_fetch(
    names: Annotated[list[str], typer.Argument(help="Datasets to download.", show_default=False)],
) -> None:
    """Download datasets, checked against their published hashes; an interrupted one goes on."""
    from normlab.catalogue import DATA

    for name in names:
        described = DATA.load(name)
        if not hasattr(described, "fetch"):
            print(f"{name}: {described.facts.how_to_get}")
            continue
        print(f"{name}: {described().fetch()}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def main() -> None:
    """The `normlab` command. A person's mistake is told without a traceback; ours keeps it."""
    # A config may name `my_package.my_file:MyNorm` in the folder where normlab is run.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

"""`normlab plan`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from normlab.interface.commands import ConfigFile, Out, Panel, Trust

PANEL = Panel.MAKE


def command(
    file: ConfigFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Values in place of the file's, as of normlab run: sweep.seed=0..9.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    out: Out = Path("runs"),
    noise: Annotated[
        list[str] | None,
        typer.Option(
            help="The standard deviation between seeds: 0.01, or 'final(test_loss)=0.02' for one "
            "measure.",
            metavar="[MEASURE=]NUMBER",
            show_default="as in a like experiment",
        ),
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            help="The correlation of two arms' runs of one seed.",
            metavar="NUMBER",
            show_default="as in a like experiment; 0 with --noise",
        ),
    ] = None,
    base: Annotated[
        float | None,
        typer.Option(
            help="The mean of the right arm, which claims about a ratio need.",
            metavar="NUMBER",
            show_default="as in a like experiment",
        ),
    ] = None,
    effect: Annotated[
        list[str] | None,
        typer.Option(
            help="A true effect to plan for: 0.02, or 2=0.02 for the second claim.",
            metavar="[CLAIM=]NUMBER",
            show_default="several",
        ),
    ] = None,
    pilot: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="First run so many seeds of the claims' arms, apart from the sweep, to measure "
            "the noise.",
            metavar="SEEDS",
            show_default="none",
        ),
    ] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option(
            help="The experiment to take the noise from.",
            metavar="FOLDER",
            show_default="the likest",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the chances into this .svg, .png or .pdf.",
            metavar="FILE",
            show_default="none",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Tell before the first run how likely each verdict is, and how many seeds it needs."""
    if pilot is not None:
        from normlab.engine.process import prepare

        prepare()  # before anything imports jax
    import json

    from rich.console import Console

    from normlab.evidence.plans import Given
    from normlab.interface.planning import make_pilot, plan_sweep, read_effects, read_noise
    from normlab.interface.terminal import say
    from normlab.interface.trusting import load_trusted
    from normlab.reports.plan_export import plan_json
    from normlab.reports.plan_words import plan_lines

    given = Given(read_noise(noise or ()), correlation, base)
    experiment = load_trusted(file, tuple(overrides or ()), trust)
    effects = read_effects(effect or (), len(experiment.claims))
    folders = list(like or ())
    if pilot is not None:
        folders = [make_pilot(experiment, out, pilot, _make)]
    plan = plan_sweep(experiment, out, given, effects, folders)
    if plot is not None:
        from normlab.reports.figures.chances import chances
        from normlab.reports.figures.style import save

        save(chances(plan), plot)
    if as_json:
        print(json.dumps(plan_json(plan), indent=1))
        return
    console = Console()
    for line in plan_lines(plan, console.width if console.is_terminal else 80):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if pilot is not None:
        say(f"The pilot in {folders[0]} has seeds of its own and is never a part of the sweep.")
        if experiment.tuning is not None:
            say("Its arms are not tuned: they stand at the first point of the grid.")
    if plot is not None:
        say(f"{plot} shows the chances")


def _make(experiment: Any, out: Path) -> None:
    """Make the runs of a pilot; what happens is told beside the plan."""
    from rich.console import Console

    from normlab.configs.data_files import prepare_data
    from normlab.engine.engine import Engine
    from normlab.engine.jobs import jobs_for
    from normlab.errors import UserError
    from normlab.interface.console import Display

    console, jobs = Console(stderr=True), jobs_for(experiment, out)
    for remark in prepare_data(run.sections for run in experiment.runs):
        console.print(f"data: {remark}", markup=False, highlight=False, soft_wrap=True)
    with Display(console, jobs) as display:
        outcome = Engine(experiment, out, display, jobs=jobs).run_all()
    if outcome.failed or outcome.interrupted:
        raise UserError(
            f"{out / experiment.folder}: the pilot is not finished; give the same command again"
        )

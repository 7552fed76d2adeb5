"""`normlab run`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from normlab.interface.commands import INTERRUPTED, NEGATIVE, ConfigFile, Out, Panel, Trust

PANEL = Panel.MAKE


def command(
    file: ConfigFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Values in place of the file's: norm.groups=4 train.epochs=5 seed=3.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What to call the experiment.",
            metavar="NAME",
            show_default="the config's name, and what KEY=VALUE changes",
        ),
    ] = None,
    out: Out = Path("runs"),
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Make so many runs at once.",
            metavar="N",
            show_default="as pays on this machine",
        ),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Spread each run over so many devices (mesh.data=N).",
            metavar="N",
            show_default="the config's, or one",
        ),
    ] = None,
    hosts: Annotated[
        bool,
        typer.Option(
            "--hosts",
            help="Make each run together with the other processes that srun, mpirun or Kubernetes "
            "has started.",
        ),
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Where runs are made: a name of `normlab list engines`, or a mapping such as "
            "'{name: dask, address: tcp://node1:8786}'.",
            metavar="ENGINE",
            show_default="the config's, or local",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="In an array job: make this part of the runs, then what other parts left.",
            metavar="I/N",
            show_default=False,
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Begin no other run once so many have failed.",
            metavar="N",
            show_default="no limit",
        ),
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Stop at the first of the config's 'looks' at which all claims are decided.",
        ),
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Log to tensorboard, wandb or mlflow as well.",
            metavar="SERVICE",
            show_default="nowhere",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run, and run nothing.")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="End with every column of the table of arms.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Make the runs of a config. Finished runs are kept, and a broken-off one goes on."""
    from normlab.engine.worker import visible_gpus

    gpus = visible_gpus()
    if (jobs or len(gpus)) > 1:
        # This process looks at shapes alone: a GPU's memory is for its workers, which share it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from normlab.engine.process import prepare

    prepare()  # before anything imports jax
    from normlab.engine.hosts import join, team

    join(hosts)
    from normlab.configs.document import flow
    from normlab.configs.engines import engine_of_words, name_in
    from normlab.engine.jobs import jobs_for
    from normlab.engine.shards import Shard
    from normlab.interface.trusting import admit_name, load_trusted

    words = list(overrides or ())
    if name is not None:
        words.append(f"name={flow(name)}")
    if devices is not None:
        words.append(f"mesh.data={devices}")
    part = None if shard is None else Shard.read(shard)
    experiment = load_trusted(file, tuple(words), trust)
    chosen = experiment.engine or {"name": "local"}
    if engine is not None:
        admit_name(name_in(engine), trust)
        chosen = engine_of_words(engine, experiment.engine)
    if (joined := team()) is not None:
        jobs, chosen = 1, {"name": "local"}  # every process has a part of every run
    if jobs is None and chosen["name"] == "local":
        jobs = jobs_for(experiment, out)
    helps = joined is not None and not joined.leads
    console = Console(quiet=helps)
    if dry_run:
        from normlab.interface.preview import print_preview, print_script

        print_preview(console, experiment, out, jobs or 1)
        print_script(console, chosen, out / experiment.folder)
        return

    from normlab.configs.data_files import prepare_data
    from normlab.engine.engine import Engine
    from normlab.engine.hosts import BrokenError, leave_at_once
    from normlab.engine.preflight import ImpossibleError
    from normlab.interface.console import Display, print_outcome

    if helps:
        Engine(experiment, out).help()
        return
    sinks = []
    if log:
        from normlab.interface.sinks import Sink

        sinks = [Sink(name, out / experiment.folder) for name in log]
    for remark in prepare_data(run.sections for run in experiment.runs):
        console.print(f"data: {remark}", markup=False, highlight=False, soft_wrap=True)
    with Display(console, jobs or 1) as display:

        def tell(event: Any) -> None:
            for listener in (display, *sinks):
                listener(event)

        sweep = Engine(
            experiment,
            out,
            tell,
            jobs=jobs,
            max_failures=max_failures,
            until_decided=until_decided,
            engine=chosen,
            shard=part,
        )
        try:
            outcome = sweep.run_all()
        except BrokenError as error:
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            leave_at_once(NEGATIVE)
        except ImpossibleError as error:  # no mistake in what was given, but no run can be made
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(NEGATIVE) from None
    print_outcome(console, experiment, outcome, wide)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(NEGATIVE)

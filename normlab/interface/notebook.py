"""The notebook's way to run a config; the command line's is `normlab.cli`."""

import os
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from normlab.configs.admission import admit_typed
from normlab.configs.data_files import prepare_data
from normlab.configs.document import flow
from normlab.configs.engines import engine_of_words, name_in
from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine
from normlab.engine.jobs import jobs_for
from normlab.engine.process import prepare
from normlab.errors import UserError
from normlab.interface.console import Display
from normlab.interface.trained import trained
from normlab.store.runs import Runs
from normlab.training.mesh import apart


def run(
    file: str | os.PathLike[str],
    *,
    out: str | Path = "runs",
    jobs: int | None = None,
    engine: str | dict[str, Any] | None = None,
    **overrides: Any,
) -> Runs:
    """Make every run of a config that is not finished yet, and read them all back.

    Args:
        file: a YAML experiment.
        out: the folder under which the experiment gets its own.
        jobs: how many runs are made at once; with more than one, in processes of their own. None
            for as many as pay on this machine: `normlab.engine.jobs` says when.
        engine: where they are made: a name of `normlab list engines`, or a mapping with its name
            and options. None for the config's, or this machine.
        **overrides: as on the command line; a dotted key with `__` for the dot, so
            `run("configs/quickstart.yaml", train__epochs=1, norm="batch_norm")`.

    Returns:
        The runs, from disk; `normlab.compare(runs)` says what they amount to.

    Raises:
        UserError: the config has mistakes; every one is listed, and nothing has been run. Or
            `jobs` is not a positive whole number.
        KeyboardInterrupt: it was interrupted; the same call goes on from there.
    """
    prepare()
    words = tuple(_override(key.replace("__", "."), value) for key, value in overrides.items())
    experiment = load_experiment(Path(file), words)
    chosen = experiment.engine or {"name": "local"}
    if engine is not None:
        admit_typed(name_in(flow(engine)))
        chosen = engine_of_words(flow(engine), experiment.engine)
    if jobs is None and chosen["name"] == "local":
        jobs = jobs_for(experiment, Path(out))
    prepare_data(run.sections for run in experiment.runs)
    with apart(), Display(Console(), jobs or 1) as display:
        outcome = Engine(experiment, Path(out), display, jobs=jobs, engine=chosen).run_all()
    if outcome.interrupted:
        raise KeyboardInterrupt
    return trained(outcome.runs)


def _override(key: str, value: Any) -> str:
    try:
        return f"{key}={flow(value)}"
    except yaml.YAMLError:
        kinds = "numbers, text, lists and mappings of Python's own"
        raise UserError(f"{key}: a config holds {kinds}, found {value!r}") from None

"""Chooses how many runs are made at once; docs/speed.md has the measurements behind it."""

from pathlib import Path

import jax

from normlab.configs import build
from normlab.configs.experiment import Experiment
from normlab.configs.run_config import RunConfig
from normlab.engine.plan import runs_of
from normlab.engine.process import usable_cores
from normlab.engine.worker import visible_gpus
from normlab.store.layout import FINISHED

MOST_JOBS = 4
"""Each has a copy of the data and programs of its own, and more were not measured."""

WORTH_WORKERS = 50_000
"""Training examples; with fewer to go through, a worker's start takes longer than it saves."""


def jobs_for(experiment: Experiment, out: Path) -> int:
    """Return how many runs to make at once: as many as there are cores, up to 4, on the CPU.

    It is one where few examples are left to train on. It is one where a claim or the tuning is
    about seconds too, because runs side by side slow each other down, and where a run has a GPU, a
    TPU or several devices of a processor to itself. With several GPUs there are as many runs as
    these.

    Args:
        experiment: what is to be run.
        out: the folder under which the experiment has its own.
    """
    gpus = len(visible_gpus())
    if _is_about_seconds(experiment) or (gpus < 2 and jax.default_backend() != "cpu"):
        return 1
    configs = list(experiment.runs)
    if experiment.tuning is not None:
        configs += [trial.config for trial in experiment.tuning.trials]
    runs = zip(configs, runs_of(configs, out / experiment.folder), strict=True)
    left = [config for config, run in runs if run.state not in FINISHED]
    if any(build.mesh(config.sections).devices > 1 for config in left):
        return 1
    if gpus > 1:
        return max(1, min(gpus, len(left)))
    if sum(map(_examples, left)) < WORTH_WORKERS:
        return 1
    # With fewer than two runs each, a worker is often without one.
    return max(1, min(usable_cores() or 1, MOST_JOBS, len(left) // 2))


def _examples(run: RunConfig) -> int:
    return build.total_steps(run.sections) * run.sections["train"]["batch_size"]


def _is_about_seconds(experiment: Experiment) -> bool:
    measures = [claim.measured for claim in experiment.claims]
    if experiment.tuning is not None:
        measures.append(experiment.tuning.measure)
    return any(measure.definition.unit == "s" for measure in measures)

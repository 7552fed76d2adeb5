"""Shows what would be run, and where every value comes from, for `normlab run --dry-run`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from normlab.configs import build
from normlab.configs.document import flow
from normlab.configs.experiment import Experiment
from normlab.configs.run_config import RunConfig
from normlab.configs.sections import LENGTHS, SECTIONS
from normlab.engine.executors.contract import open_engine
from normlab.engine.plan import plan, runs_of
from normlab.interface.console import describe_plan
from normlab.interface.planning import plan_sweep
from normlab.reports.english import count_runs
from normlab.reports.plan_words import short_lines
from normlab.store.seeds import seed_text


def print_preview(console: Console, experiment: Experiment, out: Path, jobs: int = 1) -> None:
    """Print the first run's resolved config, each arm's parameters, and all the runs' folders.

    The time that the runs will take is told where finished ones in their folder tell it.
    """

    def show(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    first = experiment.runs[0]
    seed = seed_text(first.seed)
    show(f"{experiment.file}, resolved for the first run ({first.arm}, seed {seed}):")
    show()
    for line in _resolved(first):
        show(line)
    show()
    show("parameters, by arm:")
    shown = set()
    for run in experiment.runs:
        if run.arm not in shown:
            shown.add(run.arm)
            show(f"  {run.arm}: {_count(build.parameter_shapes(run.sections)):,}")
    show()
    show(f"shapes of {first.arm}:")
    for path, leaf in jax.tree_util.tree_leaves_with_path(build.parameter_shapes(first.sections)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        show(f"  {name}: {leaf.dtype}{list(leaf.shape)}")
    show()
    steps = build.total_steps(first.sections)
    folder = out / experiment.folder
    if experiment.claims:
        show("claims, registered when the first run begins:")
        for claim in experiment.claims:
            show(f"  {claim.says}: {claim.measure}, {claim.expect}")
        show()
        show("what the sweep can tell of them (`normlab plan` has the chances):")
        for line in short_lines(plan_sweep(experiment, out)):
            show(f"  {line}")
        show()
    if experiment.tuning is not None:
        grid = ", ".join(f"{axis} in {flow(v)}" for axis, v in experiment.tuning.grid.items())
        show(f"{len(experiment.tuning.trials)} trials come first ({grid}); what follows stands for")
        show("the runs that they will choose, at the first point of the grid")
    show(f"{count_runs(len(experiment.runs))} of {steps} steps (the first's), to be kept in:")
    for run in runs_of(experiment.runs, folder):
        show(f"  {run.path}")
    show()
    show(describe_plan(plan(experiment.runs, folder, jobs)))


def print_script(console: Console, engine: Mapping[str, Any], folder: Path) -> None:
    """Print the job that an engine would submit for each run, if it submits jobs."""
    script = getattr(open_engine(dict(engine)), "script", None)
    if script is not None:
        console.print(
            f"\nthe job of each run, which {engine['name']} would be given:\n\n{script(folder)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _resolved(run: RunConfig) -> list[str]:
    lines: list[tuple[str, str]] = []
    for section in SECTIONS:
        values = run.sections.get(section)
        if values is None:
            lines.append((f"{section}: null", "default"))
            continue
        lines.append((f"{section}:", ""))
        for key, value in values.items():
            lines.append((f"  {key}: {flow(value)}", _origin(run, section, key)))
    width = min(60, max(len(text) for text, _ in lines)) + 2
    return [f"{text:{width}}# {origin}" if origin else text for text, origin in lines]


def _origin(run: RunConfig, section: str, key: str) -> str:
    given = run.origins.get((section, key))
    if given is not None:
        return str(given)
    return "the length of the run" if section == "schedule" and key in LENGTHS else "default"


def _count(shapes: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

"""Plans a config's sweep before the first run, and measures its noise by a pilot if asked to."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from normlab.configs.claims import PlannedRun
from normlab.configs.experiment import Experiment, seeds_of
from normlab.configs.run_config import RunConfig
from normlab.errors import UserError
from normlab.evidence.noise import KnownArm, known_arms, likeness, seconds_of
from normlab.evidence.plans import ClaimPlan, Given, SweepPlan, plan_claim
from normlab.measures.claims import Claim, arms_of
from normlab.measures.measures import Measure
from normlab.store.files import DamagedError
from normlab.store.layout import EXPERIMENT
from normlab.store.loading import load_runs
from normlab.store.published import shipped_results
from normlab.store.runs import Runs
from normlab.store.seeds import is_split, shared

PILOTS = "pilots"
"""The folder below that of the experiments in which pilots lie."""

FIRST_SEED = 1000
"""The seeds of a pilot begin here, so that no sweep has them by chance."""


def plan_sweep(
    experiment: Experiment,
    out: Path,
    given: Given = Given(),  # noqa: B008 (it is frozen)
    effects: Mapping[int, Sequence[float]] = {},
    like: Sequence[Path] = (),
) -> SweepPlan:
    """Plan an experiment.

    Args:
        experiment: the experiment.
        out: the folder that keeps runs, in which like settings are looked for. The experiment's
            own runs are left out.
        given: what a person states.
        effects: the true effects that a person states: those of each claim by its number from 1,
            and those of every other claim by 0.
        like: the only experiments in which like settings are looked for; by default those in `out`
            and those that come with normlab.

    Raises:
        UserError: a folder of `like` is not an experiment's.
    """
    experiment = experiment.whole or experiment
    known = known_arms(map(load_runs, like) if like else _experiments(out, experiment.folder))
    arms = {run.arm: run for run in experiment.runs}
    looks = _looks(experiment)
    trials = [] if experiment.tuning is None else experiment.tuning.trials
    seconds = [seconds_of(run.sections, known) for run in arms.values()]
    measured = [one for one in seconds if one is not None]
    runs = len(experiment.runs)
    return SweepPlan(
        experiment.name,
        len(arms),
        looks,
        runs,
        len(trials),
        [
            _planned(claim, experiment, arms, looks, given, known,
                     effects.get(place, effects.get(0, ())))
            for place, claim in enumerate(experiment.claims, 1)
        ],
        math.fsum(measured) / len(measured) * (runs + len(trials)) if measured else None,
        _machine(known, list(arms.values())),
    )  # fmt: skip


def make_pilot(
    experiment: Experiment, out: Path, seeds: int, make: Callable[[Experiment, Path], Any]
) -> Path:
    """Run a few seeds of the arms that claims are about, apart from the sweep; return the folder.

    The pilot's seeds are none of the sweep's, so its runs are never taken for those of the sweep.
    An experiment whose arms are tuned has its arms at the first point of the grid.

    Args:
        experiment: the experiment.
        out: the folder that keeps runs.
        seeds: how many seeds an arm.
        make: makes the runs of an experiment in a folder.
    """
    experiment = experiment.whole or experiment
    if seeds < 2:
        raise UserError(f"a pilot needs at least 2 seeds to show how they vary, found {seeds}")
    points = _points(experiment)
    needed = {run.arm for claim in experiment.claims for _, own in arms_of(points, claim)
              for run in own}  # fmt: skip
    if not needed:
        raise UserError(f"{experiment.file}: there is nothing to plan: give it claims")
    plain = [seed for seed in seeds_of(experiment.runs) if not is_split(seed)]
    first = max([FIRST_SEED - 1, *plain]) + 1
    arms = {run.arm: run for run in experiment.runs if run.arm in needed}
    runs = [run.with_seed(seed) for run in arms.values() for seed in range(first, first + seeds)]
    pilot = replace(experiment, runs=runs, claims=[], looks=(), tuning=None)
    make(pilot, out / PILOTS)
    return out / PILOTS / pilot.folder


def read_noise(texts: Iterable[str]) -> dict[str, float]:
    """Read noise that a person states: `0.01`, or `final(test_loss)=0.02` for one measure.

    >>> read_noise(["0.01", "final( test_loss )=0.02"])
    {'': 0.01, 'final(test_loss)': 0.02}
    """
    found = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        deviation = _number(value, "--noise", "0.01 or 'final(test_accuracy)=0.01'")
        if deviation <= 0:
            raise UserError(f"--noise is a standard deviation above 0, found {value}")
        found[str(Measure.parse(name)) if name else ""] = deviation
    return found


def read_effects(texts: Iterable[str], claims: int) -> dict[int, list[float]]:
    """Read effects that a person states: `0.02` of every claim, or `2=0.02` of the second.

    >>> read_effects(["0.02", "2=0.05"], 2)
    {0: [0.02], 2: [0.05]}
    """
    found: dict[int, list[float]] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if name and not (name.isdigit() and 1 <= int(name) <= claims):
            raise UserError(
                f"--effect {text}: '{name}' is not the number of a claim; there are {claims}, "
                "and the first is 1"
            )
        effect = _number(value, "--effect", "0.02, or as 2=0.02 for the second claim")
        found.setdefault(int(name or 0), []).append(effect)
    return found


def _number(text: str, option: str, as_in: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{option} is written as in {as_in}, found '{text}'")
    return value


def _planned(
    claim: Claim,
    experiment: Experiment,
    arms: Mapping[str, RunConfig],
    looks: tuple[int, ...],
    given: Given,
    known: Sequence[KnownArm],
    effects: Sequence[float],
) -> ClaimPlan:
    try:
        chosen = arms_of(_points(experiment), claim)
    except UserError as error:  # a command makes a part of the arms
        return ClaimPlan(claim, (), lacking=str(error))
    sections = [(name, arms[own[0].arm].sections) for name, own in chosen]
    return plan_claim(claim, sections, looks, len(experiment.claims), given, known, effects)


def _points(experiment: Experiment) -> list[PlannedRun]:
    return [PlannedRun(run.arm, run.seed, run.labels) for run in experiment.runs]


def _looks(experiment: Experiment) -> tuple[int, ...]:
    """Return the looks of the plan that the engine registers; empty if none can be planned."""
    arms: dict[str, list[int]] = {}
    for run in experiment.runs:
        arms.setdefault(run.arm, []).append(run.seed)
    seeds = seeds_of(experiment.runs)
    if shared(seeds) or any(sorted({*own}) != sorted(seeds) for own in arms.values()):
        return ()
    return experiment.looks or (len(seeds),)


def _experiments(out: Path, own: str) -> list[Runs]:
    """Read the experiments in a folder, pilots too, and those that come with normlab."""
    files = [*out.glob(f"*/{EXPERIMENT}"), *out.glob(f"{PILOTS}/*/{EXPERIMENT}")]
    folders = [file.parent for file in sorted(files) if file.parent != out / own]
    found = []
    for folder in (*folders, *shipped_results()):
        try:
            found.append(load_runs(folder))
        except DamagedError:
            continue  # it shows nothing, and the commands that read it say so
    return found


def _machine(known: Iterable[KnownArm], arms: Sequence[RunConfig]) -> str:
    """Name the processor on which like runs were measured; empty if it is not known."""
    for one in known:
        if any(likeness(run.sections, one.config) in (0, 1) for run in arms):
            proof = one.records[0].provenance[-1] if one.records[0].provenance else {}
            cores, name = proof.get("cores"), proof.get("processor")
            return f" on {cores} cores ({name})" if cores and name else ""
    return ""

"""Writes down which runs an experiment has, so that no command hides the runs of another."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from normlab.configs.document import flow
from normlab.configs.experiment import Experiment, added_arms, as_word, seeds_of
from normlab.configs.naming import arm_key
from normlab.configs.run_config import SEED_AXES, RunConfig
from normlab.engine.plan import runs_of
from normlab.errors import UserError
from normlab.store.files import DamagedError
from normlab.store.finding import runs_below
from normlab.store.journal import note, read_journal
from normlab.store.layout import EXPERIMENT, FINISHED
from normlab.store.loading import load, load_runs
from normlab.store.names import hash_in
from normlab.store.run import Run
from normlab.store.runs import Runs, alone, write_experiment
from normlab.store.seeds import setting_of

ENOUGH_TO_JUDGE = 2
"""With fewer seeds no claim has an interval."""


def note_runs(
    experiment: Experiment,
    folder: Path,
    about: dict[str, Any],
    asked: Sequence[RunConfig],
    trials: Sequence[RunConfig] = (),
) -> None:
    """Write which runs an experiment has, now that a command asks for some of them.

    Runs that are listed already stay so if they are of an arm that the config still describes, and
    are finished, or the command makes a part of the experiment. The others are kept apart, as runs
    that the experiment had: their results are not forgotten.

    Args:
        experiment: what the command makes.
        folder: the experiment's folder.
        about: what is written beside the runs.
        asked: the runs that the command makes; none while arms are tuned.
        trials: those that the arms are tuned by.
    """
    with alone(folder):
        known = _known(folder)
        made, tried = runs_of(asked, folder), runs_of(trials, folder)
        about = about | planned(experiment, asked, known)
        _register(folder, experiment, about)
        if known is None:
            about = _with_seeds(experiment, about, made) if asked else about
            write_experiment(folder, about, made, tried)
            return
        if asked:
            added = known.about.get("added", [])
            if experiment.added and list(experiment.added) not in added:
                added = [*added, list(experiment.added)]
            about = about | ({"added": added} if added else {})
            made = _joined(_arms_of(experiment, asked, added), experiment, made, known)
            about = _with_seeds(experiment, about, made)
        else:
            made, about = _runs(known.runs), known.about | about
        had = {run.path.name: run for run in _runs([*known.former, *known.runs, *known.trials])}
        for run in (*made, *tried):
            had.pop(run.path.name, None)
        former = [run for run in had.values() if run.begun]
        write_experiment(folder, about, made, tried, former)


def planned(
    experiment: Experiment, asked: Sequence[RunConfig], known: Runs | None
) -> dict[str, Any]:
    """Return the plan of an experiment: its seeds, and the looks at which its claims are judged.

    The first plan stands. It may grow until two seeds have a result, because no claim can be judged
    before. There is none for arms with different seeds, and for results from before there were
    plans.
    """
    whole = experiment.whole or experiment
    arms: dict[str, list[int]] = {}
    for run in whole.runs:
        arms.setdefault(run.arm, []).append(run.seed)
    own = seeds_of(whole.runs)
    if any(seeds != own for seeds in arms.values()):
        return {}
    before = (known.about.get("plan") or {}) if known is not None else {}
    made = [] if known is None else _runs([*known.runs, *known.former])
    begun = {run.seed for run in made if run.state in FINISHED}
    if len(begun) >= ENOUGH_TO_JUDGE:
        return {"plan": before} if before else {}
    seeds = list(dict.fromkeys([*before.get("seeds", []), *own, *seeds_of(asked)]))
    looks = [look for look in experiment.looks if look < len(seeds)]
    return {"plan": {"seeds": seeds, "looks": [*looks, len(seeds)]}}


def _register(folder: Path, experiment: Experiment, about: dict[str, Any]) -> None:
    """Write the plan and the claims into the journal, unless its last plan is the same."""
    plan = about.get("plan")
    if plan is None:
        return
    arms = list(dict.fromkeys(run.arm for run in (experiment.whole or experiment).runs))
    claims = {claim.hash: claim.says for claim in experiment.claims}
    facts = {**plan, "arms": arms, "claims": claims}
    before = read_journal(folder).of("registered")
    if not before or any(before[-1][key] != value for key, value in facts.items()):
        note(folder, "registered", **facts)


def check_is_same(experiment: Experiment, folder: Path) -> None:
    """Check that an experiment's folder is not that of another file.

    Raises:
        UserError: another config, which is still there, made other runs under this name.
    """
    known = _known(folder)
    if known is None:
        return
    other = Path(known.about.get("config") or experiment.file)
    if not other.is_file() or other.resolve() == experiment.file.resolve():
        return
    arms = _arms_of(experiment, experiment.runs, known.about.get("added", []))
    if _with_arms(_runs(known.runs), arms):
        return
    raise UserError(
        f"{folder} holds the experiment of {other}, and {experiment.file} describes other runs: "
        "give it a name of its own (--name, or 'name' in the config), or choose another --out"
    )


def _known(folder: Path) -> Runs | None:
    """Read an experiment as it is listed; where the list is damaged, all the runs in its folder."""
    if not (folder / EXPERIMENT).exists():
        return None
    try:
        return load_runs(folder)
    except DamagedError:
        return Runs(folder, {}, _runs(map(load, runs_below(folder))))


def _joined(
    arms: list[RunConfig], experiment: Experiment, made: list[Run], known: Runs
) -> list[Run]:
    """Add to the runs of a command those that stay listed beside them."""
    kept = []
    others = [run for run in _runs(known.runs) if run not in made]
    for run, arm in _with_arms(others, arms):
        if experiment.whole is not None or run.state in FINISHED:
            kept.append(Run(run.path, arm.arm, run.seed, arm.labels))
    if not kept:
        return made
    order = {arm.arm: index for index, arm in enumerate(arms)}
    return sorted([*made, *kept], key=lambda run: (order[run.arm], run.seed))


def _arms_of(
    experiment: Experiment, asked: Sequence[RunConfig], added: Iterable[Sequence[str]]
) -> list[RunConfig]:
    """Give one run of each arm that the config and earlier commands describe, and of `asked`."""
    runs = list(asked)
    if experiment.tuning is None:  # it has chosen what is asked for, and nothing else counts
        runs = [*(experiment.whole or experiment).runs, *runs]
        runs += [run for one in added for run in added_arms(experiment, tuple(one))]
    found: dict[str, RunConfig] = {}
    for run in runs:
        found.setdefault(arm_key(run), run)
    return list(found.values())


def _with_arms(runs: list[Run], arms: Iterable[RunConfig]) -> list[tuple[Run, RunConfig]]:
    """Pair runs with the arms that have their hashes with their seeds; leave out the others."""
    seeds = {run.seed for run in runs}
    found = {(seed, arm.with_seed(seed).hash): arm for arm in arms for seed in seeds}
    keys = [(run.seed, hash_in(run.path.name) or "") for run in runs]
    return [(run, found[key]) for run, key in zip(runs, keys, strict=True) if key in found]


def _with_seeds(
    experiment: Experiment, about: dict[str, Any], runs: Sequence[Run]
) -> dict[str, Any]:
    """Add to the overrides the seeds that are listed, if the config does not name them all."""
    whole = experiment.whole or experiment
    seeds, own = ({run.seed for run in some} for some in (runs, whole.runs))
    if seeds <= own or whole.tied or whole.tuning is not None:
        return about
    axis = next((axis for axis in SEED_AXES if axis in whole.runs[0].axes), "seed")
    more = f"sweep.{axis}={flow([setting_of(seed) for seed in sorted(seeds)])}"
    return about | {"overrides": [*about["overrides"], more]}


def _runs(listed: Iterable[Any]) -> list[Run]:
    return [run for run in listed if isinstance(run, Run)]


def about_experiment(experiment: Experiment) -> dict[str, Any]:
    """Describe an experiment for its folder."""
    whole, target = experiment.whole or experiment, experiment.target
    return {
        "name": experiment.name,
        "question": experiment.question,
        "target": None if target is None else {"test_accuracy": target.test_accuracy},
        "config": as_word(experiment.file),
        "overrides": list(whole.overrides),
        "claims": [claim.kept() for claim in experiment.claims],
        **({} if experiment.baseline is None else {"baseline": experiment.baseline}),
    }

"""Compares an experiment with its journal: what was planned, and what has become of it.

It finds whatever changed after it was written down. It cannot find what was never written down
(`UNSEEN`).
"""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from normlab.errors import UserError
from normlab.store.files import DamagedError
from normlab.store.journal import Journal, read_journal
from normlab.store.layout import FINISHED
from normlab.store.reading import digest
from normlab.store.run import Run
from normlab.store.runs import Runs
from normlab.store.seeds import seed_text

UNSEEN = (
    "An audit does not see three things: runs that were made in another folder and left out, a "
    "journal that was written anew from its first line, and files that were changed before their "
    "run ended. The first two show in comparison with a published copy that others hold."
)
"""What no audit can tell."""


def audit(runs: Runs) -> list[str]:
    """Return what an experiment's journal and its folder do not agree on, each in a sentence.

    An experiment without a journal, as older versions and publications have none, has no findings.
    """
    if runs.parts:
        return [f"{p.about['name']}: {found}" for p in runs.parts for found in audit(p)]
    try:
        journal = read_journal(runs.path)
    except DamagedError as error:
        return [f"The journal is damaged: {error}."]
    if not journal.lines:
        return []
    found = []
    if journal.broken is not None:
        found.append(
            f"The journal was changed: its line {journal.broken} or the line before it is not "
            "as it was written."
        )
    return found + _of_plans(runs, journal) + _of_results(runs, journal)


def _of_plans(runs: Runs, journal: Journal) -> list[str]:
    """Compare the plans that were registered with each other and with the experiment."""
    plans = journal.of("registered")
    if not plans:
        return ["The journal has no plan, so it is not known which runs were meant to be made."]
    # A plan may change until the first result.
    begun = list(itertools.takewhile(lambda line: line["event"] != "finished", journal.lines))
    first, found = ([line for line in begun if line["event"] == "registered"] or plans)[-1], []
    listed, plan = runs.about.get("plan") or {}, plans[-1]
    if any(listed.get(key) != plan[key] for key in ("seeds", "looks")):
        found.append("The experiment's plan is not the one that was registered.")
    seeds = {run.seed for run in runs.runs}
    arms = {run.arm for run in runs.runs}
    lost = [seed_text(seed) for seed in plan["seeds"][: _needed(plan, runs)] if seed not in seeds]
    if lost:
        found.append(
            f"Seeds of the registered plan are missing from the experiment: {', '.join(lost)}."
        )
    late = [seed for seed in sorted(seeds) if seed not in plan["seeds"]]
    if late:
        found.append(
            "Seeds were added after the plan, and decide no claim: "
            f"{', '.join(map(seed_text, late))}."
        )
    dropped = [arm for arm in first["arms"] if arm not in arms]
    if dropped:
        found.append(
            f"Arms of the registered plan are missing from the experiment: {', '.join(dropped)}."
        )
    for later in plans[plans.index(first) + 1 :]:
        found += _changed(first["claims"], later["claims"])
        first = later
    return list(dict.fromkeys(found))


def _needed(plan: dict[str, Any], runs: Runs) -> int:
    """Return how many seeds should be listed: all of them, or those of the looks that were made."""
    made = [run.seed for run in runs.runs if run.state in FINISHED]
    reached = max((plan["seeds"].index(s) + 1 for s in made if s in plan["seeds"]), default=0)
    return next((look for look in plan["looks"] if look >= reached), plan["looks"][-1])


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    new = [says for key, says in after.items() if key not in before]
    gone = [says for key, says in before.items() if key not in after]
    found = [f"After the first result a claim was written or changed: {says}." for says in new]
    return found + [f"After the first result a claim was taken out: {says}." for says in gone]


def _of_results(runs: Runs, journal: Journal) -> list[str]:
    """Compare the results that were written down with those that are there."""
    found, ended = [], journal.of("finished")
    last = {line["run"]: line.get("digest", "") for line in ended}
    deleted = {line["run"] for line in journal.of("deleted")}
    twice = [name for name, count in Counter(line["run"] for line in ended).items() if count > 1]
    if twice:
        found.append(f"Runs were made again after they had a result: {', '.join(twice)}.")
    here = {run.path.name: run for run in (*runs.runs, *runs.trials, *runs.former)
            if isinstance(run, Run)}  # fmt: skip
    for name, wanted in last.items():
        run = here.get(name) or Run(runs.path / name, name, 0)
        try:
            status = run.status
        except (DamagedError, UserError):
            continue  # the run itself tells that it is damaged
        if status["state"] not in FINISHED:
            how = "was deleted" if name in deleted else "is gone without a command that deleted it"
            found.append(f"{name} had a result, which {how}.")
        elif wanted and digest(status) != wanted:
            found.append(f"{name} is not as it was when it ended: its files were changed.")
    return found


def history(path: Path) -> list[str]:
    """Tell an experiment's journal line by line."""
    lines = []
    for line in read_journal(path).lines:
        if line["event"] == "registered":
            what = (
                f"registered: seeds {', '.join(map(seed_text, line['seeds']))}; looks at "
                f"{', '.join(map(str, line['looks']))} seeds; arms: {len(line['arms'])}; "
                f"claims: {len(line['claims'])}"
            )
        else:
            what = f"{line['event']}: {line['run']}"
        lines.append(f"{line['at']}  {what}")
    return lines

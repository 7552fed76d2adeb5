"""Compares two makings of one question, such as a rerun and what was published, run by run."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from normlab.errors import UserError
from normlab.evidence.comparison import Arm
from normlab.evidence.verdicts import Verdict, judge
from normlab.reports.english import NONE, count_runs, interval, number
from normlab.reports.publishing import claimed, headline
from normlab.reports.run_agreement import ROUNDING, TOLERANCE, Difference, pair, values_agree
from normlab.reports.shown_comparison import compare
from normlab.reports.text_columns import columns
from normlab.store.record import Record
from normlab.store.runs import Runs
from normlab.store.seeds import seed_text

RunKey = tuple[str, int, str]
"""Runs are paired by arm, seed and axes."""


class Words(NamedTuple):
    """Words for the second of two experiments: an adjective, a noun, and what follows a value."""

    adjective: str
    noun: str
    of_value: str


PUBLISHED = Words("published", "what was published", "published")
REFERENCE = Words("reference", "the reference", "in the reference")


@dataclass(frozen=True, eq=False)
class Agreement:
    """Holds the agreement of a rerun with published results, or with any other experiment.

    Attributes:
        measure: the measure that the arms are shown by.
        arms: for each name the arm as published and as rerun; None if one of them lacks it.
        verdicts: the claims that both have, as published and as rerun.
        pairs: the number of runs that both have.
        alike: the number of these that were made on the same kind of machine both times.
        tolerance: the tolerance for the values of the others.
        disagreements: everything in which the two differ, each with its place and both values.
        words: what the experiment is called that the rerun is compared with.
    """

    measure: str
    arms: dict[str, tuple[Arm | None, Arm | None]]
    verdicts: list[tuple[Verdict, Verdict]]
    pairs: int
    alike: int
    tolerance: float
    disagreements: list[str]
    words: Words = PUBLISHED

    def __str__(self) -> str:
        rows = [
            [
                "arm",
                f"{self.words.adjective} {self.measure}",
                "n",
                "rerun",
                "n",
                "largest difference",
            ]
        ]
        rows += [[name, *_cells(*pair)] for name, pair in self.arms.items()]
        lines = [
            f"{count_runs(self.pairs)} of both compared, seed by seed: {self.alike} made on the "
            f"same kind of machine, which must agree to rounding ({ROUNDING:g} of the value); "
            f"{self.pairs - self.alike} on another, to {self.tolerance:g}.",
            "",
            *columns(rows),
            "",
        ]
        for before, now in self.verdicts:
            same = "the same" if before.outcome == now.outcome else "ANOTHER"
            if self.words is PUBLISHED:
                same = "as published" if before.outcome == now.outcome else "NOT AS PUBLISHED"
            lines += [
                before.claim.says,
                f"  {self.words.adjective}: {_decided(before)}",
                f"  {'rerun:':<{len(self.words.adjective)}}  {_decided(now)}: {same}",
            ]
        count = len(self.disagreements)
        said = f"{count} disagreement{'' if count == 1 else 's'}:" if count else "They agree."
        return "\n".join([*lines, "", said, *(f"- {text}" for text in self.disagreements)])


def agreement(
    rerun: Runs, published: Runs, *, tolerance: float = TOLERANCE, common: bool = False
) -> Agreement:
    """Compare a rerun with published results, run by run.

    Args:
        rerun: the runs that were made again: a folder, what was published of it, or a bundle.
        published: what they are compared with: what `normlab publish` wrote, or any of the others.
        tolerance: the tolerance for values of runs that were made on another kind of machine,
            absolute below 1 and relative above.
        common: compare only the runs that both have, without tuning and verdicts.

    Raises:
        UserError: there is nothing to compare, or the tolerance is negative.
    """
    words = PUBLISHED if "shown" in published.about else REFERENCE
    if not tolerance >= 0:
        raise UserError(f"the tolerance must be 0 or more, got {tolerance}")
    old, new = (_by_key(runs) for runs in (published, rerun))
    both = [key for key in old if key in new]
    if not both:
        raise UserError(f"{rerun.path} and {published.path} have no run in common")
    found = [] if common else _missing(old, new, words)
    alike = 0
    for key in both:
        is_alike, differences = pair(old[key], new[key], tolerance)
        alike += is_alike
        found += [_told(f"{key[0]}, seed {seed_text(key[1])}: ", one, words) for one in differences]
    verdicts: list[tuple[Verdict, Verdict]] = []
    if not common:
        within = 0.0 if alike == len(both) else tolerance
        found += [_told("", one, words) for one in _of_experiment(published, rerun, within)]
        verdicts, others = _verdicts(published, rerun, words)
        found += others
    measure = _shown_measure(published)
    before, now = ({arm.name: arm for arm in compare(runs, measure=measure).arms}
                   for runs in (published, rerun))  # fmt: skip
    arms = {name: (before.get(name), now.get(name)) for name in {**before, **now}}
    return Agreement(measure, arms, verdicts, len(both), alike, tolerance, found, words)


def _shown_measure(runs: Runs) -> str:
    """Return the measure that was published, or the one that most claims use."""
    shown = runs.about.get("shown") or {}
    return shown.get("measure") or headline(claimed(runs))


def _by_key(runs: Runs) -> dict[RunKey, Record]:
    found: dict[RunKey, Record] = {}
    for record in map(Record.read, runs.runs):
        key = record.arm, record.seed, json.dumps(record.axes, sort_keys=True)
        if key in found:
            raise UserError(f"{runs.path}: {record.arm} has seed {seed_text(record.seed)} twice")
        found[key] = record
    return found


def _missing(old: dict[RunKey, Record], new: dict[RunKey, Record], words: Words) -> list[str]:
    """List the arms and seeds that one of the two lacks."""
    found = []
    for one, other, where in ((old, new, words.noun), (new, old, "what was rerun")):
        arms = {key[0] for key in other}
        lacking = [key for key in one if key not in other]
        whole = dict.fromkeys(arm for arm, _, _ in lacking if arm not in arms)
        found += [f"{arm}: this arm is only in {where}" for arm in whole]
        found += [
            f"{arm}, seed {seed_text(seed)}, {axes}: this run is only in {where}"
            for arm, seed, axes in lacking
            if arm in arms
        ]
    return found


def _of_experiment(published: Runs, rerun: Runs, tolerance: float) -> list[Difference]:
    """Compare the tuning and the target."""
    old, new = ({"target": runs.about.get("target"), **_tuned(runs)} for runs in (published, rerun))
    return [
        (key, old.get(key), new.get(key))
        for key in dict.fromkeys([*old, *new])
        if not values_agree(old.get(key), new.get(key), tolerance if "score" in key else 0.0)
    ]


def _tuned(runs: Runs) -> dict[str, Any]:
    """List the values that tuning used, chose and saw, by place."""
    tuning = runs.about.get("tuning") or {}
    found = {f"tuning {key}": tuning[key] for key in ("grid", "seeds", "measure") if key in tuning}
    for arm, own in tuning.get("chosen", {}).items():
        found |= {f"{arm}: tuned {axis}": value for axis, value in own["values"].items()}
        found |= {f"{arm}: scores at {json.dumps(one['values'])}": one["scores"]
                  for one in own["tried"]}  # fmt: skip
    return found


def _verdicts(
    published: Runs, rerun: Runs, words: Words
) -> tuple[list[tuple[Verdict, Verdict]], list[str]]:
    before, now = ({v.claim.hash: v for v in judge(runs)} for runs in (published, rerun))
    both = [(before[key], now[key]) for key in before if key in now]
    found = []
    for one, other in both:
        for what, a, b in (("verdict", one.outcome, other.outcome),
                           ("standing", one.standing, other.standing)):  # fmt: skip
            if a != b:
                found.append(_told(f"claim '{one.claim.says}': ", (what, a, b), words))
    for own, others, where in ((before, now, words.noun), (now, before, "what was rerun")):
        found += [f"claim '{verdict.claim.says}' ({verdict.claim.expect}): it is only in "
                  f"{where}" for key, verdict in own.items() if key not in others]  # fmt: skip
    return both, found


def _told(where: str, difference: Difference, words: Words) -> str:
    place, old, new = difference
    return f"{where}{place}: {_shown(old)} {words.of_value}, {_shown(new)} rerun"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cells(old: Arm | None, new: Arm | None) -> list[str]:
    cells = []
    for arm in (old, new):
        if arm is None or len(arm.sample) == 0:
            cells += [NONE, "0"]
            continue
        spread = f", {interval(arm.mean.interval)}" if len(arm.sample) > 1 else ""
        cells += [f"{number(arm.mean.estimate)}{spread}", str(len(arm.sample))]
    if old is None or new is None:
        return [*cells, NONE]
    before, now = (
        dict(zip(arm.sample.seeds, arm.sample.values, strict=True)) for arm in (old, new)
    )
    apart = [abs(float(before[seed] - now[seed])) for seed in before if seed in now]
    return [*cells, f"{max(apart):.2g}" if apart else NONE]


def _decided(verdict: Verdict) -> str:
    if verdict.contrast is None:
        return f"{verdict.outcome}, {verdict.why}"
    return (
        f"{verdict.outcome}, {number(verdict.contrast.estimate)} "
        f"({100 * verdict.level:.3g}% interval {interval(verdict.interval)})"
    )

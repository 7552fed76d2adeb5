"""A rerun beside what was published of the same question: do its arms and verdicts agree?"""

from dataclasses import dataclass

from normlab.errors import UserError
from normlab.evidence.columns import columns
from normlab.evidence.compare import Arm, compare
from normlab.evidence.contrasts import contrast
from normlab.evidence.english import NONE, count_runs, interval, number
from normlab.evidence.verdicts import Verdict, judge
from normlab.runs.directory import Runs

DECIDED = {"supported", "refuted"}


@dataclass(frozen=True, eq=False)
class Agreement:
    """How a rerun stands to what was published.

    Attributes:
        measure: what the arms are compared by.
        arms: name to the arm as published and as rerun; None where one of them lacks it.
        verdicts: the claims that both have, as published and as rerun.
        only: the claims that one of them lacks.
        same_runs: how many runs have the same resolved config in both.
        runs: how many the rerun has.
    """

    measure: str
    arms: dict[str, tuple[Arm | None, Arm | None]]
    verdicts: list[tuple[Verdict, Verdict]]
    only: list[str]
    same_runs: int
    runs: int

    @property
    def flipped(self) -> list[str]:
        """The claims that one supports and the other refutes."""
        return [
            before.claim.says
            for before, now in self.verdicts
            if {before.outcome, now.outcome} == DECIDED
        ]

    def __str__(self) -> str:
        same = f"{self.same_runs} of {count_runs(self.runs)} have the config of a published one"
        rows = [["arm", f"published {self.measure}", "n", "rerun", "n", "difference, 95% interval"]]
        rows += [[name, *_cells(*pair)] for name, pair in self.arms.items()]
        lines = [f"{same}.", "", *columns(rows), ""]
        for before, now in self.verdicts:
            word = {True: "as published", False: "not as published"}[before.outcome == now.outcome]
            if before.claim.says in self.flipped:
                word = "THE REVERSE"
            lines += [
                before.claim.says,
                f"  published: {_decided(before)}",
                f"  rerun:     {_decided(now)}: {word}",
            ]
        lines += [f"{says}\n  only one of the two makes this claim" for says in self.only]
        return "\n".join(lines)


def agreement(rerun: Runs, published: Runs) -> Agreement:
    """Compare a rerun with published results, by the measure that they show.

    Raises:
        UserError: there is nothing to compare.
    """
    if "shown" not in published.about:
        raise UserError(f"{published.path} was not written by `normlab publish`")
    measure = published.about["shown"]["measure"]
    old, new = ({arm.name: arm for arm in compare(runs, measure=measure).arms}
                for runs in (published, rerun))  # fmt: skip
    if not set(old) & set(new):
        raise UserError(f"{rerun.path} and {published.path} have no arm in common")
    before, now = ({v.claim.hash: v for v in judge(runs)} for runs in (published, rerun))
    names = {entry.run.path.name for entry in published.entries}
    return Agreement(
        measure,
        {name: (old.get(name), new.get(name)) for name in {**old, **new}},
        [(before[key], now[key]) for key in before if key in now],
        [v.claim.says for v in (before | now).values() if (v.claim.hash in before)
         != (v.claim.hash in now)],
        sum(entry.run.path.name in names for entry in rerun.entries),
        len(rerun.entries),
    )  # fmt: skip


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
    found = contrast(new.sample, old.sample, paired=False)
    low, high = found.interval
    word = " (differs)" if low > 0 or high < 0 else ""
    return [*cells, f"{number(found.estimate)}, {interval(found.interval)}{word}"]


def _decided(verdict: Verdict) -> str:
    if verdict.contrast is None:
        return f"{verdict.outcome}, {verdict.why}"
    return (
        f"{verdict.outcome}, {number(verdict.contrast.estimate)} "
        f"({100 * verdict.level:.3g}% interval {interval(verdict.interval)})"
    )

"""Replays the committed questions look by look, and counts the runs that looks would have saved.

    python -m experiments.replay [ORDERS]

writes `results/replay.md`. The seeds of a question are put into random orders. In each order the
runs are looked at as `normlab run --until-decided` makes them: the arms that open claims need, look
by look, until every claim is decided or all seeds are used up. Nothing is trained.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.questions import Question, questions
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim, arms_of
from normlab.reports.markdown import markdown_table
from normlab.store.record import Record

ORDERS = 60

PAGE = Path(__file__).with_name("results") / "replay.md"

LOOKS = {3: (2, 3), 5: (2, 3, 4, 5)}
"""The looks by the number of seeds that a question has."""


class Replay(NamedTuple):
    """What looks did in one order of the seeds.

    Attributes:
        runs: how many runs were made.
        decided: how many claims were decided.
        undone: how many claims were decided otherwise than by all seeds at once, or not at all
            where these decide them.
    """

    runs: int
    decided: int
    undone: int


def replay(
    question: Question, looks: Sequence[int], order: Sequence[int], whole: Sequence[str]
) -> Replay:
    """Replay a question with its seeds in one order.

    Args:
        question: the question.
        looks: the numbers of seeds at the looks.
        order: its seeds.
        whole: the outcomes of its claims by all seeds at once.
    """
    plan = {"seeds": list(order), "looks": list(looks)}
    runs = replace(question.runs, about={**question.runs.about, "plan": plan})
    records, made = question.records, set()
    claims = [verdict.claim for verdict in question.verdicts]
    needed, verdicts = _arms(records, claims), []
    for count in looks:
        made |= {(r.arm, r.seed) for r in records if r.seed in order[:count] and r.arm in needed}
        known = [record for record in records if (record.arm, record.seed) in made]
        seen = replace(runs, runs=[_until(r, (r.arm, r.seed) in made) for r in records])
        verdicts = judge(seen)
        needed = _arms(known, [v.claim for v in verdicts if v.outcome == "undecided"])
        if not needed:
            break
    outcomes = [verdict.outcome for verdict in verdicts]
    decided = sum(one != "undecided" for one in outcomes)
    return Replay(len(made), decided, sum(a != b for a, b in zip(outcomes, whole, strict=True)))


def _arms(records: Sequence[Record], claims: Sequence[Claim]) -> set[str]:
    """Name the arms that claims are about."""
    return {r.arm for claim in claims for _, own in arms_of(records, claim) for r in own}


def _until(record: Record, made: bool) -> Record:
    """Return a record as it is, or as that of a run that was not begun."""
    if made:
        return record
    return replace(record, status={"state": "new"}, metrics=[], provenance=[], probes=[])


def row(
    question: Question, orders: int, rng: np.random.Generator
) -> tuple[list[str], tuple[int, int, float]]:
    """Replay a question in several orders; return its line, and its runs.

    Returns:
        The cells of the line; then the number of runs, of those that a claim is about, and of
        those made on average.
    """
    seeds = sorted({record.seed for record in question.records})
    looks = LOOKS[len(seeds)]
    plan = {"seeds": seeds, "looks": [len(seeds)]}
    fixed = judge(replace(question.runs, about={**question.runs.about, "plan": plan}))
    whole = [verdict.outcome for verdict in fixed]
    found = [replay(question, looks, list(rng.permutation(seeds)), whole) for _ in range(orders)]
    every, made = len(question.records), float(np.mean([one.runs for one in found]))
    about = _arms(question.records, [verdict.claim for verdict in question.verdicts])
    named = sum(record.arm in about for record in question.records)
    decided = float(np.mean([one.decided for one in found]))
    other = float(np.mean([one.undone for one in found]))
    cells = [
        question.name, ", ".join(map(str, looks)), str(every), str(named), f"{made:.1f}",
        f"{100 * (1 - made / every):.0f}%", f"{100 * (1 - made / named):.0f}%",
        f"{sum(one != 'undecided' for one in whole)} of {len(whole)}", f"{decided:.2f}",
        f"{other:.2f}",
    ]  # fmt: skip
    return cells, (every, named, made)


OPENING = """\
# The committed questions, replayed look by look

`python -m experiments.replay` wrote this page: {orders} random orders of each question's seeds, by
`numpy.random.default_rng(0)`, looked at as `normlab run --until-decided` makes runs. Together
{saved:.0f}% of {every} runs would not have been needed: those of arms that no claim is about, which
`--until-decided` never makes, and {early:.0f}% of the {named} others. Trials that tune the arms are
not counted; they are made before the first look.

"Decided at once" is the number of claims that one look at all seeds decides; "by looks" is the mean
number that the looks decide, and "otherwise" the mean number on which the two differ.
"""


def main(orders: int = ORDERS) -> None:
    """Write the page."""
    rng, rows, counts = np.random.default_rng(0), [], []
    for question in questions():
        cells, own = row(question, orders, rng)
        rows.append(cells)
        counts.append(own)
        print(*cells, sep=" | ", flush=True)
    every, named, made = np.sum(counts, axis=0)
    heads = ["question", "looks", "runs", "of claims' arms", "runs made", "saved of all",
             "of claims' arms", "decided at once", "by looks", "otherwise"]  # fmt: skip
    opening = OPENING.format(
        orders=orders, every=int(every), named=int(named), saved=100 * (1 - made / every),
        early=100 * (1 - made / named),
    )  # fmt: skip
    PAGE.write_text("\n".join([opening, *markdown_table(heads, rows), ""]), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Writes docs/which.md: which normaliser to use, as far as the committed results know.

Everything on the page comes from `experiments/results/`. For each situation it names the arms that
may be the best there and those shown to be worse than another. If no arm was shown to be worse, or
nothing was measured, it says "not known".
"""

from collections.abc import Callable

import numpy as np

from experiments.questions import ROOT, Question, questions
from experiments.situations import ELSEWHERE, PRICED, SITUATIONS, WORDS, Situation
from normlab.evidence.contrasts import may_be_best
from normlab.evidence.samples import Sample, sample
from normlab.measures.measures import Measure
from normlab.reports.english import number
from normlab.reports.markdown import markdown_table
from normlab.store.record import Record

PAGE = ROOT / "docs" / "which.md"
FEWEST = 5
"""Arms with fewer seeds are not ranked, because their spread is hardly known."""

NOT_KNOWN, NOTHING = "not known", "Not known: nothing was measured."
WITHDRAWN = "Not known: every verdict on it was withdrawn, and its page says why."

OPENING = """\
# Which one should I use?

This page is made by `python -m experiments.which` from the committed results in
`experiments/results/`, and from nothing else. "May be the best" names every arm that was not shown
to be worse than another. The first of several has the best mean, and no more than that. Where no
arm was shown to be worse, where nothing was measured, where an arm has fewer than five seeds, or
where what was measured was withdrawn, it says "not known".

The arm with the best mean over all seeds is missing from a row in at most 5% of cases (intervals of
the difference, at a level raised for the number of arms). That holds over seeds, and over seeds
alone: for just these learning rates, these training and test images and this number of steps. With
another learning rate, other images or a longer training another arm may be the first, and no
interval here tells how often. The networks and the images are small. So the page tells where to
begin with yours, not where to end.
"""


def page(found: list[Question]) -> str:
    """Write the text of `docs/which.md`."""
    by_name = {question.name: question for question in found}
    lines = [OPENING]
    for situation in SITUATIONS:
        question = by_name.get(situation.question)
        lines += [f"## {situation.heading}", ""]
        lines += [NOTHING, ""] if question is None else section(situation, question)
    lines += ["## Time and memory", "", *prices(by_name.get(PRICED)), ""]
    rows = [[words, _spoken_of(predicate, found)] for words, predicate in ELSEWHERE.items()]
    lines += ["## Elsewhere", "", *markdown_table(["where", "which one"], rows), ""]
    return "\n".join(lines)


def section(situation: Situation, question: Question) -> list[str]:
    """Write what a question's results say of a situation: a row a setting, then its claims."""
    measure, rows = Measure.parse(situation.measure), []
    judged = [
        verdict for verdict in question.verdicts if str(verdict.claim.measured) == str(measure)
    ]
    stand = [verdict for verdict in judged if not verdict.retracted]
    beware = question.remarks.beware
    opening = [
        f"By {measure}; {evidence(question)}.",
        "",
        *([f"**Beware.** {beware}", ""] if beware else []),
    ]
    if judged and not stand:
        return [*opening, WITHDRAWN, ""]
    for setting, own in _by(
        question.records, situation, of_choices=False, but=measure.axis
    ).items():
        ranked = _by(own, situation, of_choices=True, but=measure.axis)
        rows.append([setting or "all", *_ranking(ranked, situation, measure)])
    return [
        *opening,
        *markdown_table(["where", "may be the best", "shown to be worse"], rows),
        "",
        *(f"- {verdict.outcome}: {verdict.claim.says}" for verdict in stand),
        *([""] if stand else []),
    ]


def _by(
    records: list[Record], situation: Situation, *, of_choices: bool, but: str | None
) -> dict[str, list[Record]]:
    """Group runs by what a reader chooses, or by the setting."""
    found: dict[str, list[Record]] = {}
    for record in records:
        words = [
            WORDS[axis](record)
            if axis in WORDS
            else (value if isinstance(value, str) else f"{axis}={value}")
            for axis, value in record.axes.items()
            if axis != but and (axis in situation.choices) == of_choices
        ]
        found.setdefault(", ".join(words), []).append(record)
    return found


def _ranking(arms: dict[str, list[Record]], situation: Situation, measure: Measure) -> list[str]:
    """List the arms that may be the best, and those shown to be worse."""
    higher = measure.higher_is_better if situation.higher is None else situation.higher
    samples = _known(arms, measure)
    if len(samples) < 2:
        return [NOT_KNOWN, "-"]
    if (n := min(map(len, samples))) < FEWEST:
        return [f"{NOT_KNOWN}: {n} seeds an arm are too few to rank {len(samples)}", "-"]
    best = may_be_best(samples, bool(higher))
    worse = [one for one in samples if one not in best]
    if not worse:
        return [f"{NOT_KNOWN}: none of the {len(samples)} was shown to be worse", "-"]
    return [", ".join(map(_shown, best)), ", ".join(map(_shown, worse))]


def _known(arms: dict[str, list[Record]], measure: Measure) -> list[Sample]:
    """List the arms that have at least two values."""
    found = [sample(name, own, measure) for name, own in arms.items()]
    return [one for one in found if len(one) > 1]


def _shown(one: Sample) -> str:
    if one.censored.any():
        return f"{one.name} (not reached by {int(one.censored.sum())} of {len(one)})"
    return f"{one.name} ({number(float(one.values.mean()))})"


def prices(question: Question | None) -> list[str]:
    """Write what the arms cost, the cheapest first."""
    if question is None:
        return [NOTHING]
    arms: dict[str, list[Record]] = {}
    for record in question.records:
        arms.setdefault(record.arm, []).append(record)
    costs = {
        name: [float(np.median(sample(name, own, Measure(price)).values))
               for price in ("seconds_per_step", "peak_memory")]
        for name, own in arms.items()
    }  # fmt: skip
    least = [min(own) for own in zip(*costs.values(), strict=True)]
    rows = [
        [name, *(f"{own:.3g} (x{own / low:.2f})" for own, low in zip(all_, least, strict=True))]
        for name, all_ in sorted(costs.items(), key=lambda item: item[1])
    ]
    return [
        f"Medians of the runs; {evidence(question)}." + _side_by_side(question),
        "",
        *markdown_table(["arm", "seconds a step", "megabytes a step"], rows),
    ]


def _side_by_side(question: Question) -> str:
    """Warn that seconds are rough if runs were made at once."""
    most = max(proof.get("at_once", 1) for run in question.runs for proof in run.provenance)
    return f" {most} runs were made at once, so the seconds are rough." if most > 1 else ""


def link(question: Question) -> str:
    """Link the page of a question's results from `docs/`."""
    return f"[{question.name}](../experiments/results/{question.name}/results.md)"


def evidence(question: Question) -> str:
    """Link a question's results, and say how much evidence they are."""
    return f"{link(question)}, n = {question.n} seeds an arm, {question.budget}, {question.setting}"


def _spoken_of(predicate: Callable[[Record], bool] | None, found: list[Question]) -> str:
    """Link the questions that measured something there."""
    names = [
        link(question) for question in found if predicate and any(map(predicate, question.records))
    ]
    return f"see {', '.join(names)}" if names else NOT_KNOWN


if __name__ == "__main__":
    PAGE.write_text(page(questions()), "utf-8")
    print(PAGE.relative_to(ROOT))

"""Write docs/which.md: which normaliser to use, as far as the committed results know.

Everything on the page comes from `experiments/results/`. By situation it names the arms that may be
the best there and those shown to be worse than another; where no arm was shown to be worse, or
nothing was measured, it says "not known".
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.questions import ROOT, Question, questions
from normlab.evidence.best import may_be_best
from normlab.evidence.english import number
from normlab.evidence.markdown import markdown_table
from normlab.evidence.samples import Sample, sample
from normlab.runs.measures import Measure
from normlab.runs.record import Record

PAGE = ROOT / "docs" / "which.md"
NOT_KNOWN = "not known"

OPENING = """\
# Which one should I use?

This page is made by `python -m experiments.which` from the committed results in
`experiments/results/`, and from nothing else. "May be the best" names every arm that was not shown
to be worse than another: in each row the arm that is truly the best is missing from it in at most
5% of cases (intervals of the difference over seeds, at a level raised for the number of arms). The
first of several has the best mean, and no more than that. Where no arm was shown to be worse, or
nothing was measured, it says "not known". What was measured was measured on small networks and
small images; it tells where to begin with yours, not where to end.
"""


@dataclass(frozen=True)
class Situation:
    """One heading of the page.

    Attributes:
        heading: where the reader is.
        question: the results that speak of it.
        measure: by which arms are ranked.
        higher: whether more of it is better, where the measure does not say.
        choices: the axes whose values are what one chooses; the others make the settings.
        among: only those that may be the best by this measure: for prices.
    """

    heading: str
    question: str
    measure: str
    higher: bool | None = None
    choices: tuple[str, ...] = ("norm", "kernel")
    among: str | None = None


ACCURACY, CORRUPTED = "final(test_accuracy)", "probe(under_corruption.{}, end)"
DROPOUT = ("norm", "kernel", "model.dropout")

SITUATIONS = (
    Situation("Photographs", "catalogue", ACCURACY),
    Situation("Few steps", "faster", "steps_to(test_accuracy, 0.5)"),
    Situation("A learning rate that cannot be tuned", "learning_rates",
              "largest_stable(learning_rate)"),
    Situation("Depth, with shortcuts and without", "depth", ACCURACY),
    Situation("Little data: what regularises", "regularisation", ACCURACY, choices=DROPOUT),
    Situation("X-rays in small batches: ranking them", "medical", "final(test_auc)"),
    Situation("X-rays in small batches: naming both classes", "medical",
              "final(test_balanced_accuracy)"),
    Situation("Speech of a voice that was never heard", "speech", ACCURACY),
    Situation("Other light at test time, statistics as stored", "light",
              CORRUPTED.format("corrupted"), True),
    Situation("Other light at test time, statistics of 200 images from there", "light",
              CORRUPTED.format("adapted_200"), True),
    Situation("Time, among those that may be the most accurate on photographs", "catalogue",
              "seconds_per_step", among=ACCURACY),
    Situation("Memory, among those that may be the most accurate on photographs", "catalogue",
              "peak_memory", among=ACCURACY),
)  # fmt: skip

ELSEWHERE: dict[str, Callable[[Record], bool] | None] = {
    "GPUs and TPUs": lambda r: any(
        not device.startswith("cpu") for proof in r.provenance for device in proof["devices"]),
    "several devices": lambda r: any(len(proof["devices"]) > 1 for proof in r.provenance),
    "images larger than 32x32, ImageNet": lambda r: r.config["data"]["name"] == "imagenet",
    "transformers": lambda r: r.config["model"]["name"] == "vit",
    "lower precision": lambda r: r.config["model"].get("dtype", "float32") != "float32",
    "batches of more than 1,000": lambda r: r.config["train"]["batch_size"] > 1000,
    "language models, detection, segmentation, generation, reinforcement learning": None,
    "fine-tuning of pretrained networks": None,
}  # fmt: skip
"""Where people also stand, and which runs would speak of it; None where normlab cannot ask yet."""


def page(found: list[Question]) -> str:
    """`docs/which.md`."""
    by_name = {question.name: question for question in found}
    lines = [OPENING]
    for situation in SITUATIONS:
        question = by_name.get(situation.question)
        lines += [f"## {situation.heading}", ""]
        lines += (
            [f"{NOT_KNOWN.capitalize()}: nothing was measured.", ""]
            if question is None
            else (section(situation, question))
        )
    rows = [[words, _spoken_of(predicate, found)] for words, predicate in ELSEWHERE.items()]
    lines += ["## Elsewhere", "", *markdown_table(["where", "which one"], rows), ""]
    return "\n".join(lines)


def section(situation: Situation, question: Question) -> list[str]:
    """What one question's results say of a situation: a row for each setting, then its claims."""
    measure, records = Measure.parse(situation.measure), list(map(Record.read, question.entries))
    rows = []
    for setting, own in _by(records, situation, of_choices=False, but=measure.axis).items():
        ranked = _by(own, situation, of_choices=True, but=measure.axis)
        rows.append([setting or "all", *_ranking(ranked, situation, measure)])
    evidence = f"[{question.name}](../experiments/results/{question.name}/results.md)"
    told = [
        f"- {verdict.outcome}: {verdict.claim.says}"
        for verdict in question.verdicts
        if str(Measure.parse(verdict.claim.measure)) == str(measure)
    ]
    return [
        f"By {measure}; {evidence}, n = {question.n}, {question.setting}.",
        "",
        *markdown_table(["where", "may be the best", "shown to be worse"], rows),
        "",
        *([*told, ""] if told else []),
    ]


def _by(
    records: list[Record], situation: Situation, *, of_choices: bool, but: str | None
) -> dict[str, list[Record]]:
    """Runs by what one chooses, or by the setting."""
    found: dict[str, list[Record]] = {}
    for record in records:
        words = [
            value if isinstance(value, str) else f"{axis}={value}"
            for axis, value in record.axes.items()
            if axis != but and (axis in situation.choices) == of_choices
        ]
        found.setdefault(", ".join(words), []).append(record)
    return found


def _ranking(arms: dict[str, list[Record]], situation: Situation, measure: Measure) -> list[str]:
    """Who may be the best, and who was shown to be worse."""
    higher = measure.higher_is_better if situation.higher is None else situation.higher
    if situation.among is not None:
        gate = Measure.parse(situation.among)
        best = may_be_best(_known(arms, gate), bool(gate.higher_is_better))
        arms = {one.name: arms[one.name] for one in best}
    samples = _known(arms, measure)
    if len(samples) < 2:
        return [NOT_KNOWN, "-"]
    best = may_be_best(samples, bool(higher))
    worse = [one for one in samples if one not in best]
    if not worse:
        return [f"{NOT_KNOWN}: none of the {len(samples)} was shown to be worse", "-"]
    return [", ".join(map(_shown, best)), ", ".join(map(_shown, worse))]


def _known(arms: dict[str, list[Record]], measure: Measure) -> list[Sample]:
    """The arms that have at least two values."""
    found = [sample(name, own, measure) for name, own in arms.items()]
    return [one for one in found if len(one) > 1]


def _shown(one: Sample) -> str:
    if one.censored.any():
        return f"{one.name} (not reached by {int(one.censored.sum())} of {len(one)})"
    return f"{one.name} ({number(float(one.values.mean()))})"


def _spoken_of(predicate: Callable[[Record], bool] | None, found: list[Question]) -> str:
    """Where something was measured there; whether it decides anything, its page says."""
    names = [
        f"[{question.name}](../experiments/results/{question.name}/results.md)"
        for question in found
        if predicate and any(map(predicate, map(Record.read, question.entries)))
    ]
    return f"see {', '.join(names)}" if names else NOT_KNOWN


if __name__ == "__main__":
    PAGE.write_text(page(questions()), "utf-8")
    print(PAGE.relative_to(ROOT))

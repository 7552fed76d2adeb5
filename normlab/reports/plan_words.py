"""Writes the plan of a sweep in words and tables for a terminal."""

import math

from normlab.evidence.chances import Chances
from normlab.evidence.imagined import Form
from normlab.evidence.noise import RULES
from normlab.evidence.plans import ClaimPlan, Row, SweepPlan
from normlab.evidence.power import MOST_SEEDS, between
from normlab.reports.english import count_runs, number
from normlab.reports.text_columns import columns, visible, wrapped
from normlab.store.published import shipped_results

WIDTH = 80
INDENT = "   "
DECIDED = "Decided in four cases of five if"

READ = (
    "How to read it: suppose that the number in the first column is the truth. The sweep then "
    "gives each verdict with these chances. 'Seeds needed' is how many seeds an arm give a verdict "
    "in four cases of five; no number does if the truth is the claim's own bound. A verdict is "
    "wrong in at most one case of twenty."
)
RANGES = (
    "Of two chances, the first holds while all other claims are open, and the second once all "
    "others are decided: the more claims there are, the more each must show (Holm's rule)."
)


def plan_lines(plan: SweepPlan, width: int = WIDTH) -> list[str]:
    """Write a plan for a terminal."""
    width = min(width, WIDTH)
    lines = wrapped(_opening(plan), width)
    if not plan.claims:
        return [*lines, *wrapped("The config makes no claims, so there is nothing to plan.", width)]
    told: dict[str, int] = {}
    for place, claim in enumerate(plan.claims, 1):
        first = told.setdefault(noise_words(claim), place)
        noise = noise_words(claim) if first == place else f"Noise: as of claim {first}."
        lines += ["", *_claim_lines(claim, place, noise, width)]
    if plan.together is not None:
        lines += ["", *wrapped(_all_at_once(plan), width)]
    if any(claim.design for claim in plan.claims):
        lines += ["", *wrapped(READ, width)]
        lines += wrapped(RANGES, width) if len(plan.claims) > 1 else []
    return lines


def short_lines(plan: SweepPlan) -> list[str]:
    """Write two lines a claim: the claim, and what the sweep can tell of it."""
    lines = []
    for claim in plan.claims:
        lines += [f"{visible(claim.claim.says)}:", f"  {finding(claim)}"]
    return lines


def finding(plan: ClaimPlan) -> str:
    """Say in one or two sentences which true effects a sweep decides."""
    if plan.design is None:
        return f"The chances of its verdicts cannot be told: {plan.lacking}."
    if len(plan.design.bounds) > 1:
        return _of_margin(plan)
    parts = [f"{_beyond(sides)} (then {verdict})"
             for verdict, sides in (("supported", plan.supported), ("refuted", plan.refuted))
             if _beyond(sides)]  # fmt: skip
    if not parts:
        return "The sweep is too small to decide it, whatever the truth."
    what = plan.claim.expectation.quantity
    return f"{DECIDED} the true {what} is {', or '.join(parts)}.{_roughly(plan)}"


def _beyond(sides: tuple[float | None, float | None]) -> str:
    low, high = sides
    words = [f"{figure(low)} or less"] if low is not None else []
    return " or ".join([*words, *([f"{figure(high)} or more"] if high is not None else [])])


def _of_margin(plan: ClaimPlan) -> str:
    """Say from which true differences on arms match, and from which they do not."""
    design = plan.design
    assert design is not None
    inside, outside = plan.supported, plan.refuted
    match, apart = "supported", "refuted"
    if design.expected.outside:
        inside, outside, match, apart = outside, inside, apart, match
    parts = []
    if inside[0] is not None and inside[1] is not None:
        parts.append(f"between {figure(inside[0])} and {figure(inside[1])} (then {match})")
    if _beyond(outside):
        parts.append(f"{_beyond(outside)} (then {apart})")
    text = f"{DECIDED} the true difference is {', or '.join(parts)}." if parts else ""
    if len(parts) == 2 or design.bounds[1] <= 0:  # no arms match exactly
        return text
    seeds = design.seeds_needed(0.0)
    needs = f"more than {MOST_SEEDS}" if seeds is None else f"about {seeds}"
    return (
        f"{text} These are too few seeds to find so often that it is {match}, even if there is no "
        f"difference at all: that takes {needs} seeds an arm."
    ).strip()


def _roughly(plan: ClaimPlan) -> str:
    """Say how roughly the noise is known, by the distance from the bound that is decided."""
    ends, design = plan.smallest_range, plan.design
    if ends is None or design is None:
        return ""
    low, high = plan.supported
    end, bound = high if low is None else low, design.bounds[0]
    if end is None:
        return ""
    near, far = (figure(one) if math.isfinite(one) else "more than can be told" for one in ends)
    return (
        f" The noise is known only roughly, so the distance from {figure(bound)}, which is "
        f"{figure(abs(end - bound))} here, may be anything from {near} to {far}."
    )


def noise_words(plan: ClaimPlan) -> str:
    """Say how large the noise is, and where that is known from."""
    design = plan.design
    if design is None:
        return ""
    noise = design.noise
    sizes = list(dict.fromkeys(figure(one) for one in noise.deviations))
    text = f"Noise: seeds of one arm vary by {' and '.join(sizes)} (standard deviation)"
    if design.form.paired != "none" and design.form.arms > 1:
        text += f", and two arms' runs of one seed are correlated by {noise.correlation:.2f}"
    if design.form.quantity == "ratio":
        text += f"; the right arm's mean is {figure(noise.base or math.nan)}"
    return f"{text}, {source_words(plan)}."


def source_words(plan: ClaimPlan) -> str:
    """Say where the noise comes from, and how like that setting is."""
    if plan.found is None:
        return "as stated"
    low, high = plan.found.seeds
    seeds = str(low) if low == high else f"{low} to {high}"
    arms = "1 arm" if plan.found.arms == 1 else f"{plan.found.arms} arms"
    rule = RULES[plan.found.rule]
    folder = plan.found.folder
    where = f"normlab's own '{folder.name}'" if folder in shipped_results() else str(folder)
    return f"as in {visible(where)} ({rule}: {arms} of {seeds} seeds)"


def figure(value: float) -> str:
    """Write an effect with three significant digits.

    >>> figure(0.0), figure(0.02), figure(-0.012345), figure(1.0)
    ('0', '0.02', '-0.0123', '1')
    """
    return f"{value:.3g}" if abs(value) < 1000 else number(value)


def _opening(plan: SweepPlan) -> str:
    arms = "1 arm" if plan.arms == 1 else f"{plan.arms} arms"
    text = f"{visible(plan.name)}: {count_runs(plan.runs)}"
    if plan.looks:
        seeds = plan.looks[-1]
        text += f", {arms} of {seeds} seed{'' if seeds == 1 else 's'}"
        if len(plan.looks) > 1:
            text += f", looks at {', '.join(map(str, plan.looks))} seeds"
    else:
        text += f", {arms}"
    if plan.trials:
        text += f", after {plan.trials} trials that tune the arms"
    return f"{text}. Time: {_time(plan)}."


def _time(plan: SweepPlan) -> str:
    if plan.seconds is None:
        return "not known, because no like run was made"
    minutes = plan.seconds / 60
    about = "under a minute" if minutes < 1 else f"about {minutes:.0f} min"
    return f"{about} one after the other, as like runs took{plan.machine}"


def _claim_lines(plan: ClaimPlan, place: int, noise: str, width: int) -> list[str]:
    room = width - len(INDENT)
    lines = wrapped(f"{place}. {visible(plan.claim.says)}", width)
    texts = [_what(plan), finding(plan)]
    lines += [INDENT + line for text in texts for line in wrapped(text, room)]
    if plan.design is not None:
        lines += ["", *columns(_table(plan), INDENT), ""]
        for text in (noise, *_remarks(plan)):
            lines += [INDENT + line for line in wrapped(text, room)]
    return lines


def _what(plan: ClaimPlan) -> str:
    """Name what the claim is about, and what it expects."""
    claim, names = plan.claim, list(map(visible, plan.arms))
    if len(names) == 4:
        first, second = (f"({a} minus {b})" for a, b in (names[:2], names[2:]))
        what = f"{claim.measured}, {first} minus {second}"
    elif len(names) == 2:
        word = "over" if claim.expectation.quantity == "ratio" else "minus"
        what = f"{claim.measured} of {names[0]} {word} that of {names[1]}"
    else:
        what = f"mean {claim.measured} of {', '.join(names)}"
    form = plan.design.form if plan.design is not None else Form("mean", 1)
    paired = {"all": ", paired by seed", "pairs": ", paired by seed within each pair", "none": ""}
    pairs = paired[form.paired] if form.arms > 1 else ""
    return f"{what}{pairs}; expected: {claim.expectation.text}"


def _table(plan: ClaimPlan) -> list[list[str]]:
    quantity = plan.claim.expectation.quantity
    assert plan.design is not None
    either = " (+ or -)" if len(plan.design.bounds) > 1 else ""
    rows = [[f"true {quantity}{either}", *Chances._fields, "seeds needed"]]
    several = plan.design.claims > 1
    for row in plan.rows:
        mark = " (stated)" if row.stated else ""
        rows.append([f"{figure(row.effect)}{mark}", *_cells(row, several), _seeds(plan, row)])
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [[cell.rjust(size) for cell, size in zip(row, wide, strict=True)] for row in rows]


def _cells(row: Row, several: bool) -> list[str]:
    cells = []
    for one, other in zip(row.chances, row.others_decided, strict=True):
        ends = dict.fromkeys(
            f"{100 * share:.0f}" for share in ((one, other) if several else (one,))
        )
        cells.append(f"{' to '.join(ends)}%")
    return cells


def _seeds(plan: ClaimPlan, row: Row) -> str:
    assert plan.design is not None
    if row.seeds is not None:
        return str(row.seeds)
    on_bound = any(math.isclose(row.effect, bound) for bound in plan.design.bounds)
    on_bound = on_bound or (row.effect == 0 and 0.0 in plan.design.bounds)
    return "no number" if on_bound else between((None, None))


def _remarks(plan: ClaimPlan) -> list[str]:
    claim, remarks = plan.claim, []
    assert plan.design is not None
    if claim.floor is not None:
        remarks.append(f"It stays undecided if no arm reaches its floor, {claim.floor}.")
    if plan.found is None and plan.design.form.paired != "none" and plan.design.form.arms > 1:
        if not plan.design.noise.correlation:
            remarks.append(
                "No correlation of paired runs is stated, so none is counted on (--correlation)."
            )
    elif plan.found is not None and plan.found.rule > 1:
        remarks.append(
            "That setting is only roughly alike: measure the noise with --pilot 3 before you rely "
            "on it."
        )
    return remarks


def _all_at_once(plan: SweepPlan) -> str:
    assert plan.together is not None
    parts = [
        f"claim {place + 1} is supported in {100 * one.supported:.0f}% of cases and refuted in "
        f"{100 * one.refuted:.0f}%"
        for place, one in enumerate(plan.together)
    ]
    return f"If all stated truths hold at once, {'; '.join(parts)}."

"""Writes a comparison as one HTML page that needs no network and has no scripts."""

import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from normlab.errors import UserError
from normlab.evidence.answers import HardExample, Mistake, class_accuracies, hardest, mistakes
from normlab.evidence.caveats import differing, made_with, tuning_lines
from normlab.evidence.comparison import Comparison
from normlab.evidence.remarks import read_remarks
from normlab.reports.arm_table import MEANING, rest, short_table
from normlab.reports.english import (
    LEVEL_OF_CLAIMS,
    NONE,
    about_arm,
    about_verdict,
    count_runs,
    interval,
    number,
    raised,
)
from normlab.reports.figures import arms, maps
from normlab.reports.figures import probes as probe_figures
from normlab.reports.figures.answers import draw_confusion, thumbnail
from normlab.reports.figures.style import COLOURS, FAINT, INK, save
from normlab.reports.markdown import caption, limits
from normlab.reports.noise import noise_tables
from normlab.reports.ranking import headlines, ranked
from normlab.reports.text_columns import BREAKABLE
from normlab.store.files import DamagedError
from normlab.store.outcomes import read_outcomes
from normlab.store.record import Record
from normlab.store.seeds import seed_text
from normlab.store.templating import environment, fill_in

PACKAGE = "normlab.reports"


TestImages = Callable[[Record], np.ndarray | None]
"""A function of a run that returns the images of its test set; None where there are none."""


def to_html(
    comparison: Comparison, command: str, test_images: TestImages = lambda record: None
) -> str:
    """Write the whole report; the same runs, data and command give the same bytes.

    Args:
        comparison: the comparison to report.
        command: the command that made the report, which the page shows.
        test_images: finds the images that the hardest examples are shown as.
    """
    keys, settings = differing(comparison.records)
    others = [arm for arm in ranked(comparison) if arm.difference is not None]
    return fill_in(
        PACKAGE,
        "report.html.j2",
        about=comparison.runs.about,
        comparison=comparison,
        command=command,
        counts=_counts(comparison),
        verdicts=[(verdict, about_verdict(verdict)) for verdict in comparison.verdicts],
        sentences=[about_arm(comparison, arm) for arm in others],
        **_arms(comparison),
        level_of_claims=LEVEL_OF_CLAIMS if raised(comparison.verdicts) else "",
        limits=limits(comparison),
        noise=noise_tables(comparison),
        pictures=_pictures(comparison),
        insides=_insides(comparison),
        answers=answers_of(comparison, test_images),
        seeds=list(map(seed_text, sorted({record.seed for record in comparison.records}))),
        grid=_grid(comparison),
        differing=[
            (key, [json.dumps(own[key]) if key in own else "" for own in settings.values()])
            for key in keys
        ],
        arms_of_settings=list(settings),
        tuning=tuning_lines(comparison.runs.about),
        made_with=made_with(comparison.records),
        warnings=_warnings(comparison),
        colours=COLOURS,
    )


def to_fragment(comparison: Comparison) -> str:
    """Write the verdicts, the table and the differences, for a notebook."""
    comparable = any(arm.difference is not None for arm in comparison.arms)
    return fill_in(
        PACKAGE,
        "fragment.html.j2",
        verdicts=[(verdict, about_verdict(verdict)) for verdict in comparison.verdicts],
        **_arms(comparison),
        picture=_svg(arms.differences(comparison)) if comparable else None,
        warnings=_warnings(comparison),
        colours=COLOURS,
    )


def _arms(comparison: Comparison) -> dict[str, Any]:
    """Give the templates what won, and the table of arms with what each row unfolds."""
    headings, rows = short_table(comparison)
    more = [
        [(heading, text, MEANING.get(heading, "")) for heading, text in cells.items()]
        for cells in rest(comparison)
    ]
    return {
        "headlines": headlines(comparison),
        "caption": caption(comparison),
        "headings": headings,
        "rows": list(zip(rows, more, strict=True)),
    }


def _foldable(name: str) -> Markup:
    """Let a browser break a long name after signs such as "_", and nowhere else."""
    return Markup("<wbr>").join(part for part in BREAKABLE.split(name) if part)


environment(PACKAGE).filters["foldable"] = _foldable


def _warnings(comparison: Comparison) -> list[str]:
    """List warnings, a person's remark first."""
    return [*filter(None, [read_remarks(comparison.runs.path).beware]), *comparison.warnings]


def _counts(comparison: Comparison) -> str:
    states = [record.state for record in comparison.records]
    words = {"new": "missing"}
    each = ", ".join(f"{states.count(s)} {words.get(s, s)}" for s in dict.fromkeys(states))
    return f"{count_runs(len(states))}: {each}"


VARIABLES = {
    **{colour: f"var(--arm-{index})" for index, colour in enumerate(COLOURS)},
    INK: "var(--ink)",
    FAINT: "var(--faint)",
}
"""The page's colours that replace those of the figures."""

Shown = tuple[str, str, Markup, tuple[str, str, Markup] | None]
"""A heading, its caption and picture, and one more picture with a summary and a caption."""

EVERY_SEED = ("every seed", "One line a run; a cross is where one diverged.")


def _pictures(comparison: Comparison) -> list[Shown]:
    """Draw all pictures except those of probes."""
    found: list[Shown] = []
    base, measure = comparison.against, comparison.measure

    def add(heading: str, says: str, figure: Figure, more: Figure | None = None) -> None:
        found.append((heading, says, _svg(figure), (*EVERY_SEED, _svg(more)) if more else None))

    if len(comparison.arms) > 1:
        says = (
            f"The difference of each arm's mean {measure} to that of {base}, with its 95% "
            f"interval; below it a tick for every run, minus the mean of {base}."
        )
        add(f"Differences to {base}", says, arms.differences(comparison))
    if any(len(arm.sample) for arm in comparison.arms):
        says = "A mark for every run; the line is the 95% interval of the mean."
        add("Every run", says, arms.values(comparison))
    present = [m for m in ("test_accuracy", "train_loss") if _has(comparison, m)]
    for metric in present:
        says = "The mean over seeds; the band is the 95% interval of the mean."
        every = arms.curves(comparison, metric, every_seed=True)
        name = metric.replace("_", " ").capitalize()
        add(f"{name} by step", says, arms.curves(comparison, metric), every)
    if "test_accuracy" in present:
        says = "The same against seconds of training, without compilation and evaluation."
        timed = arms.curves(comparison, "test_accuracy", x="train_seconds")
        add("Test accuracy by time", says, timed)
    for name in ("seconds_per_step", "peak_memory"):
        if any(name in a.prices and math.isfinite(a.mean.estimate) for a in comparison.arms):
            words = {"seconds_per_step": "time", "peak_memory": "memory"}[name]
            says = f"The mean {measure} with its 95% interval, and the median {words} of a step."
            add(f"Price in {words}", says, arms.price(comparison, name))
    found += _maps(comparison)
    return found


def _insides(comparison: Comparison) -> list[Shown]:
    """Draw a picture for each probe, and one with all its quantities to open on demand."""
    shown: list[Shown] = []
    for probe, found in probe_figures.probe_series(comparison).items():
        says = "The mean over seeds; the band reaches from the lowest seed to the highest."
        if any(own.layers and len(own.steps) > 1 for own in found.values()):
            says += (
                " Over steps: the median of the layers; the band reaches from the lowest layer to "
                "the highest."
            )
        more = None
        if probe_figures.has_more(found, probe):
            whole = _svg(probe_figures.probes(comparison, probe, every=True))
            more = ("every quantity", "As above.", whole)
        figure = _svg(probe_figures.probes(comparison, probe))
        shown.append((probe.replace("_", " ").capitalize(), says, figure, more))
    return shown


@dataclass(frozen=True)
class Answers:
    """Holds the answers of one run for the test set, and the examples that all runs find hard.

    The run is the first finished one of the best arm that has any. A hard example comes with the
    address of its picture, which is empty if the data are not there.
    """

    arm: str
    seed: str
    picture: Markup
    classes: list[tuple[str, str, str, str]]
    mistakes: list[Mistake]
    hard: list[tuple[HardExample, str]]
    damaged: list[str]


def answers_of(comparison: Comparison, test_images: TestImages) -> Answers | None:
    """Gather the answers of the runs; None where they have none, as published ones."""
    known, damaged = [], []
    for arm in ranked(comparison):
        for record in arm.records:
            if record.state != "done" or record.published:
                continue
            try:
                found = read_outcomes(record.path)
            except DamagedError as error:  # the rest of the page does not depend on it
                damaged.append(str(error))
                continue
            if found is not None:
                known.append((arm, record, found))
    if not known:
        return None
    arm, record, first = known[0]
    alike = [f for *_, f in known if np.array_equal(f.labels, first.labels)]
    classes = [
        (one.name, str(one.count), number(one.share), interval(one.interval) if one.count else NONE)
        for one in sorted(class_accuracies(first), key=lambda one: one.share)
    ]
    picture = _svg(draw_confusion(first))
    images = test_images(record)
    if images is not None and len(images) != len(first.labels):
        images = None  # others have taken their place since
    hard = [(one, "" if images is None else thumbnail(images[one.index])) for one in hardest(alike)]
    return Answers(
        arm.name, seed_text(record.seed), picture, classes, mistakes(first), hard, damaged
    )


def _has(comparison: Comparison, metric: str) -> bool:
    return any(metric in row for record in comparison.records for row in record.metrics)


def _maps(comparison: Comparison) -> list[tuple[str, str, Markup, None]]:
    found = []
    if comparison.measure.axis is None:
        try:
            down, across = maps.heat_axes(comparison)[:2]
        except UserError:
            pass
        else:
            says = f"The mean {comparison.measure} by {down} and {across}; hatched: no result."
            found.append((f"{down} by {across}", says, _svg(maps.heat(comparison)), None))
    if len({str(record.axes.get("data")) for record in comparison.records}) > 1:
        says = "The share of runs that reach each value, every data set counting alike."
        found.append(("Performance profile", says, _svg(maps.profile(comparison)), None))
    return found


def _grid(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """List every planned run: for each arm a (state, text) by seed."""
    seeds = sorted({record.seed for record in comparison.records})
    cells: dict[str, dict[int, tuple[str, str]]] = {}
    for record in comparison.records:
        last = record.metrics[-1].get("test_accuracy") if record.metrics else None
        shown = number(last) if last is not None and record.state == "done" else ""
        text = {"done": shown, "new": "missing"}.get(record.state, record.state)
        if record.state == "diverged":
            text += f" at step {record.status['diverged']['step']}"
        cells.setdefault(record.arm, {})[record.seed] = (record.state, text)
    nothing = ("unplanned", "")
    return [(arm, [own.get(seed, nothing) for seed in seeds]) for arm, own in cells.items()]


def _svg(figure: Figure) -> Markup:
    """Draw a figure as SVG in the page's colours."""
    file = io.StringIO()
    save(figure, file, format="svg", transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # Only where a colour is set; an arm may have a colour as its name.
    return Markup(
        re.sub(r"(?<=[a-z]: )#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), text)
    )

"""Pictures of what probes saw: profiles over depth, curves over steps, slices of the landscape.

A line is the mean over an arm's seeds, and its band reaches from the lowest seed to the highest:
with the few seeds that probes usually have, an interval of the mean would hide everything.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from normlab.errors import UserError, did_you_mean
from normlab.evidence.comparison import Arm, Comparison
from normlab.measures.probe_values import leading
from normlab.reports.figures.style import (
    INK,
    WIDTH,
    Picture,
    across,
    colour,
    dash,
    framed,
    legend_above,
    marker,
    plain,
)
from normlab.reports.ranking import ranked

ALONG = "step along the gradient"

POSITIONS = "step"
"""The quantity of a probe that says where along a line its other vectors were taken."""

ROW, ALONE = 1.75, 2.5
"""The height in inches of a row of three panels, and of a panel by itself."""

LOG_FROM = 30.0
"""Positive values are drawn on a log scale if the largest is so many times the smallest."""


@dataclass
class ProbeSeries:
    """A quantity in all runs: by arm, seed and step.

    Attributes:
        layers: the layers' names by arm; empty if the quantity has no value for each layer.
        values: by arm, then by step, an array for each seed.
    """

    layers: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, dict[int, list[np.ndarray]]] = field(default_factory=dict)

    @property
    def dimensions(self) -> int:
        """0 for a number, 1 for a number for each layer or place."""
        return max(one.ndim for own in self.values.values() for all in own.values() for one in all)

    @property
    def steps(self) -> list[int]:
        """All steps at which it was looked at."""
        return sorted({step for own in self.values.values() for step in own})

    @property
    def logarithmic(self) -> bool:
        """Return whether it spans decades and is positive."""
        every = np.concatenate(
            [one.ravel() for own in self.values.values() for all in own.values() for one in all]
        )
        known = every[np.isfinite(every)]
        return bool(len(known) and known.min() > 0 and known.max() > LOG_FROM * known.min())


def probe_series(comparison: Comparison) -> dict[str, dict[str, ProbeSeries]]:
    """Gather what the probes of all runs saw: probe to quantity to values."""
    found: dict[str, dict[str, ProbeSeries]] = {}
    for arm in comparison.arms:
        for record in arm.records:
            for row in record.probes:
                if "values" not in row:
                    continue
                own = found.setdefault(row["probe"], {}).setdefault(row["quantity"], ProbeSeries())
                values = np.array(row["values"], float)
                own.values.setdefault(arm.name, {}).setdefault(row["step"], []).append(values)
                if row["layers"]:
                    own.layers[arm.name] = row["layers"]
    return found


def probes(
    comparison: Comparison,
    probe: str | None = None,
    quantity: str | None = None,
    *,
    every: bool = False,
) -> Figure:
    """Draw what one probe saw: by depth at the first and the last step, and over the steps.

    For a quantity with a value for each layer, the curve over steps is the median over layers, and
    its band reaches from the lowest layer to the highest (both as means over seeds).

    Args:
        comparison: the comparison of the arms.
        probe: the probe's name; the first probe if left out.
        quantity: a quantity to draw large and with the layers' names.
        every: whether to draw all quantities, not only the leading ones.

    Raises:
        UserError: the runs have no such probe or quantity.
    """
    found = probe_series(comparison)
    if not found:
        raise UserError(
            f"{comparison.runs.path}: these runs were made without probes; give the config a "
            "section 'probes' (normlab describe probes), and the runs are made with it"
        )
    name = probe or next(iter(found))
    if name not in found:
        raise UserError(f"no probe '{name}' was on; {did_you_mean(name, found)}")
    own = found[name]
    shown = {q: one for q, one in own.items() if one.dimensions < 2 and not _is_positions(q, own)}
    if quantity is not None:
        if quantity not in shown:
            raise UserError(f"{name} has no '{quantity}'; {did_you_mean(quantity, shown)}")
        return _draw(comparison, [[p] for p in _panels(quantity, own)], ALONE)
    if not every:
        first = [q for q in leading(name) if q in shown] or list(shown)[:3]
        shown = {q: shown[q] for q in first}
    rows = [_panels(q, own) for q in shown if shown[q].dimensions]
    single = [panel for q in shown if not shown[q].dimensions for panel in _panels(q, own)]
    rows += [single[start : start + 3] for start in range(0, len(single), 3)]
    return _draw(comparison, rows, ROW)


def has_more(found: dict[str, ProbeSeries], probe: str) -> bool:
    """Return whether a probe has quantities that its picture does not show first."""
    shown = {q for q, one in found.items() if one.dimensions < 2 and not _is_positions(q, found)}
    return bool(shown - set(leading(probe) or list(found)[:3]))


def _is_positions(quantity: str, own: dict[str, ProbeSeries]) -> bool:
    return quantity == POSITIONS and own[quantity].dimensions == 1 and not own[quantity].layers


Draw = Callable[[Any, Comparison], None]


@dataclass
class _Panel:
    """One pair of axes: how it is drawn and labelled."""

    quantity: str
    title: str
    along: str
    draw: Draw
    logarithmic: bool
    layers: list[str] = field(default_factory=list)


def _panels(quantity: str, own: dict[str, ProbeSeries]) -> list[_Panel]:
    """Make the panels of one quantity: first step, last step, over steps; or steps of a line."""
    one = own[quantity]
    steps, log, label = one.steps, one.logarithmic, quantity.replace("_", " ")

    def panel(title: str, along: str, draw: Draw, layers: list[str] | None = None) -> _Panel:
        return _Panel(label, title, along, draw, log, layers or [])

    if one.dimensions == 0:
        if len(steps) == 1:
            return [panel(f"step {steps[0]}", "", lambda a, c: _dots(a, c, one, steps[0]))]
        return [panel("", across("step"), lambda a, c: _over_steps(a, c, one))]
    if one.layers:
        names = [list(own) for own in one.layers.values()]
        common = names[0] if all(own == names[0] for own in names) else []
        ends = list(dict.fromkeys((steps[0], steps[-1])))
        found = [
            panel(f"step {step}", "layer, by depth",
                  lambda a, c, step=step: _by_depth(a, c, one, step), common)
            for step in ends
        ]  # fmt: skip
        if len(steps) > 1:
            found.append(
                panel("median of layers", across("step"), lambda a, c: _over_steps(a, c, one))
            )
        return found
    places = own.get(POSITIONS)
    if places is None or places.dimensions != 1:  # as eigenvalues, in order
        over = panel("the first over steps", across("step"), lambda a, c: _over_steps(a, c, one))
        return [
            *([over] if len(steps) > 1 else []),
            *(panel(f"step {step}", "number",
                    lambda a, c, step=step: _along(a, c, one, None, step))
              for step in dict.fromkeys((steps[0], steps[-1]))),
        ]  # fmt: skip
    return [
        panel(f"step {step}", ALONG,
              lambda a, c, step=step: _along(a, c, one, places, step))
        for step in sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    ]  # fmt: skip


def _draw(comparison: Comparison, rows: list[list[_Panel]], height: float) -> Figure:
    figure = Picture(figsize=(WIDTH, 0.35 + height * len(rows)), layout="constrained")
    columns = max(map(len, rows))
    grid = figure.add_gridspec(len(rows), columns)
    for down, row in enumerate(rows):
        first = None
        for column, panel in enumerate(row):
            shared = first if first and panel.quantity == row[0].quantity else None
            axes = framed(figure.add_subplot(grid[down, column], sharey=shared))
            first = first or axes
            panel.draw(axes, comparison)
            if panel.logarithmic:
                axes.set_yscale("log")
            if shared is None:
                axes.set_ylabel(plain(panel.quantity))
            else:
                axes.tick_params(labelleft=False)
            _label(axes, panel, columns == 1)
    legend_above(figure)
    return figure


def _label(axes: Any, panel: _Panel, large: bool) -> None:
    axes.tick_params(labelsize=8)
    axes.yaxis.label.set_fontsize(9)
    axes.set_xlabel(panel.along, fontsize=8)
    if panel.title:
        axes.set_title(panel.title, fontsize=8, loc="left", color=INK)
    if panel.layers and large:
        axes.set_xticks(
            range(1, len(panel.layers) + 1), list(map(plain, panel.layers)), rotation=40, ha="right"
        )
        axes.tick_params(axis="x", labelsize=7)
    elif not panel.along:
        axes.set_xticks([])
    elif panel.along != ALONG:
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)


def _each(comparison: Comparison, one: ProbeSeries) -> Iterable[tuple[Arm, dict[int, np.ndarray]]]:
    """Yield every arm that has the quantity, with an array of (seeds, ...) by step."""
    for arm in ranked(comparison):
        by_step = one.values.get(arm.name, {})
        if by_step:
            yield arm, {step: np.stack(all) for step, all in sorted(by_step.items())}


def _by_depth(axes: Any, comparison: Comparison, one: ProbeSeries, step: int) -> None:
    for arm, by_step in _each(comparison, one):
        if step in by_step:
            along = np.arange(1, by_step[step].shape[1] + 1)
            _line(axes, comparison, arm, along, by_step[step])
            axes.set_xlim(0.6, len(along) + 0.4)


def _along(axes: Any, comparison: Comparison, one: ProbeSeries, places: Any, step: int) -> None:
    for arm, by_step in _each(comparison, one):
        if step not in by_step:
            continue
        along = np.arange(1, by_step[step].shape[1] + 1)
        own = places.values.get(arm.name, {}).get(step) if places else None
        if own is not None and own[0].shape == along.shape:
            along = own[0]
        _line(axes, comparison, arm, along, by_step[step])


def _over_steps(axes: Any, comparison: Comparison, one: ProbeSeries) -> None:
    for arm, by_step in _each(comparison, one):
        steps = np.array(list(by_step))
        if one.layers:
            means = [_mean(all) for all in by_step.values()]
            middle = np.array([np.median(mean) for mean in means])
            band = np.array([[mean.min(), mean.max()] for mean in means])
            _line(axes, comparison, arm, steps, middle[None], band)
        else:
            seeds = max(len(all) for all in by_step.values())
            table = np.full((seeds, len(steps)), np.nan)
            for column, all in enumerate(by_step.values()):
                table[: len(all), column] = all[:, 0] if all.ndim > 1 else all
            _line(axes, comparison, arm, steps, table)


def _dots(axes: Any, comparison: Comparison, one: ProbeSeries, step: int) -> None:
    for place, (arm, by_step) in enumerate(_each(comparison, one)):
        style = {"color": colour(comparison, arm), "linestyle": "none", "label": plain(arm.name)}
        axes.plot(np.full(len(by_step[step]), place), by_step[step], marker(comparison, arm),
                  markersize=6, alpha=0.8, **style)  # fmt: skip


def _line(
    axes: Any, comparison: Comparison, arm: Arm, along: Any, table: Any, band: Any = None
) -> None:
    """Draw the mean over the first axis, with the range over it as a band."""
    shade = colour(comparison, arm)
    axes.plot(along, _mean(table), color=shade, linestyle=dash(comparison, arm), linewidth=1.6,
              marker=marker(comparison, arm), markersize=3, label=plain(arm.name))  # fmt: skip
    if band is None and len(table) > 1:
        some = np.isfinite(table).any(axis=0)
        low, high = (np.where(some, f(np.where(np.isfinite(table), table, -s * math.inf), axis=0),
                              np.nan) for f, s in ((np.min, -1), (np.max, 1)))  # fmt: skip
        band = np.stack([low, high], axis=1)
    if band is not None:
        axes.fill_between(along, band[:, 0], band[:, 1], color=shade, alpha=0.16, linewidth=0)


def _mean(table: np.ndarray) -> np.ndarray:
    """Average what is finite over the first axis; NaN if nothing is."""
    known = np.isfinite(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

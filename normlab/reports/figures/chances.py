"""Draws how likely each verdict on a claim is by the true effect."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from normlab.errors import UserError
from normlab.evidence.plans import ClaimPlan, SweepPlan
from normlab.evidence.power import POWER
from normlab.reports.figures.style import (
    COLOURS,
    FAINT,
    INK,
    WIDTH,
    Picture,
    framed,
    label,
    plain,
)

POINTS = 41
"""The effects at which the chances are computed."""

LINES = {
    "supported": (COLOURS[0], "-"),
    "undecided": (COLOURS[7], ":"),
    "refuted": (COLOURS[1], "--"),
}
"""The colour and the dash of each verdict."""


def chances(plan: SweepPlan) -> Figure:
    """Draw for each claim the chances of its verdicts by the true effect, while others are open.

    Raises:
        UserError: the chances of no claim can be told.
    """
    claims = [one for one in plan.claims if one.design is not None]
    if not claims:
        raise UserError(f"{plan.name}: no claim has chances to draw; `normlab plan` says why")
    drawn = Picture(figsize=(WIDTH, 0.4 + 2.6 * len(claims)), layout="constrained")
    for axes, one in zip(drawn.subplots(len(claims), squeeze=False)[:, 0], claims, strict=True):
        _draw(framed(axes), one)
    handles, words = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(handles, words, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return drawn


def _draw(axes: Any, plan: ClaimPlan) -> None:
    design, rows = plan.design, plan.rows
    assert design is not None
    effects = np.linspace(rows[0].effect, rows[-1].effect, POINTS)
    shares = np.array([design.chances(effect) for effect in effects])
    axes.axhline(100 * POWER, color=FAINT, linewidth=1)
    left = len(design.bounds) > 1  # where no curve of a margin passes
    axes.text(0.01 if left else 1.0, 100 * POWER + 1, "four cases of five", color=FAINT,
              transform=axes.get_yaxis_transform(), ha="left" if left else "right", va="bottom",
              fontsize=8)  # fmt: skip
    for bound in design.bounds:
        if effects[0] <= bound <= effects[-1]:
            axes.axvline(bound, color=FAINT, linewidth=1)
    for own, (word, (colour, dash)) in zip(100 * shares.T, LINES.items(), strict=True):
        axes.plot(effects, own, color=colour, linestyle=dash, linewidth=2, label=word)
    axes.set_ylim(-3, 103)
    axes.set_ylabel("chance (%)")
    quantity = plan.claim.expectation.quantity
    axes.set_xlabel(label(f"true {quantity} of {plan.claim.measured}"))
    axes.set_title(label(plain(plan.claim.says)), fontsize=10, color=INK, loc="left")

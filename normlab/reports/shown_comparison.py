"""A comparison that shows itself as text, as HTML in a notebook, as a table and as figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from matplotlib.figure import Figure

from normlab.errors import UserError, did_you_mean
from normlab.evidence import comparison
from normlab.measures.measures import USUAL_MEASURE
from normlab.reports.export import arm_row
from normlab.reports.figures.along_axis import over
from normlab.reports.figures.arms import beside, curves, differences, price, values
from normlab.reports.figures.maps import heat, profile
from normlab.reports.figures.probes import probes
from normlab.reports.html import to_fragment
from normlab.reports.markdown import to_text
from normlab.reports.ranking import headlines
from normlab.store.frames import to_frame
from normlab.store.runs import Runs

KINDS: dict[str, Callable[..., Figure]] = {
    "differences": differences,
    "curves": curves,
    "values": values,
    "price": price,
    "heat": heat,
    "over": over,
    "beside": beside,
    "profile": profile,
    "probes": probes,
}
"""The pictures that `Comparison.plot` can draw."""


@dataclass(frozen=True, eq=False, repr=False)
class ShownComparison(comparison.Comparison):
    """A `Comparison` with its views. In a notebook it shows itself; `print` gives the text."""

    def __repr__(self) -> str:
        found = headlines(self)
        first = found[0] if len(found) == 1 else f"{len(found)} settings; print() shows them"
        return f"<Comparison of {len(self.arms)} arms by {self.measure}: {first}>"

    def frame(self) -> Any:
        """Give the table as a pandas DataFrame with a row for each arm.

        Raises:
            UserError: pandas is not installed.
        """
        return to_frame([arm_row(self, arm) for arm in self.arms])

    def __str__(self) -> str:
        return to_text(self)

    def _repr_html_(self) -> str:
        return to_fragment(self)

    def plot(self, kind: str = "differences", **options: Any) -> Any:
        """Draw a matplotlib figure to look at or restyle; see `normlab.reports.figures`.

        Args:
            kind: a key of `KINDS`, such as "differences" (a forest plot) or "curves".
            **options: options of the figure, such as `metric="train_loss"` for "curves".
        """
        if kind not in KINDS:
            raise UserError(f"there is no plot '{kind}'; {did_you_mean(kind, KINDS)}")
        return KINDS[kind](self, **options)


def compare(
    runs: Runs | Sequence[Runs],
    *,
    baseline: str | None = None,
    measure: str = USUAL_MEASURE,
) -> ShownComparison:
    """Compare the arms of an experiment with one of them, or with one in each setting.

    Args:
        runs: from `normlab.load` or `normlab.run`; a list of experiments is compared as their sum.
        baseline: an arm's name, or a value of an axis. By default it is the one that the config
            names, or else the first arm that did not diverge. In a sweep over several axes that
            arm's normaliser is the baseline of each setting.
        measure: the measure to compare, such as `steps_to(test_accuracy, 0.6)`.

    Raises:
        UserError: there is no such arm or measure, or the runs cannot have it.
    """
    found = comparison.compare(runs, baseline=baseline, measure=measure)
    return ShownComparison(**{field.name: getattr(found, field.name) for field in fields(found)})

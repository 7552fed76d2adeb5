"""Figures of many arms stay readable."""

import pytest

from normlab.reports.shown_comparison import compare
from tests.shared.simulated import simulate


@pytest.mark.parametrize(("arms", "above"), [(8, False), (9, True), (30, True)])
def test_the_legend_of_many_arms_stands_above_the_axes(tmp_path, arms, above):
    accuracies = {f"arm_{index}": [0.5, 0.52, 0.51] for index in range(arms)}
    comparison = compare(simulate(tmp_path / "e", accuracies))
    for kind in ("curves", "price"):
        figure = comparison.plot(kind)
        (axes,) = figure.axes
        assert bool(figure.legends) == above and (axes.get_legend() is None) == above
        figure.draw_without_rendering()
        height = axes.get_window_extent().height / figure.dpi
        assert height > 2, "the legend leaves room for the axes"

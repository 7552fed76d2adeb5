"""Figures of many arms stay readable."""

import io
import warnings
from html import unescape

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from normlab.errors import UserError
from normlab.reports.figures import fonts
from normlab.reports.figures.fonts import MissingGlyphsWarning
from normlab.reports.figures.sizes import fit, inches
from normlab.reports.figures.style import COLOURS, SVG
from normlab.reports.shown_comparison import compare
from tests.shared.simulated import simulate, write, write_run


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


def coloured(figure):
    """The colour of each name in a figure: of a legend's entry, or of a row's name."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found[label] = handle.get_color()
        ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        rows = {round(y): text.get_text() for y, text in ticks}
        for line in axes.lines:
            (*_, y) = line.get_ydata()
            if (
                line.get_marker() not in ("|", "None", "")
                and round(float(y)) in rows
                and y == int(y)
            ):
                found.setdefault(rows[round(float(y))].partition("  (n")[0], line.get_color())
    return found


def test_an_arm_has_one_colour_in_every_figure_whatever_the_baseline(tmp_path):
    runs = simulate(tmp_path / "e", {"a": [0.5, 0.6], "b": [0.8, 0.7], "c": [0.6, 0.7]})
    first, other = compare(runs), compare(runs, baseline="b")
    wanted = coloured(first.plot("curves"))
    assert wanted == dict(zip("abc", COLOURS, strict=False))
    drawn = [(one, kind) for one in (first, other) for kind in ("curves", "price", "differences")]
    for comparison, kind in drawn:
        found = coloured(comparison.plot(kind))
        assert found and found == {name: wanted[name] for name in found}, kind


def test_rows_and_legends_have_the_best_arm_first(tmp_path):
    comparison = compare(
        simulate(tmp_path / "e", {"a": [0.5, 0.6], "b": [0.8, 0.7], "c": [0.6, 0.7]})
    )
    rows = [text.get_text()[0] for text in comparison.plot("values").axes[0].get_yticklabels()]
    assert rows == ["b", "c", "a"]  # from the top
    assert list(coloured(comparison.plot("curves"))) == ["b", "c", "a"]


def test_one_evaluation_is_a_marker_with_its_interval(tmp_path):
    folder = tmp_path / "e"
    made = [write_run(folder, arm, seed, 0.5 + seed / 50) for arm in "ab" for seed in range(3)]
    for run in made:  # as a run of one epoch leaves it
        last = (run.path / "metrics.jsonl").read_text().splitlines()[-1]
        (run.path / "metrics.jsonl").write_text(last + "\n")
    comparison = compare(write(folder, made))
    for options in ({}, {"every_seed": True}):
        lines = comparison.plot("curves", **options).axes[0].lines
        assert len(lines) == 2 * (3 if options else 1)
        assert all(line.get_marker() in "os" and line.get_markersize() >= 6 for line in lines)
    (bars, *_) = comparison.plot("curves").axes[0].collections[1::2]
    low, high = bars.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx(
        stats.t.interval(0.95, 2, 0.52, stats.sem([0.5, 0.52, 0.54]))
    )
    over = comparison.plot("over", axis="step").axes[0].lines
    assert all(line.get_markersize() > 0 for line in over)


@pytest.mark.parametrize("name", ["_hidden", "$x$", "a_b", "__", "nolegend", " x"])
def test_every_arm_is_in_every_legend(tmp_path, name):
    folder = tmp_path / "e"
    made = [write_run(folder, "a", seed, 0.5) for seed in range(2)]
    made += [write_run(folder, "lost", seed, 0.5, state="diverged", step=15) for seed in range(2)]
    made += [write_run(folder, name, seed, 0.6 + seed / 50) for seed in range(2)]
    comparison = compare(write(folder, made))
    for kind, more in (("curves", " (0 of 2 runs)"), ("price", "")):
        figure = comparison.plot(kind)
        figure.draw_without_rendering()
        legend = figure.axes[0].get_legend()
        texts = [text.get_text().replace("\u200b", "").strip() for text in legend.get_texts()]
        assert {*texts} == {"a", f"lost{more}", name.strip().replace("$", r"\$")}, kind


def test_labels_are_words_with_units(tmp_path):
    runs = simulate(tmp_path / "e", {"a": [0.5, 0.6], "b": [0.8, 0.7]})
    curves = compare(runs).plot("curves", metric="train_loss", x="train_seconds").axes[0]
    assert curves.get_xlabel() == "seconds of training"
    assert curves.get_ylabel() == "training loss\n(nats)"
    differences = compare(runs).plot("differences").axes[0].get_xlabel()
    assert differences == (
        "test accuracy at the end (share of examples)\nminus that of a  (right is better)"
    )
    price = compare(runs, measure="steps_to(test_accuracy, 0.6)").plot("values").axes[0]
    assert price.get_xlabel().startswith("optimiser steps until test accuracy reaches 0.6")


NOWHERE = "名"  # DejaVu Sans, matplotlib's own font, does not have it


def test_a_character_that_no_font_has_is_named_and_replaced_but_in_an_svg(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_candidates", lambda: [])
    fonts._fonts_for.cache_clear()
    comparison = compare(simulate(tmp_path / "e", {"a": [0.5, 0.6], f"b{NOWHERE}": [0.8, 0.7]}))
    for kind in ("curves", "values"):
        svg = io.StringIO()
        with matplotlib.rc_context(SVG), warnings.catch_warnings():
            warnings.simplefilter("error")
            comparison.plot(kind).savefig(svg, format="svg")
        assert f"b{NOWHERE}" in unescape(svg.getvalue())
        figure = comparison.plot(kind)
        with pytest.warns(MissingGlyphsWarning, match=NOWHERE) as told:
            figure.savefig(io.BytesIO(), format="png")
        assert len(told) == 1
        names = [text.get_text() for text in figure.findobj(Text)]
        assert any(r"b\u540d" in name for name in names)
    fonts._fonts_for.cache_clear()


def test_a_script_that_another_font_has_is_drawn_with_it(monkeypatch):
    monkeypatch.setattr(fonts, "_has", lambda family, character: ord(character) < 128)
    fonts._fonts_for.cache_clear()
    figure = Figure()
    text = figure.text(0.5, 0.5, "групповая")
    fonts.show_every_script(figure)
    assert text.get_text() == "групповая" and len(text.get_fontfamily()) > 1
    fonts._fonts_for.cache_clear()


def test_a_pdf_has_truetype_fonts(tmp_path):
    figure = compare(simulate(tmp_path / "e", {"a": [0.5, 0.6], "b": [0.8, 0.7]})).plot("values")
    figure.savefig(tmp_path / "f.pdf")
    written = (tmp_path / "f.pdf").read_bytes()
    assert b"/Type3" not in written and b"/CIDFontType2" in written


def test_to_fit_a_picture_warns_of_no_missing_glyph():
    """Saving tells it in one sentence, so matplotlib's own warnings would be noise."""
    figure = Figure(layout="constrained")
    figure.subplots().set_title("\u6279 \U00013000 \U000e0100")
    fit(figure, inches("84mm"), "paper")  # a warning is an error in the tests


@pytest.mark.parametrize(("style", "least", "most"), [("paper", 7, 8), ("talk", 14, 16.5)])
def test_a_style_and_a_width_fit_labels_and_legends(tmp_path, style, least, most):
    arms = {f"a_long_name_of_an_arm_{i}": [0.5, 0.6 + i / 50] for i in range(10)}
    comparison = compare(simulate(tmp_path / "e", arms))
    width = inches("84mm") * (1 if style == "paper" else 2.5)
    for kind in ("curves", "differences"):
        figure = comparison.plot(kind)
        fit(figure, width, style)
        figure.draw_without_rendering()
        assert figure.get_figwidth() == pytest.approx(width)
        label = figure.axes[0].xaxis.label
        assert least <= label.get_fontsize() <= most or label.get_fontsize() == 10 * 0.8
        for shown in (label, *figure.legends):
            extent = shown.get_window_extent()
            assert extent.x0 >= -1 and extent.x1 <= figure.bbox.width + 1
        assert figure.axes[0].get_window_extent().height / figure.dpi > 1
    with pytest.raises(UserError, match="no style is called 'papr'; did you mean 'paper'"):
        fit(comparison.plot("curves"), style="papr")
    for wrong in ("8x", "0.1", "nan"):
        with pytest.raises(UserError, match="a width is"):
            inches(wrong)

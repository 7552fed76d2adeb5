"""Measures and pictures of what probes saw, from runs whose numbers are known."""

import numpy as np
import pytest

from normlab.errors import UserError
from normlab.interface.reporting import draw
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure
from normlab.measures.value import NoValueError
from normlab.reports.export import to_csv, to_json
from normlab.reports.html import to_html
from normlab.reports.shown_comparison import compare
from normlab.store.record import Record
from tests.shared.simulated import STEPS, simulate, write, write_run

LAYERS = ["Conv_0", "Conv_1", "Dense_0"]


def rows_of(scale):
    """Make rows that two probes see at steps 0, 10 and the end; everything grows with `scale`."""
    for step in (0, 10, STEPS):
        size = scale * (1 + step)
        for probe, quantity, layers, values in (
            ("updates", "ratio", LAYERS, [size, 10 * size, 100 * size]),
            ("updates", "spread", None, size),
            ("landscape", "step", None, [0.1, 0.2]),
            ("landscape", "loss", None, [2.0 + scale, 3.0 + scale]),
            ("landscape", "beta", None, None if step == 10 else -size),
            ("landscape", "grid", LAYERS, [[1, 2]] * 3),
        ):
            yield {"step": step, "probe": probe, "quantity": quantity, "layers": layers,
                   "values": values}  # fmt: skip


@pytest.fixture
def looked(tmp_path):
    """Two arms of two seeds: batch_norm's numbers are 1 and 2, identity's 10 and 20."""
    runs = simulate(tmp_path / "e", {"identity": [0.4, 0.5], "batch_norm": [0.6, 0.7]})
    for run in runs.runs:
        scale = (10 if run.arm == "identity" else 1) * (run.seed + 1)
        run.append_probes(list(rows_of(scale)))
    return runs


def value(runs, measure, index=2):
    found = Measure.parse(measure).of(Record.read(runs.runs[index]))
    return None if found is None else found.number


NUMBERS = {  # of batch_norm, seed 0
    "probe(updates.spread, 0)": 1,
    "probe(spread, end)": 1 + STEPS,
    "probe(updates.ratio, 10, mean)": 37 * 11,
    "probe(updates.ratio, 10, median)": 110,
    "probe(ratio, 0, min)": 1,
    "probe(ratio, 0, max)": 100,
    "probe(ratio, 0, first)": 1,
    "probe(ratio, 0, last)": 100,
    "probe(ratio, 0, Conv_1)": 10,
    "probe(ratio, 0, spread)": np.std([0, 1, 2]),
    "probe(landscape.loss, 0, max)": 4,
    "drift(updates.spread)": np.std([1, 11, 1 + STEPS]),
    "drift(ratio, max)": np.std([100, 1100, 100 * (1 + STEPS)]),
    "probe(beta, 0)": -1,
}


@pytest.mark.parametrize("measure", NUMBERS)
def test_a_measure_reads_what_a_probe_saw(looked, measure):
    assert value(looked, measure) == pytest.approx(NUMBERS[measure])
    assert str(Measure.parse(measure)) == measure


NOTHING = {
    "probe(updates.spread, 7)": "has no 'updates.spread' of step 7; it has those of 0, 10, 60",
    "probe(updates.sprad, 0)": "did you mean 'updates.spread'?",
    "probe(landscape.beta, 10)": "has a 'landscape.beta' of step 10 that is not finite",
    "probe(updates.ratio, 0)": "has 3 values of 'updates.ratio', one for each of its layers, from",
    "probe(grid, 0, mean)": "has a list for each layer of 'grid'",
    "probe(beta, 0, max)": "which needs no 'max'",
}


@pytest.mark.parametrize("measure", NOTHING)
def test_what_it_cannot_read_it_says(looked, measure):
    with pytest.raises(NoValueError) as error:
        value(looked, measure)
    assert NOTHING[measure] in str(error.value)
    with pytest.raises(UserError, match="identity, seed 0, has "):
        compare(looked, measure=measure)


def test_a_spread_between_values_of_both_signs_is_refused(looked):
    looked.runs[2].append_probes(
        [{"step": 1, "probe": "a", "quantity": "skew", "layers": LAYERS, "values": [-1, 1, 2]}]
    )
    with pytest.raises(NoValueError, match="has negative values"):
        value(looked, "probe(skew, 1, spread)")
    assert value(looked, "probe(skew, 1, mean)") == pytest.approx(2 / 3)


def test_a_claim_is_judged_by_it_and_a_run_without_leaves_it_undecided(looked, tmp_path):
    claim = Claim("smaller", "probe(updates.spread, 0)", "batch_norm", "identity", "ratio <= 0.5")
    runs = write(looked.path, looked.runs, [claim])
    (verdict,) = compare(runs).verdicts
    assert verdict.contrast is not None
    assert verdict.contrast.estimate == pytest.approx(0.1)
    runs = write(looked.path, [*looked.runs, write_run(looked.path, "identity", 2, 0.5)], [claim])
    (verdict,) = compare(runs).verdicts
    assert verdict.outcome == "undecided"
    assert verdict.why == "identity: seed 2 was made without probes"
    lost = Claim("lost", "probe(updates.spread, 3)", "batch_norm", "identity", "ratio <= 0.5")
    (verdict,) = compare(write(looked.path, looked.runs, [lost])).verdicts
    assert "seed 0 has no 'updates.spread' of step 3" in verdict.why


def test_a_diverged_run_has_what_was_seen_before_and_no_more(tmp_path):
    run = write_run(tmp_path / "e", "identity", 0, 0.4, state="diverged", step=5)
    run.append_probes([row for row in rows_of(1) if row["step"] == 0])
    runs = write(tmp_path / "e", [run])
    assert value(runs, "probe(spread, 0)", 0) == 1
    assert value(runs, "probe(spread, end)", 0) is None


def test_neither_more_nor_less_of_it_is_called_better(looked):
    comparison = compare(looked, measure="probe(spread, 0)")
    text = f"{comparison}{to_html(comparison, 'x')}"
    assert "better by" not in text and "is better)" not in text and "worse than" not in text
    assert '"probe(spread, 0)": 1.0' in to_json(comparison)
    broken = write(looked.path, [*looked.runs, write_run(looked.path, "identity", 2, 0.5)])
    assert to_csv(compare(broken, measure="probe(spread, 0)")).count("\n") == 6


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_layers_are_drawn_by_depth_at_both_ends_and_as_a_median_over_steps(looked):
    figure = compare(looked).plot("probes", probe="updates")
    first, last, median, spread = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["step 0", f"step {STEPS}"]
    np.testing.assert_allclose(lines(first)["batch_norm"], [[1, 1.5], [2, 15], [3, 150]])
    np.testing.assert_allclose(lines(last)["identity"][:, 1], np.array([1, 10, 100]) * 15 * 61)
    np.testing.assert_allclose(lines(median)["identity"], [[0, 150], [10, 1650], [60, 9150]])
    np.testing.assert_allclose(lines(spread)["batch_norm"], [[0, 1.5], [10, 16.5], [60, 91.5]])
    assert first.get_yscale() == median.get_yscale() == "log"
    (band, _) = [collection.get_paths()[0].get_extents() for collection in first.collections]
    assert (band.y0, band.y1) == (1, 200), "from the lowest seed to the highest"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["batch_norm", "identity"], "the best first"


def test_a_slice_is_drawn_over_its_positions(looked):
    figure = compare(looked).plot("probes", probe="landscape")
    np.testing.assert_allclose(lines(figure.axes[0])["identity"], [[0.1, 17], [0.2, 18]])
    assert [a.get_title(loc="left") for a in figure.axes[:3]] == ["step 0", "step 10", "step 60"]
    beta = figure.axes[3]
    assert beta.get_yscale() == "linear" and beta.get_ylabel() == "beta"
    np.testing.assert_allclose(lines(beta)["batch_norm"][:, 1], [-1.5, np.nan, -91.5])


def test_one_quantity_is_drawn_large_with_the_names_of_the_layers(looked):
    figure = compare(looked).plot("probes", probe="updates", quantity="ratio")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == LAYERS


def test_colours_are_the_arms_own(looked):
    comparison = compare(looked)
    (axes, *_) = comparison.plot("probes", probe="updates").axes
    (other, *_) = comparison.plot("curves").axes
    for mine, curve in zip(axes.get_lines(), other.get_lines(), strict=True):
        assert mine.get_color() == curve.get_color()


def test_one_step_alone_is_drawn_too(tmp_path):
    runs = simulate(tmp_path / "e", {"identity": [0.4, 0.5]})
    for run in runs.runs:
        run.append_probes([row for row in rows_of(1) if row["step"] == 0])
    for probe in ("updates", "landscape"):
        assert compare(runs).plot("probes", probe=probe).axes


def test_pictures_enter_the_report_by_themselves(looked, tmp_path):
    page = to_html(compare(looked), "x")
    assert page.count("<h2>Inside the network</h2>") == 1
    assert "<h3>Updates</h3>" in page and "<h3>Landscape</h3>" in page
    plain = simulate(tmp_path / "plain", {"identity": [0.4, 0.5]})
    assert "Inside the network" not in to_html(compare(plain), "x")


def test_a_picture_from_the_command_line(looked):
    file = looked.path / "x.svg"
    draw(looked.path, "probes", None, "final(test_accuracy)", file, probe="updates")
    once = file.read_bytes()
    draw(looked.path, "probes", None, "final(test_accuracy)", file, probe="updates")
    assert b"<svg" in once and once == file.read_bytes()
    for options, told in (
        ({"probe": "update"}, "no probe 'update' was on; did you mean 'updates'?"),
        ({"probe": "updates", "quantity": "rato"}, "updates has no 'rato'; did you mean 'ratio'?"),
    ):
        with pytest.raises(UserError, match=told.replace("?", r"\?")):
            draw(looked.path, "probes", None, "final(test_accuracy)", file, **options)


def test_runs_without_probes_say_how_to_get_them(tmp_path):
    plain = simulate(tmp_path / "plain", {"identity": [0.4, 0.5]})
    with pytest.raises(UserError, match="made without probes; give the config a section 'probes'"):
        compare(plain).plot("probes")

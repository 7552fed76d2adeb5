"""The first line says which arm won, or that it is not decided; the best arm comes first."""

import numpy as np
import pytest
from scipy import stats

from normlab.reports.arm_table import rest, short_table, table
from normlab.reports.ranking import headlines, ranked
from normlab.reports.shown_comparison import compare
from tests.shared.simulated import simulate, write, write_run

LOW, HIGH, HIGHER = [0.5, 0.51, 0.52, 0.5], [0.7, 0.71, 0.69, 0.7], [0.8, 0.83, 0.79, 0.78]


def compared(tmp_path, arms, **options):
    return compare(simulate(tmp_path / "e", arms), **options)


def test_the_best_comes_first_and_won(tmp_path):
    found = compared(tmp_path, {"low": LOW, "higher": HIGHER, "high": HIGH})
    assert [arm.name for arm in ranked(found)] == ["higher", "high", "low"]
    (line,) = headlines(found)
    ends = stats.t.interval(0.95, 3, *_of(np.subtract(HIGHER, HIGH)))
    assert line == (
        "higher won by final(test_accuracy): 0.800, against 0.700 of the second, high "
        f"(95% interval of the difference {ends[0]:.3f} to {ends[1]:.3f})."
    )


def _of(values):
    return np.mean(values), stats.sem(values)


def test_where_less_is_better_the_least_comes_first(tmp_path):
    found = compared(tmp_path, {"low": LOW, "high": HIGH}, measure="final(test_loss)")
    assert [arm.name for arm in ranked(found)] == ["high", "low"]  # a high accuracy, a low loss
    assert headlines(found)[0].startswith("high won by final(test_loss): ")


def test_equal_arms_are_not_decided_and_the_worse_ones_are_counted(tmp_path):
    arms = {"low": LOW, "a": [0.701, 0.72, 0.69, 0.71], "b": [0.71, 0.69, 0.72, 0.7]}
    (line,) = headlines(compared(tmp_path, arms))
    assert line.startswith("Not decided between a (0.705) and b (0.705): the 95% interval of the ")
    assert line.endswith("(n = 4 and 4). The other arm is worse.")


def test_an_interval_without_zero_that_does_not_decide_is_explained(tmp_path):
    rng = np.random.default_rng(3)
    first = np.array([0.7, 0.71, 0.69, 0.72, 0.7])
    arms = {"a": first, "b": first - np.array([0.004, 0.02, 0.012, 0.03, 0.008])}
    arms |= {f"c{i}": rng.normal(0.3, 0.01, 5) for i in range(10)}
    low, high = stats.t.interval(0.95, 4, *_of(arms["a"] - arms["b"]))
    assert low > 0
    (line,) = headlines(compared(tmp_path, arms))
    assert f"{low:.3f} to {high:.3f} (n = 5 and 5). It leaves out zero; at 99.5%, which" in line
    assert "allows for all 12 arms, it does not. The other 10 arms are worse." in line


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"a": [0.5], "b": [0.6]}, "Not decided: b has the best value, 0.600, but one run an arm"),
        ({"a": [0.5, 0.6]}, "There is one arm, a, and nothing to compare it with."),
    ],
)
def test_what_cannot_be_decided_is_told_with_its_reason(tmp_path, arms, words):
    assert headlines(compared(tmp_path, arms))[0].startswith(words)


def test_arms_without_runs_come_last_and_an_unfinished_sweep_says_so(tmp_path):
    folder = tmp_path / "e"
    made = [write_run(folder, "none", s, state="new") for s in range(3)]
    empty = compare(write(tmp_path / "f", [write_run(tmp_path / "f", "a", 0, state="new")]))
    assert headlines(empty) == ["No arm has a finished run yet."]
    made += [write_run(folder, "low", s, v) for s, v in enumerate(LOW)]
    made += [write_run(folder, "high", s, v) for s, v in enumerate(HIGH)]
    found = compare(write(folder, made))
    assert [arm.name for arm in ranked(found)] == ["high", "low", "none"]
    assert headlines(found)[0].startswith("So far: high won")


def test_a_target_that_fewer_runs_reach_is_worse(tmp_path):
    found = compared(tmp_path, {"low": LOW, "high": HIGH}, measure="steps_to(test_accuracy, 0.6)")
    assert [arm.name for arm in ranked(found)] == ["high", "low"]
    assert "reached by 0 of 4 runs" in headlines(found)[0]


def test_a_p_value_is_shown_where_the_runs_allow_it_to_be_small(tmp_path):
    three = compared(tmp_path, {"a": LOW[:3], "b": HIGH[:3]})
    assert "p (Holm)" not in rest(three)[0]  # at best 2 of 20 exchanges: 0.1
    four = compare(simulate(tmp_path / "f", {"a": LOW, "b": HIGH}))
    assert rest(four)[0]["p (Holm)"] == f"{2 / 70:.3f}"
    many = compare(simulate(tmp_path / "g", {"a": LOW, "b": HIGH, "c": HIGHER}))
    assert "p (Holm)" not in rest(many)[0]  # 2 * 2 / 70 is above 0.05


def test_a_p_value_that_contradicts_its_row_says_why(tmp_path):
    steps, noise = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.35, 0.15]), np.arange(7) / 1000
    found = compared(tmp_path, {"a": 0.3 + steps, "b": 0.32 + steps + noise})
    cells = rest(found)[0]
    assert "(paired)" in cells["its 95% interval"]
    assert cells["p (Holm)"].endswith("(its test does not pair seeds, as the interval does)")


def test_the_short_table_and_the_rest_are_the_whole_table(tmp_path):
    found = compared(tmp_path, {"a": LOW, "b": HIGH})
    headings, rows = short_table(found)
    assert headings == ["arm", "n", "mean", "95% interval", "difference", "its 95% interval"]
    assert [row[0] for row in rows] == ["b", "a (baseline)"]
    whole, full = table(found)
    for row, more, all_cells in zip(rows, rest(found), full, strict=True):
        shown = {*row, *more.values(), "-"}
        assert set(all_cells) <= shown
    assert {"IQM", "P(better)", "s/step", "peak MB"} <= set(whole)

"""Variances on crossed grids, against known components, hand figures and statsmodels."""

import math

import numpy as np
import pytest
from scipy import special, stats

from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.crossed import Grid, on_grid, variance_interval
from normlab.evidence.inference import permutation_p
from normlab.evidence.samples import Sample
from normlab.store.seeds import split_seed

A, B, AB = frozenset("a"), frozenset("b"), frozenset("ab")


def drawn(rng, shape, *deviations):
    """A grid of two factors whose own parts and rest have these deviations."""
    one, other, rest = deviations
    a, b = rng.normal(0, 1, (shape[0], 1)), rng.normal(0, 1, (1, shape[1]))
    return Grid("ab", one * a + other * b + rest * rng.normal(0, 1, shape))


def test_mean_squares_and_components_are_those_by_hand():
    grid = Grid("ab", np.array([[1.0, 2.0, 6.0], [3.0, 8.0, 4.0]]))
    # Rows have the means 3 and 5, columns 2, 5 and 5, the whole 4.
    rest = np.array([[0, -2, 2], [0, 2, -2]])
    squares = {A: 3 * 2.0, B: 2 * 6 / 2, AB: (rest**2).sum() / 2}
    assert grid.mean_squares == pytest.approx(squares)
    assert grid.degrees == {A: 1, B: 2, AB: 2}
    found = grid.components()
    assert found[AB].variance == pytest.approx(8)
    assert found[A].variance == found[B].variance == 0  # both estimates are negative
    assert found[A].interval.low == 0 < found[A].interval.high
    assert sum(one.share for one in found.values()) == pytest.approx(1)


def test_components_are_found_without_bias():
    rng, truth = np.random.default_rng(0), (0.3, 0.1, 0.2)
    means = np.zeros(3)
    for _ in range(400):
        grid = drawn(rng, (6, 5), *truth)
        squares = grid.mean_squares
        means += [grid._solved(part, squares) for part in (A, B, AB)]
    assert means / 400 == pytest.approx(np.square(truth), rel=0.12)


def test_intervals_of_components_cover_what_they_say():
    rng, hits = np.random.default_rng(1), {A: 0, B: 0, AB: 0}
    truth = {A: 0.3**2, B: 0.0, AB: 0.2**2}
    for _ in range(150):
        found = drawn(rng, (5, 4), 0.3, 0.0, 0.2).components()
        for part, variance in truth.items():
            hits[part] += found[part].interval.low <= variance <= found[part].interval.high
    assert all(hit >= 150 * 0.90 for hit in hits.values()), hits


@pytest.mark.parametrize("deviations", [(1, 1, 1), (1, 0, 0.1), (0, 0, 1), (3, 1, 0.3)])
def test_the_error_of_the_mean_covers_for_new_levels_of_every_factor(deviations):
    rng, missed, repeats = np.random.default_rng(2), 0, 400
    for _ in range(repeats):
        grid = drawn(rng, (5, 3), *deviations)
        variance, degrees = grid.error
        t = special.stdtrit(degrees, 0.975)
        missed += abs(grid.values.mean()) > t * math.sqrt(variance)
    assert missed / repeats <= 0.08  # 5% and three standard errors


def test_one_factor_gives_the_exact_interval_of_a_variance():
    values = np.array([0.5, 0.6, 0.55, 0.7])
    (found,) = Grid(("seed",), values).components().values()
    low, high = 3 * values.var(ddof=1) / stats.chi2.ppf([0.975, 0.025], 3)
    assert found.interval == pytest.approx((low, high))
    assert variance_interval(values.var(ddof=1), 3) == pytest.approx((low, high))


def test_components_are_the_reml_estimates_of_statsmodels():
    pytest.importorskip("statsmodels")
    pd = pytest.importorskip("pandas")
    from statsmodels.regression.mixed_linear_model import MixedLM

    grid = drawn(np.random.default_rng(5), (8, 7), 0.5, 0.4, 0.2)
    found, values = grid.components(), grid.values
    rows = [{"y": values[i], "a": i[0], "b": i[1], "one": 1} for i in np.ndindex(8, 7)]
    kinds = {name: f"0 + C({name})" for name in "ab"}
    model = MixedLM.from_formula("y ~ 1", groups="one", vc_formula=kinds, data=pd.DataFrame(rows))
    fitted = model.fit(reml=True)
    of_reml = dict(zip(model.exog_vc.names, fitted.vcomp, strict=True))
    assert found[A].variance == pytest.approx(of_reml["a"], rel=1e-3)
    assert found[B].variance == pytest.approx(of_reml["b"], rel=1e-3)
    assert found[AB].variance == pytest.approx(fitted.scale, rel=1e-3)
    assert grid.error[0] == pytest.approx(float(fitted.bse_fe.iloc[0]) ** 2, rel=1e-3)


SEEDS = tuple(split_seed(init, 0, augment) for init in range(3) for augment in range(2))


def arm(values, seeds=SEEDS, origins=True):
    values = np.asarray(values, float)
    known = {"origins": tuple(map(str, seeds))} if origins else {}
    return Sample("a", seeds, values, np.zeros(len(values), bool), len(values), **known)


def test_seeds_are_laid_on_the_grid_of_what_varies():
    grid = on_grid(SEEDS[::-1], np.arange(6)[::-1])
    assert grid.factors == ("init", "augment")
    np.testing.assert_array_equal(grid.values, [[0, 1], [2, 3], [4, 5]])
    assert on_grid(SEEDS[:-1], np.arange(5)) is None


def test_runs_that_share_a_stream_are_no_repetitions():
    """All augmentations of one start give one value: three values, not six."""
    left, right = np.repeat([0.5, 0.6, 0.7], 2), np.repeat([0.4, 0.45, 0.62], 2)
    found = contrast(arm(left), arm(right))
    three = stats.ttest_1samp((left - right)[::2], 0)
    low, high = three.confidence_interval()
    assert found.interval == pytest.approx((low, high))
    assert found.paired and "crossed by init and augment" in found.method
    alone = mean_of(arm(left))
    assert alone.interval == pytest.approx(stats.t.interval(0.95, 2, 0.6, 0.1 / math.sqrt(3)))
    assert math.isnan(permutation_p(arm(left), arm(right)))


def test_crossed_arms_that_begin_otherwise_are_not_paired():
    rng = np.random.default_rng(0)
    left, right = (arm(rng.normal(0.5, 0.1, 6), origins=False) for _ in range(2))
    found = contrast(left, right)
    assert not found.paired
    errors = [on_grid(SEEDS, one.values).error for one in (left, right)]
    variance = sum(error for error, _ in errors)
    degrees = variance**2 / sum(error**2 / freedom for error, freedom in errors)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    assert found.interval.high - found.estimate == pytest.approx(half)


@pytest.mark.parametrize(
    ("left", "right", "quantity", "words"),
    [
        (arm(range(6)), arm(range(6)), "ratio", "no interval is known of a ratio"),
        (arm(range(5), SEEDS[:5]), arm(range(5), SEEDS[:5]), "difference", "not every combination"),
        (arm([1] * 6), arm([2] * 6), "difference", "says nothing of their spread"),
    ],
)
def test_what_makes_no_sense_on_crossed_seeds_has_no_interval(left, right, quantity, words):
    found = contrast(left, right, quantity)
    assert words in found.lacking and not math.isfinite(found.interval.low)


def test_seeds_of_one_stream_are_repetitions_as_plain_seeds_are():
    rng = np.random.default_rng(3)
    left, right = rng.normal(0.5, 0.1, (2, 5))
    seeds = tuple(split_seed(init) for init in range(5))
    found = contrast(arm(left, seeds), arm(right, seeds))
    assert found.method == "Student's t of the seeds' differences"
    low, high = stats.ttest_1samp(left - right, 0).confidence_interval()
    assert found.interval == pytest.approx((low, high))

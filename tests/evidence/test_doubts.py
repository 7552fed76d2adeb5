"""Seeds that did not learn, and skewed values: an interval covers less, and it is said."""

import numpy as np
import pytest
from scipy import stats

from normlab.evidence.doubts import hidden_failures, skewed
from normlab.evidence.samples import sample
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure
from normlab.reports.arm_table import table
from normlab.reports.english import about_arm, about_verdict
from normlab.reports.export import arm_row
from normlab.reports.markdown import to_markdown
from normlab.reports.shown_comparison import compare
from normlab.store.record import Record
from tests.shared.simulated import simulate, write, write_run

from .coverage import KINDS, arm, of_the_mean, of_the_middle

FINAL = "final(test_accuracy)"
MEASURE = Measure.parse(FINAL)
GOOD = [0.70, 0.71, 0.69, 0.72, 0.70]
ONE_FAILS = [0.50, 0.52, 0.101, 0.51, 0.53]
CLAIM = Claim("a beats b", FINAL, "a", "b", "difference > 0")


@pytest.mark.parametrize(("images", "classes"), [(10, 10), (1000, 10), (624, 2)])
def test_at_chance_is_what_guessing_reaches_in_one_case_of_twenty(tmp_path, images, classes):
    data = {"data": {"name": "x", "fingerprint": "0", "classes": classes, "train_examples": 9,
                     "test_examples": images}}  # fmt: skip
    by_chance = stats.binom(images, 1 / classes)
    line = next(k for k in range(images) if by_chance.sf(k - 1) <= 0.05)
    right = [0, line - 1, line, images]
    entries = [write_run(tmp_path / "e", "a", seed, k / images, proof=data)
               for seed, k in enumerate(right)]  # fmt: skip
    entries += [write_run(tmp_path / "e", "a", 4, 0.9, state="diverged", step=35, proof=data)]
    records = [Record.read(entry) for entry in entries]
    assert sample("a", records, MEASURE).unlearned == (0, 1, 4)
    assert sample("a", records, Measure.parse("seconds_per_step")).unlearned == ()


@pytest.fixture
def runs(tmp_path):
    return simulate(tmp_path / "e", {"a": GOOD, "b": ONE_FAILS}, [CLAIM])


def test_a_verdict_leads_with_the_share_that_failed_and_the_interquartile_mean(runs):
    (verdict,) = judge(runs)
    middle = stats.trim_mean(ONE_FAILS, 0.25)
    text = about_verdict(verdict)
    assert text.startswith(
        f"{verdict.outcome.capitalize()}: 1 of 5 seeds of b did not learn (interquartile mean "
        f"{middle:.3f}); final(test_accuracy) of a minus that of b is "
    )
    decided = Claim("a learns", FINAL, "b", None, "mean <= 0.9")
    (verdict,) = judge(simulate(runs.path.parent / "f", {"b": ONE_FAILS}, [decided]))
    assert verdict.outcome == "supported" and verdict.why == (
        "the interval lies wholly inside; but the interval of a mean does not cover what it says "
        "where some seeds do not learn (b)"
    )


def test_tables_words_and_numbers_lead_with_them_too(runs):
    comparison = compare(runs)
    headings, rows = table(comparison)
    assert headings[:5] == ["arm", "n", "did not learn", "IQM", f"mean {FINAL}"]
    assert rows[1][2:4] == ["1 of 5", "0.510"] and rows[1][5].endswith("(covers less)")
    assert rows[0][2] == "-" and "covers" not in rows[0][5]
    assert about_arm(comparison, comparison.arm("b")).startswith(
        "1 of 5 seeds of b did not learn (interquartile mean 0.510), so the interval of its mean "
        "does not cover what it says. b is "
    )
    assert arm_row(comparison, comparison.arm("b"))["did_not_learn"] == 1
    assert any("where some seeds do not learn (b)" in text for text in comparison.warnings)
    whole = compare(simulate(runs.path.parent / "f", {"a": GOOD}))
    assert table(whole)[0][:4] == ["arm", "n", f"mean {FINAL}", "95% interval"]


def test_arms_of_which_nothing_learned_are_said_to(tmp_path):
    entries = [write_run(tmp_path / "e", "a", seed, value) for seed, value in enumerate(GOOD)]
    entries += [write_run(tmp_path / "e", "b", seed, 0.1 + seed / 1e5) for seed in range(5)]
    (verdict,) = judge(write(tmp_path / "e", entries, [CLAIM]))
    assert verdict.outcome == "supported"
    assert about_verdict(verdict).startswith("Supported: none of the 5 seeds of b learned; ")


def test_a_report_says_how_many_failures_its_seeds_may_have_missed(runs):
    page = to_markdown(compare(runs), "normlab report e")
    assert (
        "In arms of 5 seeds that all learned, up to 45% of further seeds may fail to learn" in page
    )
    assert "(with 95% confidence)" in page
    for n in (3, 5, 10):  # so large a share shows nothing in n seeds in one case of twenty
        assert stats.binom.pmf(0, n, hidden_failures(n)) == pytest.approx(0.05)


def test_failures_take_coverage_from_the_mean_and_not_from_the_interquartile_mean():
    failing = KINDS["one seed in ten fails"]
    for n, least, most in ((5, 0.36, 0.48), (10, 0.60, 0.70)):  # 0.42 and 0.65
        above, below = of_the_mean(failing, n, 600)
        assert least < 1 - above - below < most
        assert sum(of_the_middle(failing, n, 600)) < 0.10
        assert abs(above - 0.9**n) < 0.07  # it is the samples that show no failure


def test_skewed_values_are_warned_of_and_others_are_not():
    rng = np.random.default_rng(0)

    def flagged(draw, measure=MEASURE):
        return np.mean([skewed(measure, arm(draw())) for _ in range(300)])

    loss = Measure.parse("final(test_loss)")
    assert flagged(lambda: rng.lognormal(0, 1, 5), loss) > 0.9
    assert flagged(lambda: rng.beta(98, 2, 5)) > 0.9
    assert flagged(lambda: rng.beta(2, 98, 5)) > 0.9
    assert flagged(lambda: rng.beta(98, 2, 5), loss) == 0
    assert flagged(lambda: rng.normal(0.6, 0.05, 5)) == 0
    assert flagged(lambda: rng.normal(0, 1, 5), loss) < 0.5  # only where all are above zero


def test_the_warning_stands_with_the_verdict(tmp_path):
    arms = {"a": [0.999, 0.981, 0.995, 0.998, 0.990], "b": GOOD}
    (verdict,) = judge(simulate(tmp_path / "e", arms, [CLAIM]))
    assert verdict.outcome == "supported" and "the values of a may be skewed" in verdict.why

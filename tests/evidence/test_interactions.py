"""A difference of differences: its interval is that of scipy and numpy, and covers what it says."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from normlab.configs.experiment import load_experiment
from normlab.errors import UserError
from normlab.evidence.interactions import interaction
from normlab.evidence.samples import Sample
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.reports.english import about_verdict
from tests.configs.mistakes import problems_of, text
from tests.shared.simulated import write, write_run


def arm(values, origin="same", seeds=None, **more):
    values = np.asarray(values, float)
    seeds = tuple(range(len(values)) if seeds is None else seeds)
    origins = tuple(f"{origin}{seed}" for seed in seeds)
    nothing = np.zeros(len(values), bool)
    return Sample("arm", seeds, values, nothing, len(values), origins=origins, **more)


def drawn(seed=0, n=5, spread=(1.0, 1.0, 1.0, 1.0), shared=0.0):
    noise = np.random.default_rng(seed)
    common = shared * noise.standard_normal(n)
    return [common + s * noise.standard_normal(n) for s in spread]


def test_four_arms_of_the_same_seeds_have_student_s_interval_of_one_number_a_seed():
    a, b, c, d = drawn(shared=3.0)
    found = interaction((arm(a), arm(b)), (arm(c), arm(d)))
    theirs = stats.ttest_1samp((a - b) - (c - d), 0.0)
    low, high = theirs.confidence_interval(0.95)
    assert found.paired and found.n == (5, 5, 5, 5)
    assert found.estimate == pytest.approx(a.mean() - b.mean() - c.mean() + d.mean())
    np.testing.assert_allclose(found.interval, (low, high), rtol=1e-9)
    assert found.p_value(0.0) == pytest.approx(theirs.pvalue, rel=1e-3)
    low, high = theirs.confidence_interval(0.99)
    np.testing.assert_allclose(found.at(0.99), (low, high), rtol=1e-9)
    assert "differences of differences" in found.method


def test_the_order_of_the_seeds_does_not_matter():
    a, b, c, d = drawn(shared=3.0)
    turned = arm(d[::-1], seeds=range(4, -1, -1))
    straight = interaction((arm(a), arm(b)), (arm(c), arm(d)))
    turned = replace(turned, origins=arm(d).origins)
    found = interaction((arm(a), arm(b)), (arm(c), turned), paired=True)
    np.testing.assert_allclose(found.interval, straight.interval)


def test_pairs_that_share_nothing_with_each_other_have_welch_s_interval_of_their_differences():
    a, b, c, d = drawn(shared=3.0, spread=(1, 1, 3, 3))
    found = interaction((arm(a), arm(b)), (arm(c, "wide"), arm(d, "wide")))
    low, high = stats.ttest_ind(a - b, c - d, equal_var=False).confidence_interval(0.95)
    assert not found.paired
    np.testing.assert_allclose(found.interval, (low, high), rtol=1e-9)


def test_arms_that_share_nothing_have_satterthwaite_s_interval():
    four = drawn(spread=(1, 2, 3, 4))
    names = ("p", "q", "r", "s")
    a, b, c, d = (arm(x, name) for x, name in zip(four, names, strict=True))
    found = interaction((a, b), (c, d))
    parts = np.array([np.var(x, ddof=1) / len(x) for x in four])
    degrees = parts.sum() ** 2 / (parts**2 / 4).sum()
    half = stats.t.ppf(0.975, degrees) * math.sqrt(parts.sum())
    np.testing.assert_allclose(
        found.interval, (found.estimate - half, found.estimate + half), rtol=1e-9
    )
    unpaired = interaction((arm(four[0]), arm(four[1])), (arm(four[2]), arm(four[3])), paired=False)
    np.testing.assert_allclose(unpaired.interval, found.interval, rtol=1e-9)


@pytest.mark.parametrize(
    ("origins", "spread"),
    [("aaaa", (1, 1, 1, 1)), ("aabb", (1, 1, 2, 2)), ("abcd", (1, 2, 1, 2))],
)
def test_it_covers_what_it_says(origins, spread):
    """800 experiments of five seeds with a true interaction of 0.7; a share of 95% has +-1.5%."""
    covered = 0
    for seed in range(800):
        four = drawn(seed, spread=spread, shared=0.0 if origins == "abcd" else 2.0)
        four[0] = four[0] + 0.7
        arms = [arm(x, origin) for x, origin in zip(four, origins, strict=True)]
        low, high = interaction(tuple(arms[:2]), tuple(arms[2:])).interval
        covered += low <= 0.7 <= high
    assert 0.93 <= covered / 800 <= 0.975


def test_what_has_no_interval_says_why():
    a, b, c, d = map(arm, drawn())
    reached = np.array([True] + [False] * 4)
    assert "never reached" in interaction((replace(a, censored=reached), b), (c, d)).lacking
    alone = arm([1.0])
    assert "sweep over seeds" in interaction((alone, alone), (alone, alone)).lacking
    same = arm([1.0] * 5, "x")
    assert "all equal" in interaction((same, arm([2.0] * 5, "y")), (same, same)).lacking


def test_what_configs_settle_is_exact():
    def of(number, origin):
        return arm([number] * 3, origin, exact=True)

    found = interaction((of(5.0, "a"), of(3.0, "a")), (of(9.0, "b"), of(4.0, "b")))
    assert found.estimate == -3.0 and tuple(found.interval) == (-3.0, -3.0)


def test_more_seeds_decide_and_how_many_is_told():
    a, b, c, d = drawn(3)
    found = interaction((arm(a + 0.5), arm(b)), (arm(c), arm(d)))
    assert found.foretells and found.seeds_to_decide(0.0) > 5


# In an experiment.

VALUES = {
    ("batch", "sgd"): [0.70, 0.71, 0.69, 0.72, 0.70],
    ("none", "sgd"): [0.50, 0.52, 0.49, 0.51, 0.53],
    ("batch", "muon"): [0.71, 0.70, 0.70, 0.72, 0.71],
    ("none", "muon"): [0.66, 0.67, 0.64, 0.68, 0.66],
}


def experiment(folder, claims, values=VALUES):
    made = [
        write_run(
            folder, f"{norm}, {opt}", seed, last, axes={"norm": norm, "optimizer": opt},
            proof={"claims": [claim.hash for claim in claims]},
        )
        for (norm, opt), own in values.items()
        for seed, last in enumerate(own)
    ]  # fmt: skip
    return write(folder, made, claims)


def about(expect, across="optimizer"):
    return Claim("it is another", "final(test_accuracy)", "batch", "none", expect, across=across)


@pytest.mark.parametrize(
    ("expect", "across", "wanted"),
    [
        ("difference >= 0.05", "optimizer", "supported"),
        ("difference >= 0.05", {"optimizer": ["sgd", "muon"]}, "supported"),
        ("difference >= 0.05", {"optimizer": ["muon", "sgd"]}, "refuted"),
        ("differs by more than 0.05", {"optimizer": ["muon", "sgd"]}, "supported"),
        ("differs by more than 0", "optimizer", "supported"),
        ("differs by more than 0.3", "optimizer", "refuted"),
        ("matches within 0.05", "optimizer", "refuted"),
        ("differs by more than 0.14", "optimizer", "undecided"),
    ],
)
def test_a_claim_across_optimisers_is_judged(tmp_path, expect, across, wanted):
    claim = about(expect, across)
    (verdict,) = judge(experiment(tmp_path / "e", [claim]))
    assert (verdict.outcome, verdict.registered) == (wanted, True), about_verdict(verdict)


def test_the_whole_sentence(tmp_path):
    (verdict,) = judge(experiment(tmp_path / "e", [about("differs by more than 0")]))
    assert about_verdict(verdict) == (
        "Supported: final(test_accuracy), (batch at optimizer=sgd minus none at optimizer=sgd) "
        "minus (batch at optimizer=muon minus none at optimizer=muon), is 0.148, 95% interval "
        "0.124 to 0.172 (n = 5 and 5 and 5 and 5, paired by seed; Student's t of the seeds' "
        "differences of differences), expected differs by more than 0: the interval lies wholly "
        "outside the margin."
    )


def test_an_unfinished_arm_of_the_four_decides_nothing(tmp_path):
    values = {**VALUES, ("none", "muon"): [0.66, 0.67, 0.64, 0.68, None]}
    claim = about("differs by more than 0")
    folder = tmp_path / "e"
    made = [
        write_run(
            folder, f"{norm}, {opt}", seed, last, axes={"norm": norm, "optimizer": opt},
            state="done" if last else "running", proof={"claims": [claim.hash]},
        )
        for (norm, opt), own in values.items()
        for seed, last in enumerate(own)
    ]  # fmt: skip
    (verdict,) = judge(write(folder, made, [claim]))
    assert verdict.outcome == "undecided" and "none at optimizer=muon" in verdict.why


def test_a_claim_without_across_keeps_the_hash_that_it_had():
    """Noted of the commit before this form came."""
    claim = Claim("a beats b", "final(test_accuracy)", "a", "b", "difference > 0")
    assert claim.hash == "e7dc6a526d" and "across" not in claim.kept()


CONFIG = text(
    norm="batch_norm",
    sweep="{norm: [batch_norm, identity], optimizer: {sgd: {name: sgd, learning_rate: 0.1}, "
    "muon: {name: muon, learning_rate: 0.1}}, seed: 0..1}",
    claims="[{says: it is another, measure: final(test_accuracy), expect: differs by more than 0, "
    "compare: {left: batch_norm, right: identity, across: optimizer}}]",
)


def test_a_config_has_such_a_claim(config):
    (claim,) = load_experiment(config(CONFIG), ()).claims
    assert claim.across == "optimizer"
    explicit = CONFIG.replace("across: optimizer", "across: {optimizer: [muon, sgd]}")
    (claim,) = load_experiment(config(explicit), ()).claims
    assert claim.across == {"optimizer": ["muon", "sgd"]}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("across: optimizer", "across: optimiser", "'across' names no axis 'optimiser'; did you mean 'optimizer'?"),
        ("across: optimizer", "across: {optimizer: [sgd, adam]}", "'optimizer' is never adam; it has sgd, muon"),
        ("across: optimizer", "across: {optimizer: [sgd]}", "'across' is an axis with two values"),
        ("across: optimizer", "across: [sgd, muon]", "'compare' is written as in"),
        ("differs by more than 0", "ratio > 1", "is about a difference"),
        ("left: batch_norm", "left: group_norm", "no arm is called 'group_norm'"),
    ],
)  # fmt: skip
def test_a_mistake_in_such_a_claim_is_told(config, old, new, told):
    assert told in problems_of(config(CONFIG.replace(old, new)))


def test_more_than_two_values_must_be_chosen_from(config):
    three = CONFIG.replace("muon: {", "adam: {name: adam, learning_rate: 0.1}, muon: {")
    told = problems_of(config(three))
    assert "which has 3 (sgd, adam, muon); say which two, as in {optimizer: [sgd, muon]}" in told


def test_an_expectation_of_a_negative_margin_is_refused():
    with pytest.raises(UserError, match="an expectation is written"):
        about("differs by more than -1")

"""Claims whose unit of replication is an axis, such as the speaker: each counts once."""

import numpy as np
import pytest
from scipy import stats

from normlab.configs.experiment import load_experiment
from normlab.evidence.contrasts import contrast
from normlab.evidence.samples import sample_by_unit
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure
from normlab.reports.english import about_verdict
from tests.configs.mistakes import problems_of, text
from tests.shared.simulated import write, write_run

SPEAKERS = ("anna", "bert", "cleo", "dora", "emil", "fred")
UNIT = "data.test_speakers"
ACCURACY = Measure.parse("final(test_accuracy)")


def claim(expect="difference > 0", **more):
    arms = {"left": {"norm": "a"}, "right": {"norm": "b"}}
    return Claim("a understands more", "final(test_accuracy)", **arms, expect=expect, unit=UNIT,
                 **more)  # fmt: skip


def spoken(folder, values, claims, state="done"):
    """An experiment: arm to an array of accuracies, speakers by seeds."""
    hashes = [one.hash for one in claims]
    made = []
    for norm, own in values.items():
        for speaker, row in zip(SPEAKERS, own, strict=True):
            for seed, last in enumerate(row):
                is_last = norm == "a" and speaker == "fred" and seed == len(row) - 1
                how = {"axes": {"norm": norm, UNIT: speaker}, "norm": norm,
                       "state": state if is_last else "done"}  # fmt: skip
                proof = {"claims": hashes}
                made.append(write_run(folder, f"{norm}, {speaker}", seed, last, proof=proof, **how))
    return write(folder, made, claims)


def drawn(seed=0, seeds=3, between=0.1, within=0.01, difference=0.05):
    """Accuracies of two arms, whose difference is another for each speaker."""
    rng = np.random.default_rng(seed)
    speaker = rng.normal(0.6, 0.1, (6, 1))
    effect = rng.normal(difference, between, (6, 1))
    noise = rng.normal(0, within, (2, 6, seeds))
    return {"a": speaker + effect + noise[0], "b": speaker + noise[1]}


def test_the_interval_is_student_s_of_the_speakers_means(tmp_path):
    values = drawn()
    (verdict,) = judge(spoken(tmp_path / "e", values, [claim()]))
    means = values["a"].mean(1) - values["b"].mean(1)
    theirs = stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    assert verdict.contrast.n == (6, 6) and verdict.contrast.paired
    np.testing.assert_allclose(verdict.contrast.estimate, means.mean(), rtol=1e-9)
    np.testing.assert_allclose(verdict.interval, theirs, rtol=1e-9)
    told = about_verdict(verdict)
    alike = np.corrcoef(values["a"].mean(1), values["b"].mean(1))[0, 1]
    paired = f"paired by {UNIT}, correlation {alike:.2f}"
    assert f"n = 6 and 6, {paired}; Student's t of the units' differences" in told


def test_many_seeds_of_few_speakers_decide_nothing_that_the_speakers_do_not(tmp_path):
    values = drawn(seed=6, seeds=20, between=0.1, difference=0.03)
    alone = [values["a"][i] - values["b"][i] for i in range(6)]
    assert all(stats.ttest_1samp(own, 0.0).pvalue < 1e-6 for own in alone)  # each by itself is sure
    (verdict,) = judge(spoken(tmp_path / "e", values, [claim()]))
    assert verdict.outcome == "undecided" and f"values of {UNIT} an arm would decide" in verdict.why


@pytest.mark.parametrize("seeds", [1, 4])
def test_equal_arms_are_told_apart_in_one_case_of_twenty(seeds):
    wrong = 0
    for repeat in range(400):
        values = drawn(repeat, seeds, difference=0.0)
        means = [Measured(own) for own in (values["a"], values["b"])]
        wrong += means[0].differs_from(means[1])
    assert 0.02 <= wrong / 400 <= 0.085  # 5%, give or take three standard errors


class Measured:
    """An arm's sample by unit, made without files."""

    def __init__(self, values):
        records = [Told(speaker, seed, last) for speaker, row in zip(SPEAKERS, values, strict=True)
                   for seed, last in enumerate(row)]  # fmt: skip
        self.sample = sample_by_unit("arm", records, ACCURACY, UNIT)

    def differs_from(self, other):
        low, high = contrast(self.sample, other.sample).at(0.95)
        return low > 0 or high < 0


class Told:
    """As much of a record as a final accuracy needs."""

    damage, state, finished = "", "done", True
    provenance = ()
    data = {"test_examples": 10_000, "classes": 10}  # noqa: RUF012

    def __init__(self, speaker, seed, last):
        self.seed, self.axes, self.config = seed, {"norm": "x", UNIT: speaker}, {}
        self.metrics = [{"step": 1, "test_accuracy": float(last)}]
        self.status = {"steps": 1, "step": 1}


def test_a_speaker_with_an_unfinished_run_is_named(tmp_path):
    (verdict,) = judge(spoken(tmp_path / "e", drawn(), [claim()], state="interrupted"))
    assert verdict.outcome == "undecided"
    assert f"{UNIT} = fred, seed 2 was interrupted" in verdict.why


def test_the_floor_is_held_by_the_mean_over_the_speakers(tmp_path):
    floored = claim(floor="final(test_accuracy) >= 0.99")
    (verdict,) = judge(spoken(tmp_path / "e", drawn(), [floored]))
    assert verdict.outcome == "undecided" and "the arms underfit" in verdict.why


def test_a_mean_over_speakers_has_the_speakers_interval(tmp_path):
    values = drawn()
    one = Claim("a understands", "final(test_accuracy)", {"norm": "a"}, None, "mean >= 0.1",
                unit=UNIT)  # fmt: skip
    (verdict,) = judge(spoken(tmp_path / "e", values, [one]))
    theirs = stats.ttest_1samp(values["a"].mean(1), 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(verdict.interval, theirs, rtol=1e-9)


def test_a_claim_without_a_unit_keeps_its_hash():
    plain = Claim("s", "final(test_accuracy)", "a", "b", "difference > 0")
    assert "unit" not in plain.kept() and claim().kept()["unit"] == UNIT


SWEEP = "{norm: [batch_norm, identity], data.size: [8, 12], seed: 0..3}"


def config(unit, looks=None, sweep=SWEEP):
    compare = "{left: batch_norm, right: identity}"
    measured = f"measure: final(test_accuracy), compare: {compare}, expect: difference > 0"
    claims = f"[{{says: more, unit: {unit}, {measured}}}]"
    return text(sweep=sweep, claims=claims, looks=looks)


def test_the_check_knows_the_axes(tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text(config("data.size"))
    assert load_experiment(file).claims[0].unit == "data.size"
    file.write_text(config("data.sise"))
    assert "'unit' names no axis 'data.sise'; did you mean 'data.size'?" in problems_of(file)
    file.write_text(config("data.size", "[2, 4]"))
    assert "'looks' count seeds, and a claim's unit is data.size" in problems_of(file)


def test_what_varies_with_the_unit_is_no_other_arm(tmp_path):
    sizes, norms = (
        "data.size: [8, 12], data.test_examples: [50, 60]",
        "norm: [batch_norm, identity]",
    )
    file = tmp_path / "e.yaml"
    file.write_text(config("data.size", sweep=f"{{zip: {{{sizes}}}, {norms}, seed: [0]}}"))
    assert len(load_experiment(file).runs) == 4
    file.write_text(config("data.size", sweep=f"{{{sizes}, {norms}, seed: [0]}}"))
    assert "'batch_norm' is several arms" in problems_of(file)

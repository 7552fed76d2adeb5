"""Verdicts and reports that speak of new test images and new tuning, and say which."""

import json
import math

import numpy as np
import pytest

from normlab.evidence.beyond_seeds import agreements, wider
from normlab.evidence.caveats import tuning_lines
from normlab.evidence.comparison import compare
from normlab.evidence.images import image_error
from normlab.evidence.tuning_noise import ANEW, NO_TRIALS, ONE_SEED, TuningNoise
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure
from normlab.reports.english import about_verdict
from normlab.reports.export import to_json
from normlab.reports.html import to_html
from normlab.reports.markdown import to_markdown, to_text
from normlab.reports.publishing import publish
from normlab.store.files import DamagedError
from normlab.store.loading import load
from normlab.store.outcomes import Outcomes, write_outcomes
from normlab.store.record import Record
from tests.shared.simulated import PROVENANCE, write, write_run

from .test_images import answers

ACCURACY = Measure.parse("final(test_accuracy)")
IMAGES, SEEDS = 300, 5


def claim(**more):
    return Claim("a beats b", str(ACCURACY), "a", "b", "difference > 0", **more)


@pytest.fixture
def right():
    """Arm b is right where images are easy; arm a is right on some more, in every seed."""
    rng = np.random.default_rng(0)
    ease, more = rng.random(IMAGES), rng.random(IMAGES) < 0.08
    chance = np.where(ease < 0.3, 0.02, 0.98)
    b = rng.random((SEEDS, IMAGES)) < chance
    return {"a": b | more, "b": b}


def experiment(folder, right, *claims):
    made = []
    proof = {"claims": [one.hash for one in claims],
             "data": {**PROVENANCE["data"], "test_examples": IMAGES}}  # fmt: skip
    for arm, own in right.items():
        for seed, row in enumerate(own):
            run = write_run(folder, arm, seed, float(row.mean()), proof=proof)
            predicted = np.where(row, 0, 1).astype(np.int32)
            whole = Outcomes(("x", "y"), np.zeros(IMAGES, np.int32), predicted, row.astype(float))
            write_outcomes(run.path, whole)
            made.append(run)
    return write(folder, made, claims)


def test_a_claim_is_decided_by_what_it_generalises_to(tmp_path, right):
    alone, both = claim(), claim(generalise=["seeds", "images"])
    of_seeds, of_images = judge(experiment(tmp_path / "e", right, alone, both))
    assert of_seeds.outcome == of_images.outcome == "supported"
    error = image_error([answers(own) for own in right.values()], [1, -1])
    low, high = of_seeds.contrast.interval
    middle = of_seeds.contrast.estimate
    wide = math.hypot(high - middle, 1.959964 * error)
    assert of_images.contrast.interval == pytest.approx((middle - wide, middle + wide))
    assert of_seeds.beside.interval == of_images.contrast.interval
    assert of_images.beside.interval == (low, high)
    assert "it decides nothing, because the claim speaks of new seeds" in about_verdict(of_seeds)
    assert "For new seeds alone, with all else the same, the interval is" in about_verdict(
        of_images)  # fmt: skip


def test_a_gain_on_these_images_alone_is_not_one_on_new_images(tmp_path, right):
    few = np.flatnonzero(right["a"][0] & ~right["b"][0])[:2]
    right["a"] = right["b"].copy()
    right["a"][:, few] = True  # in every seed, on two images
    alone, both = claim(), claim(generalise=["seeds", "images"])
    of_seeds, of_images = judge(experiment(tmp_path / "e", right, alone, both))
    assert of_images.outcome == "undecided" and of_images.p > of_seeds.p


def test_without_answers_a_claim_on_images_says_why_it_is_open(tmp_path, right):
    runs = experiment(tmp_path / "e", right, claim(generalise=["seeds", "images"]))
    (runs.runs[0].path / "outcomes.json").unlink()
    (verdict,) = judge(runs)
    assert verdict.outcome == "undecided"
    assert verdict.why == "not every run has its answers for the test images stored"
    (runs.runs[1].path / "outcomes.json").write_text("{")  # damaged answers stop no verdict
    assert judge(runs)[0].outcome == "undecided"


def test_published_results_keep_what_a_claim_on_images_is_decided_by(tmp_path, right):
    runs = experiment(tmp_path / "e", right, claim(generalise=["seeds", "images"]))
    again = load(publish(runs, tmp_path / "results"))
    (before,), (after,) = judge(runs), judge(again)
    assert before.outcome == after.outcome == "supported"
    assert after.interval == pytest.approx(before.interval, abs=1e-5)
    assert agreements(compare(again)) == []  # which classes were answered is not kept
    file = again.path / "metrics.json"
    file.write_text(file.read_text().replace('"right":"', '"right":"x'))
    with pytest.raises(DamagedError, match="'right' is broken"):
        load(again.path)
    alone = experiment(tmp_path / "f", right, claim())
    kept = (publish(alone, tmp_path / "others") / "metrics.json").read_text()
    assert '"right"' not in kept.partition('"runs"')[2]


def test_the_claim_without_the_key_has_the_hash_that_it_had():
    assert "generalise" not in claim().kept()
    assert claim().hash != claim(generalise=["seeds"]).hash


def test_a_report_states_both_intervals_and_the_agreement_in_every_form(tmp_path, right):
    comparison = compare(experiment(tmp_path / "e", right, claim()), baseline="b")
    by_what = {one.what: one for one in wider(comparison)}
    assert set(by_what) == {"a", "b", "a minus b"}
    for one in by_what.values():
        (low, high), (wide, wider_still) = one.seeds.interval, one.others["images"].interval
        assert wide < low <= high < wider_still
    ((arm, alike),) = agreements(comparison)
    assert arm.name == "a" and 0 < alike.beyond < 0.1
    texts = (
        to_html(comparison, "c"), to_markdown(comparison, "c"), to_text(comparison, 80, wide=True)
    )  # fmt: skip
    for text in texts:
        assert "new seeds and images" in text and "Do the arms answer alike?" in text
    found = json.loads(to_json(comparison))
    assert {row["what"] for row in found["beyond_seeds"]} == set(by_what)
    assert found["claims"][0]["beside"]["generalise"] == ["seeds", "images"]
    assert found["agreement"][0]["between"] == pytest.approx(alike.between)


def test_pairs_report_their_correlation(tmp_path):
    a, b = [0.70, 0.74, 0.69, 0.75, 0.72], [0.60, 0.66, 0.60, 0.63, 0.64]
    made = [write_run(tmp_path / "e", n, s, v) for n, own in (("a", a), ("b", b))
            for s, v in enumerate(own)]  # fmt: skip
    runs = write(tmp_path / "e", made, [claim(), claim(paired=False, source="x")])
    paired, apart = judge(runs)
    expected = np.corrcoef(a, b)[0, 1]
    assert paired.contrast.correlation == pytest.approx(expected)
    assert f"paired by seed, correlation {expected:.2f};" in about_verdict(paired)
    assert math.isnan(apart.contrast.correlation) and "correlation" not in about_verdict(apart)
    arms = json.loads(to_json(compare(runs)))["arms"]
    assert [arm["correlation"] for arm in arms] == [None, pytest.approx(expected)]


RATES = (0.1, 0.3)


def tuning(scores, **more):
    """A tuning of arms whose scores are by rate, then by seed."""
    seeds = list(range(100, 100 + len(next(iter(scores.values()))[0])))
    chosen = {
        arm: {"values": {"learning_rate": 0.3}, "score": 0.5, "trials": 4, "steps": 10,
              "at_edge": False,
              "tried": [{"values": {"learning_rate": rate}, "scores": own}
                        for rate, own in zip(RATES, rows, strict=True)]}
        for arm, rows in scores.items()
    }  # fmt: skip
    return {"grid": {"learning_rate": list(RATES)}, "seeds": seeds,
            "measure": "final(val_accuracy)", "chosen": chosen, **more}  # fmt: skip


def trials(folder, arm, means):
    """The trials of an arm, whose test accuracies are by rate, then by seed."""
    return [
        Record.read(write_run(folder, f"{arm}-{rate}", 100 + i, value,
                              axes={"norm": arm, "learning_rate": rate}))
        for rate, own in zip(RATES, means, strict=True)
        for i, value in enumerate(own)
    ]  # fmt: skip


def run_of(folder, arm):
    return Record.read(write_run(folder, arm, 0, 0.6))


def test_the_choice_is_drawn_again_over_the_tuning_seeds(tmp_path):
    # Two seeds: 0.1 wins by both or by the second alone, 0.3 by the first alone.
    about = tuning({"a": [[0.5, 0.8], [0.6, 0.6]]})
    noise = TuningNoise(about, trials(tmp_path, "a", [[0.50, 0.54], [0.60, 0.64]]))
    shares = {values["learning_rate"]: share for values, share in noise.shares("a")}
    assert shares == pytest.approx({0.1: 0.75, 0.3: 0.25}, abs=0.03)
    error, why = noise.error([run_of(tmp_path, "a")], [1], ACCURACY)
    # The means are 0.52 and 0.62; the variance of the choice is raised by 2 / (2 - 1).
    assert why == "" and error == pytest.approx(math.sqrt(2 * 0.75 * 0.25) * 0.1, rel=0.05)
    (_, explained, line) = tuning_lines({"tuning": about})
    assert "do not hold its noise" in explained
    assert line.endswith("; drawn again: learning_rate=0.1 in "
                         f"{shares[0.1]:.0%}, learning_rate=0.3 in {shares[0.3]:.0%}")  # fmt: skip


def test_a_choice_that_no_draw_changes_adds_nothing(tmp_path):
    noise = TuningNoise(
        tuning({"a": [[0.5, 0.5], [0.9, 0.9]]}), trials(tmp_path, "a", [[0.5, 0.5], [0.6, 0.6]])
    )
    error, why = noise.error([run_of(tmp_path, "a")], [1], ACCURACY)
    assert why == "" and error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "more", "words"),
    [([[0.5], [0.6]], {}, ONE_SEED), ([[0.5, 0.5], [0.6, 0.6]], {"anew": True}, ANEW),
     ([[0.5, 0.5], [0.6, 0.6]], {}, NO_TRIALS)],
)  # fmt: skip
def test_why_the_choice_cannot_be_drawn_again_is_told(tmp_path, scores, more, words):
    noise = TuningNoise(tuning({"a": scores}, **more), ())
    error, why = noise.error([run_of(tmp_path, "a")], [1], ACCURACY)
    assert math.isnan(error) and why == words


def test_a_verdict_may_speak_of_new_tuning(tmp_path):
    folder, asked = tmp_path / "e", claim(generalise=["seeds", "tuning"])
    jitter = np.array([0.001, 0.002, 0.0, 0.001, -0.001])
    made = [write_run(folder, arm, s, v) for arm, own in (("a", 0.62 + jitter), ("b", 0.6 - jitter))
            for s, v in enumerate(own)]  # fmt: skip
    scores = {"a": [[0.5, 0.8], [0.6, 0.6]], "b": [[0.9, 0.9], [0.1, 0.1]]}
    own = [*trials(folder, "a", [[0.5, 0.5], [0.6, 0.6]]),
           *trials(folder, "b", [[0.6, 0.6], [0.5, 0.5]])]  # fmt: skip
    runs = write(folder, made, [asked], tuning=tuning(scores))
    object.__setattr__(runs, "trials", own)
    (verdict,) = judge(runs)
    assert verdict.outcome == "undecided"  # the arm's choice moves its mean by a tenth
    assert verdict.beside.interval.low > 0 and verdict.interval.low < 0 < verdict.interval.high
    assert "a new choice by tuning" in verdict.contrast.method
    tables = to_markdown(compare(runs, baseline="b"), "c")
    assert "new seeds and tuning" in tables


def test_tuning_done_anew_is_said_to_be_in_the_intervals_over_seeds():
    by_seed = {
        "0": {"learning_rate": 0.3},
        "1": {"learning_rate": 0.1},
        "2": {"learning_rate": 0.3},
    }
    about = tuning({"a": [[0.5] * 3, [0.6] * 3]}, anew=True)
    about["chosen"]["a"]["by_seed"] = by_seed
    (_, explained, line) = tuning_lines({"tuning": about})
    assert "so intervals over seeds hold the noise of the choice" in explained
    assert line.startswith("a: learning_rate=0.3 for 2 seeds; learning_rate=0.1 for 1 seed ")

"""Every measure by hand, on run directories written by hand."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normlab.errors import UserError
from normlab.measures.measures import MEASURES, METRICS, Measure, Value
from normlab.store.record import Record
from tests.shared.simulated import curve, write_run


@pytest.fixture
def record(tmp_path):
    def make(last=0.7, state="done", seed=0, axes=None, **more):
        name = f"a{len(list(tmp_path.glob('e/*')))}"
        run = write_run(tmp_path / "e", name, seed, last, state=state, axes=axes, **more)
        return Record.read(run)

    return make


def of(text, record):
    return Measure.parse(text).of(record)


# The accuracies of `curve(0.7)`: 0.1 + 0.6 (1 - 2^-k) after 10 k steps, and 0.7 at the end.
ROWS = [0.4, 0.55, 0.625, 0.6625, 0.68125, 0.7]

DONE = {
    "final(test_accuracy)": 0.7,
    "best(test_loss)": 2.3 * 0.3 + 0.1,
    "steps_to(test_accuracy, 0.6)": 30,
    "steps_to(train_loss, 1.0)": 30,  # a loss is reached from above
    "seconds_to(test_accuracy, 0.6)": 0.3,
    "area(test_accuracy)": (sum(ROWS) - (ROWS[0] + ROWS[-1]) / 2) / 5,
    "gap(train_accuracy, test_accuracy)": 0.05,
    "diverged": 0,
    "diverged()": 0,
    "seconds_per_step": 0.01,
    "peak_memory": 5.0,
    "parameters": 1234,
    "compile_seconds": 1.0,
}


@pytest.mark.parametrize("text", DONE)
def test_of_a_run_that_is_done(record, text):
    value = of(text, record())
    assert value.number == pytest.approx(DONE[text]) and not value.censored


def test_epsilon_is_that_of_the_last_row_and_of_private_runs_alone(record):
    assert of("epsilon", record()) is None
    rows = [{**row, "epsilon": 0.5 * row["step"]} for row in record().metrics]
    assert of("epsilon", dataclasses.replace(record(), metrics=rows)) == Value(30.0)
    assert of("epsilon", dataclasses.replace(record(), metrics=[])) is None


def test_the_curve_is_as_said_above():
    assert [row["test_accuracy"] for row in curve(0.7)] == pytest.approx(ROWS)


def test_what_was_not_reached_lies_beyond_what_was_run(record):
    assert of("steps_to(test_accuracy, 0.8)", record()) == Value(60, censored=True)
    assert of("seconds_to(test_accuracy, 0.8)", record()) == Value(0.6, censored=True)


def test_a_diverged_run_knows_no_more_than_a_guess_and_reaches_nothing_after(record):
    broken = record(state="diverged", step=30)
    assert of("final(test_accuracy)", broken) == Value(0.1)
    assert of("final(train_loss)", broken).number == pytest.approx(math.log(10))
    asked = [{**row, "test_auc": 0.6} for row in broken.metrics]
    assert of("final(test_auc)", dataclasses.replace(broken, metrics=asked)) == Value(0.5)
    assert of("best(test_accuracy)", broken).number == pytest.approx(0.625)
    assert of("steps_to(test_accuracy, 0.5)", broken) == Value(20)
    assert of("steps_to(test_accuracy, 0.65)", broken) == Value(60, censored=True)
    assert of("seconds_to(test_accuracy, 0.65)", broken) == Value(pytest.approx(0.6), censored=True)
    assert of("gap(train_accuracy, test_accuracy)", broken) is None
    assert of("diverged", broken) == Value(1)
    by_hand = ((0.4 + 0.55) / 2 * 10 + (0.55 + 0.625) / 2 * 10 + 0.1 * 30) / 50
    assert of("area(test_accuracy)", broken).number == pytest.approx(by_hand)


def test_the_largest_value_of_an_axis_at_which_a_run_learned(record):
    runs = [
        record(axes={"learning_rate": 0.1}),
        record(axes={"learning_rate": 1.0}),
        record(axes={"learning_rate": 3.0}, last=0.0),  # it ended where a guess is: collapsed
        record(axes={"learning_rate": 9.0}, state="diverged", step=30),
    ]
    measure = Measure.parse("largest_stable(learning_rate)")
    assert measure.axis == "learning_rate" and measure.over(runs) == Value(1.0)
    assert measure.over(runs[3:]) == Value(0.0)


def test_a_slope_is_by_doubling(record):
    runs = [record(axes={"batch_size": 2**k}, last=0.5 + 0.03 * k) for k in range(1, 5)]
    slope = Measure.parse("slope(test_accuracy, batch_size)").over(runs[::-1])
    assert slope.number == pytest.approx(0.03)


MISTAKES = {
    "final(": "a measure is written as in final(test_accuracy), found 'final('",
    "final()": "'final()' has 0 arguments; it is written final(metric)",
    "diverged(x)": "'diverged(x)' has 1 argument; it is written diverged",
    "steps_to(test_accuracy, high)": "'high' must be a number",
    "steps_to(test_accuracy, inf)": "'inf' must be a finite number",
    "final(test_acc)": "no metric is called 'test_acc'; did you mean 'test_accuracy'?",
    "": "a measure is written as in final(test_accuracy), found ''",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_each_mistake_is_told(text):
    with pytest.raises(UserError) as error:
        Measure.parse(text)
    assert str(error.value) == MISTAKES[text]


ARGUMENTS = {
    "metric": st.sampled_from(METRICS),
    "number": st.floats(1e-5, 1e5).map(lambda x: float(f"{x:g}")),
    "axis": st.sampled_from(["learning_rate", "optimizer.momentum"]),
    "quantity": st.sampled_from(["spread", "updates.spread"]),
    "step": st.integers(0, 10**7) | st.just("end"),
    "policy": st.sampled_from(["tent", "alpha_bn"]),
    "stream": st.sampled_from(["sorted", "as_stored"]),
    "batch size": st.sampled_from(["1", "64"]),
    "corruption": st.sampled_from(["fog", "clean"]),
    "how": st.sampled_from(["mean", "spread", "Block_0/Conv_1"]),
}


@given(st.data())
def test_a_measure_is_written_as_it_is_read(data):
    name = data.draw(st.sampled_from(list(MEASURES)))
    kinds = MEASURES[name].takes + MEASURES[name].may_take * data.draw(st.booleans())
    arguments = tuple(data.draw(ARGUMENTS[kind]) for kind in kinds)
    measure = Measure(name, arguments)
    assert Measure.parse(str(measure)) == measure
    assert isinstance(measure.higher_is_better, bool) or name in ("probe", "drift")

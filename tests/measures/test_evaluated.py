"""`evaluated(...)` picks one evaluation of a run by its words, in any order."""

import pytest

from normlab.measures.evaluated import Judged, chosen
from normlab.measures.measures import Measure
from normlab.measures.value import NoValueError
from normlab.store.record import Record
from tests.shared.simulated import write_run

FOG = ("remade_fog", "remade_snow")
ROWS = [
    ("test_accuracy(tent, sorted, 64)", None, 0.5),
    ("test_accuracy(tent, changing, 64)", list(FOG), [0.2, 0.4]),
    ("test_loss(tent, sorted, 64)", None, 1.5),
    ("test_accuracy(stored, sorted, 64)", None, None),
    ("along(tent, sorted, 64)", None, [0.1, 0.9]),
]


@pytest.fixture
def record(tmp_path):
    def make(state="done"):
        run = write_run(tmp_path / state, "a", 0, 0.7, state=state)
        rows = [{"step": 60, "probe": "evaluate", "quantity": q, "layers": layers, "values": values}
                for q, layers, values in ROWS]  # fmt: skip
        run.append_probes(rows)
        return Record.read(run)

    return make


@pytest.mark.parametrize(
    "text, number",
    [("evaluated(test_accuracy, tent, sorted)", 0.5), ("evaluated(test_loss, tent)", 1.5),
     ("evaluated(test_accuracy, tent, 64, changing)", 0.3),
     ("evaluated(test_accuracy, tent, remade_snow, changing)", 0.4)],
)  # fmt: skip
def test_of_a_run_that_is_done(record, text, number):
    measure = Measure.parse(text)
    assert measure.of(record()).number == pytest.approx(number)
    assert measure.higher_is_better is ("accuracy" in text)


def test_what_is_gained_is_the_difference_of_two_policies(tmp_path, record):
    run = write_run(tmp_path / "two", "a", 0, 0.7)
    rows = [("tent", 0.5), ("stored", 0.75)]
    run.append_probes([
        {"step": 60, "probe": "evaluate", "quantity": f"test_accuracy({policy}, iid, 64)",
         "layers": None, "values": value} for policy, value in rows
    ])  # fmt: skip
    measure = Measure.parse("gained(test_accuracy, tent, stored, iid)")
    assert measure.of(Record.read(run)).number == -0.25
    assert measure.of(record("diverged")) is None


def test_its_words_have_all_that_picks_it():
    words = Measure.parse("evaluated(test_accuracy, tent, sorted)").words
    assert words == "test accuracy under tent, sorted (share of examples)"


def test_a_diverged_run_guesses(record):
    assert Measure.parse("evaluated(test_accuracy, tent)").of(record("diverged")).number == 0.1


@pytest.mark.parametrize(
    "text, said",
    [("evaluated(test_accuracy, tent)", "several evaluations 'tent': write tent, sorted, 64 or"),
     ("evaluated(test_accuracy, sar)", "no evaluation 'sar'; it has tent, sorted, 64; tent, ch"),
     ("evaluated(test_accuracy, stored)", "that is not finite"),
     ("evaluated(test_auc, tent)", "add it to train.metrics")],
)  # fmt: skip
def test_what_is_not_there_is_told(record, text, said):
    measure = Measure.parse(text)
    with pytest.raises(NoValueError, match=said):
        measure.definition.compute(record(), *measure.arguments)


def test_a_policy_may_have_the_name_of_a_stream_or_a_size():
    judged = [
        Judged(("sorted", "iid", "1"), ("clean",)),
        Judged(("tent", "sorted", "1"), ("clean",)),
    ]
    assert chosen(judged, ("sorted",)) == (judged[0], None)
    assert chosen(judged, ("tent", "clean")) == (judged[1], "clean")

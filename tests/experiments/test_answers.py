"""Numbers that answers and remarks name, and no page shows, are those of the committed results."""

from itertools import islice

import numpy as np
import pytest
from scipy import stats

from experiments.questions import questions
from normlab.configs.build import dataset
from normlab.data.cifar import Cifar10
from normlab.errors import UserError
from normlab.evidence.samples import sample
from normlab.measures.measures import Measure

COMMITTED = {question.name: question for question in questions()}


def values(question, measure):
    """Arm to the values of its seeds."""
    found = {}
    for record in COMMITTED[question].records:
        found.setdefault(record.arm, []).append(record)
    return {arm: sample(arm, own, Measure.parse(measure)).values for arm, own in found.items()}


def says(question, *words):
    """Return whether the answer or the remarks say each of these."""
    text = COMMITTED[question].notes["answer"] + COMMITTED[question].remarks.beware
    assert not [one for one in words if one not in " ".join(text.split())]


def test_without_the_head_batch_norm_does_not_spread_the_layers_speeds():
    found = {}
    for record in COMMITTED["layer_speeds"].records:
        for row in record.probes:
            if (row["probe"], row["quantity"]) == ("updates", "ratio") and row["step"] == 0:
                assert row["layers"][-1] == "Dense_0"
                spread = np.log10(np.array(row["values"][:-1], float)).std()
                found.setdefault(record.arm, []).append(spread)
    means = {arm: f"{np.mean(own):.2f}" for arm, own in found.items()}
    assert means == {"identity": "0.12", "batch_norm": "0.11", "group_norm(groups=8)": "0.20"}
    says(
        "layer_speeds",
        "over the other layers the spread is 0.11, and 0.12 without",
        "it is 0.20 there",
    )


def test_the_first_steps_differences_between_layers_do_not_last():
    spread = values("layer_speeds", "probe(updates.spread, end)")
    rough = values("layer_speeds", "probe(landscape.beta, end)")
    assert [f"{own.mean():.2f}" for own in spread.values()] == ["0.20", "0.17", "0.14"]
    assert [f"{own.mean():.1f}" for own in rough.values()] == ["7.8", "9.5", "21.7"]
    says("layer_speeds", "0.20 without a normaliser, 0.17 with batch norm and 0.14 with group norm")
    says("layer_speeds", "7.8, 9.5 and 21.7")
    for found in (spread, rough):
        _, p = stats.ttest_ind(found["batch_norm"], found["identity"], equal_var=False)
        assert p > 0.05
    t, p = stats.ttest_ind(spread["group_norm(groups=8)"], spread["identity"], equal_var=False)
    assert t < 0 and p < 0.05


def dearer(images, dropout):
    """What dropout costs with batch norm less what it costs without, in points: mean, 95%."""
    found = values("regularisation", "final(test_accuracy)")
    arms = [
        found[f"{norm}, {place}, {images} images"]
        for norm in ("BN", "plain")
        for place in ("no dropout", dropout)
    ]
    with_norm, without = (arms[i].mean() - arms[i + 1].mean() for i in (0, 2))
    errors = np.array([own.var(ddof=1) / len(own) for own in arms])
    freedom = errors.sum() ** 2 / (errors**2 / [len(own) - 1 for own in arms]).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(errors.sum())
    middle = with_norm - without
    return [f"{100 * one:.1f}" for one in (with_norm, without, middle - half, middle + half)]


@pytest.mark.parametrize(
    ("images", "dropout", "told"),
    [
        (8000, "blocks", ["14.9", "13.0", "-2.6", "6.3"]),
        (8000, "head", ["5.3", "5.8", "-4.5", "3.4"]),
        (2000, "blocks", ["12.4", "9.1", "0.6", "6.0"]),
        (500, "blocks", ["0.5", "4.2", "-6.0", "-1.6"]),
    ],
)
def test_dropout_costs_about_as_much_without_batch_norm(images, dropout, told):
    assert dearer(images, dropout) == told
    says("regularisation", "13.0 points without and 14.9 with it", "-2.6 to 6.3 points")
    says("regularisation", "5.8 and 5.3 before the head (-4.5 to 3.4)")
    says("regularisation", "0.6 to 6.0 points, within the blocks", "cheaper (by 1.6 to 6.0)")


def test_the_rates_at_which_accuracy_is_highest():
    found = {
        arm: own.mean() for arm, own in values("learning_rates", "final(test_accuracy)").items()
    }
    for norm, rate, accuracy in (("batch_norm", 0.3, "39%"), ("identity", 0.01, "27%")):
        own = {arm: value for arm, value in found.items() if arm.startswith(norm)}
        best = max(own, key=lambda arm: own[arm])
        assert (best, f"{own[best]:.0%}") == (f"{norm}, learning_rate={rate}", accuracy)
    assert f"{found['batch_norm, learning_rate=1.0']:.0%}" == "19%"
    says("learning_rates", "at 0.3 with batch norm (39%)", "without (27%)", "ends at 19%")


def is_of_jpegs():
    """Return whether the first image of CIFAR-10's Parquet tables is a JPEG."""
    folder = Cifar10().locate()
    if folder is None or folder.is_file():
        return False
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.ParquetFile(min(folder.glob("train-*.parquet")))
    (batch,) = islice(table.iter_batches(batch_size=1, columns=["img"]), 1)
    return batch.to_pylist()[0]["img"]["bytes"].startswith(b"\xff\xd8")


@pytest.mark.parametrize("question", COMMITTED.values(), ids=COMMITTED)
def test_the_copy_of_the_data_is_the_one_that_is_named(question):
    """If that copy lies on this machine, its fingerprint is the one of the records."""
    record = question.records[0]
    told = record.data
    try:
        found = dataset(record.config)
    except UserError as error:
        pytest.skip(f"the data are not here: {error}")
    cifar, named = told["name"] == "cifar10", question.remarks.copy
    assert ("JPEG images in Parquet tables" in named) == cifar
    if len(found.train.labels) != told["train_examples"] or (cifar and not is_of_jpegs()):
        pytest.skip("another copy of the data is here")
    assert found.fingerprint == told["fingerprint"]

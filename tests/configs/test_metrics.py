"""A question of a dataset's own split and of other metrics, asked by YAML alone."""

import numpy as np
import pytest

from normlab.configs.experiment import load_experiment
from normlab.errors import UserError
from normlab.measures.measures import Measure
from normlab.store.record import Record

QUESTION = """
data: {name: medmnist, validation: own}
model: {name: mlp, widths: [8]}
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 1, batch_size: 20, metrics: [auc, balanced_accuracy]}
norm: batch_norm
claims:
  - says: it learns to tell pneumonia
    measure: final(test_auc)
    compare: {left: batch_norm}
    expect: mean >= 0.9
    floor: final(val_balanced_accuracy) >= 0.5
"""


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Dark and bright images, four of five bright, as MedMNIST has them."""
    arrays = {}
    for part, n in (("train", 100), ("val", 20), ("test", 30)):
        labels = (np.arange(n) % 5 > 0).astype(np.uint8)
        noise = np.random.default_rng(n).integers(0, 50, (n, 28, 28))
        arrays[f"{part}_images"] = (noise + 100 * labels[:, None, None]).astype(np.uint8)
        arrays[f"{part}_labels"] = labels[:, None]
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))


def test_a_run_on_medical_images_is_judged_by_the_area(config, make, images):
    outcome = make(config(QUESTION))
    (run,) = outcome.runs.runs
    record = Record.read(run)
    assert record.state == "done"
    for text in ("final(test_auc)", "best(val_auc)", "final(val_balanced_accuracy)"):
        assert 0 <= Measure.parse(text).of(record).number <= 1
    assert Measure.parse("final(test_auc)").higher_is_better
    assert record.provenance[0]["data"]["name"] == "pneumoniamnist"


def test_what_was_not_asked_for_cannot_be_claimed(config):
    text = QUESTION.replace(", balanced_accuracy", "").replace("val_balanced", "test_balanced")
    with pytest.raises(UserError) as raised:
        load_experiment(config(text))
    wanted = "claim: final(test_balanced_accuracy): there is no 'test_balanced_accuracy'; add"
    assert f"{wanted} balanced_accuracy to train.metrics" in str(raised.value)


def test_an_unknown_metric_is_told_with_those_there_are(config):
    with pytest.raises(UserError, match=r"'metrics' must be a list of .*auc, balanced_accuracy"):
        load_experiment(config(QUESTION.replace("[auc,", "[f1,")))

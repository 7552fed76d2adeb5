"""What a trained run says, in Python and in its report."""

import base64
import io
import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image

import normlab
from normlab.data import Shapes
from normlab.errors import UserError
from normlab.interface.reporting import render
from normlab.reports.html import to_html
from normlab.store.files import DamagedError
from normlab.store.layout import OUTCOMES
from normlab.store.record import Record
from tests.shared.small_runs import promotion_as_users_have_it  # noqa: F401

CONFIG = """
data: {name: shapes, train_examples: 200, test_examples: 60, size: 8}
model: {name: mlp, widths: [16]}
optimizer: {name: adam, learning_rate: 0.01}
train: {epochs: 6, batch_size: 20}
sweep: {norm: [batch_norm, layer_norm], seed: 0..1}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "e.yaml").write_text(CONFIG)
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "standard")
    return normlab.run(folder / "e.yaml", out=folder / "runs", jobs=1)


@pytest.fixture(scope="module")
def data():
    return Shapes(train_examples=200, test_examples=60, size=8).load()


def test_its_answers_are_those_that_its_accuracy_counts(runs, data):
    for run in normlab.load(runs.path):
        found = run.outcomes()
        assert found.classes == data.classes and (found.labels == data.test.labels).all()
        right = (found.predicted == found.labels).mean()
        assert right == pytest.approx(run.metrics[-1]["test_accuracy"], abs=1e-6)
        loss = -np.log(found.probability).mean()
        assert loss == pytest.approx(run.metrics[-1]["test_loss"], rel=1e-3)


def test_it_predicts_images_from_its_checkpoint(runs, data):
    run = runs.runs[0]
    found = run.predict(data.test.images)
    np.testing.assert_array_equal(found.labels, run.outcomes().predicted)
    chosen = found.probabilities[np.arange(60), data.test.labels]
    np.testing.assert_allclose(chosen, run.outcomes().probability, atol=2e-5)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
    one = run.predict(data.test.images[3])
    assert one.names == [data.classes[one.labels[0]]] == found.names[3:4] and len(one) == 1
    assert one.names[0] in repr(one)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            np.zeros((2, 9, 9, 3)),
            r"images of shape \(N, 8, 8, 3\) are needed, found \(2, 9, 9, 3\)",
        ),
        (np.zeros((0, 8, 8, 3)), "found"),
        (np.full((2, 8, 8, 3), 0.5), "none above 0.5: multiply by 255"),
    ],
)
def test_images_of_another_kind_are_refused(runs, images, words):
    with pytest.raises(UserError, match=words):
        runs.runs[0].predict(images)


def test_it_draws_its_mistakes_and_names_the_classes(runs, data):
    run = runs.runs[0]
    assert run.confusion().sum() == 60 and len(run.class_accuracies()) == 10
    texts = [text.get_text() for text in run.plot().axes[0].get_yticklabels()]
    assert texts == list(data.classes)
    figure = run.plot("hardest", most=5)
    figure.savefig(io.BytesIO(), format="png")
    assert run.hardest(1)[0].true in figure.axes[0].get_title()
    with pytest.raises(UserError, match="confusion or hardest"):
        run.plot("nonsense")


def test_the_report_shows_them(runs):
    page = to_html(normlab.compare(runs), "normlab report e")
    for words in ("Answers for the test set", "accuracy in each class, the lowest first",
                  "the most frequent mistakes", "the hardest examples, for all runs"):  # fmt: skip
        assert words in page
    assert page.count("of 4 runs are wrong") == 10


def test_a_run_without_them_reads_as_before_and_makes_them_anew(runs):
    run = normlab.load(runs.path).runs[1]
    before, record = run.outcomes(), Record.read(run)
    (run.path / OUTCOMES).unlink()
    assert Record.read(run).metrics == record.metrics and run.state == "done"
    np.testing.assert_array_equal(run.outcomes().predicted, before.predicted)
    assert (run.path / OUTCOMES).exists()


def test_damaged_ones_are_named_with_the_mend(runs):
    run = normlab.load(runs.path).runs[2]
    whole = (run.path / OUTCOMES).read_text()
    table = json.loads(whole)
    for broken in (whole[:50], json.dumps({**table, "labels": table["labels"][1:]}),
                   json.dumps({**table, "classes": ["a"]})):  # fmt: skip
        (run.path / OUTCOMES).write_text(broken)
        with pytest.raises(DamagedError, match="makes it anew"):
            run.outcomes()
    page = to_html(normlab.compare(runs), "normlab report e")
    assert "Not read: " in page and page.count("of 3 runs are wrong") == 10
    (run.path / OUTCOMES).write_text(whole)


@pytest.fixture(scope="module")
def of_pictures(tmp_path_factory):
    """A run of a person's own pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(level - 30, level + 30, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pets" / name / f"{number:02}.png")
    (folder / "own.yaml").write_text(
        CONFIG.replace("{name: shapes, train_examples: 200, test_examples: 60, size: 8}",
                       "{name: folder, path: pets}").replace("0..1", "0..0")
    )  # fmt: skip
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "standard")
    return normlab.run(folder / "own.yaml", out=folder / "runs", jobs=1)


def test_the_hardest_of_ones_own_pictures_are_named_and_shown(of_pictures):
    pets = of_pictures.path.parent.parent / "pets"
    outcomes, hard = of_pictures.runs[0].outcomes(), of_pictures.runs[0].hardest(8)
    assert len(hard) == 8 == len(outcomes.names)
    for one in hard:
        assert one.name == outcomes.names[one.index] and one.name.startswith(f"{one.true}/")
    assert hard[0].name in of_pictures.runs[0].plot("hardest").axes[0].get_title()
    page = render(of_pictures.path, None, "final(test_accuracy)", "html")
    listed = page[page.index('<ul class="hard">') :]
    names = re.findall(r"<code>(\w+/\d\d.png)</code> \(test example \d\)", listed)
    shown = re.findall(r'<img src="data:image/png;base64,([^"]*)"', listed)
    assert len(names) == len(shown) == 8
    for name, picture in zip(names, shown, strict=True):
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        np.testing.assert_array_equal(found, np.asarray(Image.open(pets / name)))


def test_without_their_data_the_hardest_are_named_alone(of_pictures):
    pets = of_pictures.path.parent.parent / "pets"
    pets.rename(pets.with_name("moved"))
    page = render(of_pictures.path, None, "final(test_accuracy)", "html")
    pets.with_name("moved").rename(pets)
    listed = page[page.index('<ul class="hard">') :]
    assert listed.count("(test example ") == 8 and "<img" not in listed


AVERAGED = """
data: {name: shapes, train_examples: 200, test_examples: 60, size: 8}
model: {name: mlp, widths: [16]}
norm: batch_norm
optimizer: {name: sgd, learning_rate: 0.3}
train: {epochs: 3, batch_size: 20, ema: 0.8}
sweep: {train.ema_statistics: [averaged, recalibrated, current]}
"""

SCHEDULE_FREE = AVERAGED.replace("{name: sgd, learning_rate: 0.3}",
                                 "{name: schedule_free_sgd, learning_rate: 0.3}").replace(
    ", ema: 0.8", "").replace("sweep: {train.ema_statistics: [averaged, recalibrated, current]}\n",
                              "")  # fmt: skip


@pytest.mark.parametrize(("config", "count"), [(AVERAGED, 3), (SCHEDULE_FREE, 1)])
def test_a_run_evaluated_with_averages_predicts_with_them(config, count, tmp_path, data):
    (tmp_path / "e.yaml").write_text(config)
    found = normlab.load(normlab.run(tmp_path / "e.yaml", out=tmp_path / "runs", jobs=1).path)
    assert len(found.runs) == count
    answers = []
    for run in found:
        kept, probabilities = run.outcomes(), run.predict(data.test.images).probabilities
        chosen = probabilities[np.arange(60), data.test.labels]
        np.testing.assert_allclose(chosen, kept.probability, atol=2e-5)
        loss = -np.log(chosen).mean()
        assert loss == pytest.approx(run.metrics[-1]["test_loss"], rel=1e-5)
        answers.append(chosen)
    for one, other in itertools.pairwise(answers):  # the policies differ
        assert np.abs(one - other).max() > 1e-4

"""A recipe accepts valid settings and refuses others with a clear error."""

import jax
import numpy as np
import optax
import pytest

from normlab.errors import FieldError, UserError
from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.training.fit import fit
from normlab.training.recipe import Recipe


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulate": 0}, "accumulate"),
        ({"batch_size": 10, "accumulate": 3}, "accumulate"),
        ({"batch_size": 2, "accumulate": 4}, "accumulate"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": float("nan")}, "label_smoothing"),
        ({"clip": 0.0}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"eval_every": 0}, "eval_every"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
    ],
)
def test_a_field_that_cannot_work_is_named_with_its_value(fields, field):
    with pytest.raises(FieldError, match=f"^{field} must be ") as caught:
        Recipe(**fields)
    assert caught.value.field == field
    assert repr(fields[field]) in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"seed": 2**32 - 1},
        {"label_smoothing": 0.999, "clip": 1e-9},
        {"batch_size": 1, "epochs": 1},
        {"batch_size": 12, "accumulate": 12, "eval_every": 1},
    ],
)
def test_the_limits_themselves_are_allowed(fields):
    Recipe(**fields)


@pytest.mark.parametrize(
    ("examples", "size", "steps"), [(70, 16, 4), (64, 16, 4), (63, 16, 3), (16, 16, 1), (5, 1, 5)]
)
def test_an_epoch_has_whole_batches_only(examples, size, steps):
    assert Recipe(batch_size=size).steps_per_epoch(examples) == steps


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers(data, compiled):
    model = MLP(norm=BatchNorm(), classes=3, widths=(8,))
    message = "batch_size=71 is larger than the 70 training examples"
    with pytest.raises(UserError, match=message):
        fit(model, data, optax.sgd(0.1), Recipe(batch_size=71))
    with pytest.raises(UserError, match=message):
        compiled(batch_size=71)


@pytest.mark.parametrize("classes", [1, 2])
def test_a_model_with_too_few_logits_is_refused(data, classes):
    model = MLP(norm=BatchNorm(), classes=classes, widths=(8,))
    with pytest.raises(UserError, match=f"{classes} logits but dataset 'tiny' has 3 classes"):
        fit(model, data, optax.sgd(0.1), Recipe(batch_size=16))


def test_a_batch_of_all_examples_trains(compiled):
    made = compiled(batch_size=70)
    state, loss = made.step(made.init(0), made.order(0, 0), 0)
    assert np.isfinite(loss)
    assert float(state.meter.examples) == 70


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_every_seed_that_is_allowed_gives_weights_of_its_own(program, seed):
    image = (4, 4, 1)
    made = program()
    kernel = made.init(np.uint32(seed), image).params["Dense_0"]["kernel"]
    others = [made.init(np.uint32(other), image) for other in {0, 1, 2**31, 2**32 - 1} - {seed}]
    assert not any(np.array_equal(kernel, o.params["Dense_0"]["kernel"]) for o in others)
    assert jax.tree.all(jax.tree.map(lambda leaf: np.isfinite(leaf).all(), others))

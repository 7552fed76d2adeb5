"""Accumulation changes only the memory of a step if the norm batch divides the microbatch."""

import jax
import numpy as np
import pytest

from normlab.data.augment import Crop, Flip
from normlab.norms import BatchNorm, Identity, LayerNorm
from normlab.training.fit import Loop
from normlab.training.state import Clock

SEED = 4


def end(compiled, norm, accumulate, **settings):
    """Train two epochs with augmentation and momentum; return the rows and the state."""
    augment = (Flip(), Crop(padding=1))
    made = compiled(norm=norm, accumulate=accumulate, augmentations=augment, **settings)
    fitted = Loop(made, SEED).run(made.init(SEED), Clock())
    rows = [{k: v for k, v in row.items() if k != "train_seconds"} for row in fitted.history]
    return rows, fitted.state._asdict()


def difference(one, other):
    """Compute the largest difference of two runs, relative to the largest number."""
    gaps = jax.tree.map(
        lambda a, b: np.abs(np.subtract(a, b, dtype=np.float64)).max() / (1 + np.abs(b).max()),
        one,
        other,
    )
    return max(jax.tree.leaves(gaps))


@pytest.fixture(
    scope="module", params=[BatchNorm(norm_batch=4), LayerNorm()], ids=["batch", "layer"]
)
def whole(request, compiled):
    return request.param, end(compiled, request.param, 1)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_microbatches_that_hold_the_norm_batch_change_nothing(compiled, whole, accumulate):
    norm, expected = whole
    assert difference(end(compiled, norm, accumulate), expected) < 3e-6


def test_without_a_norm_batch_each_microbatch_has_its_own_statistics(compiled):
    """This is another algorithm, the same as a norm batch of the microbatch's size."""
    norm = BatchNorm()
    two = end(compiled, norm, 2)
    assert difference(two, end(compiled, norm, 1)) > 1e-3
    assert difference(two, end(compiled, BatchNorm(norm_batch=8), 1)) < 3e-6


def test_running_statistics_are_those_of_the_whole_batch(compiled):
    """It holds for one step of the first layer, whose input does not depend on the grouping."""
    states = []
    for accumulate in (1, 4):
        made = compiled(norm=BatchNorm(), accumulate=accumulate)
        state, _ = made.step(made.init(SEED), made.order(SEED, 0), SEED)
        states.append(state.norm_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *states)


def test_smoothing_and_identity_accumulate_too(compiled):
    one, four = (
        end(compiled, Identity(), parts, label_smoothing=0.2, epochs=1) for parts in (1, 4)
    )
    assert difference(one, four) < 3e-6

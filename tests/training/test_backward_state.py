"""The step stores the state that a normaliser's backward pass makes."""

import jax
import numpy as np
import optax
import pytest

from normlab.models.plain import MLP
from normlab.models.slots import NORM_STATE
from normlab.norms import PowerNorm
from normlab.training import gradients
from normlab.training.program import Program
from normlab.training.recipe import Recipe

IMAGES = np.random.default_rng(0).standard_normal((8, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(8, dtype=np.int32) % 2


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_moves_the_backward_state_as_the_gradient_says(parts):
    model = MLP(norm=PowerNorm(warm_up=0), classes=2, widths=(8,))
    program = Program(model, optax.sgd(0.1), Recipe(epochs=1, batch_size=8, accumulate=parts))
    state = program.init(0, (4, 4, 1))
    batch = (state.params, state.norm_state, IMAGES, LABELS, jax.random.key(0))
    moved = gradients.of_batch(program.network, program.recipe, *batch).norm_state

    def loss(norm_state, images, labels):
        variables = {"params": state.params, NORM_STATE: norm_state}
        logits, _ = model.apply(variables, images, train=True, mutable=[NORM_STATE])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    left = [
        jax.tree.leaves(jax.grad(loss)(state.norm_state, images, labels))[1]
        for images, labels in zip(np.split(IMAGES, parts), np.split(LABELS, parts), strict=True)
    ]
    ((_, product, steps),) = [jax.tree.leaves(moved)]
    assert np.abs(product).max() > 0 and steps == 1
    np.testing.assert_allclose(product, np.mean(left, axis=0), rtol=1e-5, atol=1e-8)

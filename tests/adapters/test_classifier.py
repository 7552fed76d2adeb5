"""The one trace of a training batch gives what the start of a network gives."""

import jax
import jax.numpy as jnp
import pytest

from normlab.adapters.classifier import Classifier
from normlab.catalogue import KERNELS
from normlab.errors import UserError
from normlab.models import MLP, Vit
from normlab.norms import BatchNorm, LayerNorm


@pytest.mark.parametrize(
    "model",
    [
        MLP(norm=BatchNorm(), classes=3, widths=(4,), kernel=KERNELS.load("spectral_norm")()),
        Vit(norm=LayerNorm(), classes=3, width=4, depth=1, heads=1),
    ],
)
def test_the_shapes_of_a_traced_batch_are_those_of_the_start(model):
    classifier = Classifier(model)
    images = jax.ShapeDtypeStruct((4, 4, 4, 3), jnp.float32)
    start = jax.eval_shape(lambda key: classifier.init(key, images), jax.random.key(0))
    traced = classifier.traced(images)
    assert jax.tree.structure(traced) == jax.tree.structure(start)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(traced)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(start)
    ]


def test_a_traced_batch_raises_what_training_would():
    norm = BatchNorm(norm_batch=3)  # which does not divide the batch
    with pytest.raises(UserError, match="norm_batch"):
        Classifier(MLP(norm=norm, classes=3)).traced(
            jax.ShapeDtypeStruct((4, 2, 2, 1), jnp.float32)
        )

"""The gradient of a private step: every example is clipped, and noise is added to their sum."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.data.augment import Augmentation, apply_all
from normlab.training import gradients
from normlab.training.gradients import Found
from normlab.training.privacy import with_noise
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData, TrainState
from normlab.training.streams import stream_key


def of_step(
    network: Classifier,
    recipe: Recipe,
    augmentations: Sequence[Augmentation],
    state: TrainState,
    data: DeviceData,
    drawn: Array,
    seed: Array,
) -> Found:
    """Compute loss, normaliser state, correct predictions and private gradient of a step.

    Args:
        network: the network.
        recipe: with `private`.
        augmentations: each sees one example at a time.
        state: the state before the step.
        data: the data.
        drawn: `(room,)`, the examples of the step; -1 is none.
        seed: the seed of the run.
    """
    chosen = jnp.maximum(drawn, 0)
    images, labels = data.train.images[chosen].astype(jnp.float32), data.train.labels[chosen]
    keys, noise = (
        jax.random.fold_in(stream_key(seed, stream), state.step) for stream in ("dropout", "noise")
    )

    def of_one(params: Any, image: Array, label: Array, key: Array) -> Any:
        of_augment, of_dropout = jax.random.split(key)
        seen = data.standardised(apply_all(augmentations, of_augment, image[None]))
        given = params, state.norm_state, seen, label[None], of_dropout
        return gradients.loss(network, recipe, *given)

    examples = Examples(images, labels, drawn >= 0, jax.random.split(keys, len(drawn)))
    return of_batch(of_one, recipe, state.params, examples, noise)


class Examples(NamedTuple):
    """Holds the examples of a private step; those that do not count fill up the room.

    Attributes:
        images: `(N, H, W, C)` float32 in 0..255 units.
        labels: `(N,)`.
        counts: `(N,)` booleans.
        keys: `(N,)`, one for all that is drawn for an example.
    """

    images: Array
    labels: Array
    counts: Array
    keys: Array


OfOne = Callable[[Any, Array, Array, Array], tuple[Array, tuple[Any, Array]]]
"""The loss of the parameters and one image, label and key, as `gradients.loss` of a batch."""


def of_batch(of_one: OfOne, recipe: Recipe, params: Any, examples: Examples, noise: Array) -> Found:
    """Compute loss, normaliser state, correct predictions and private gradient of a step.

    The gradient of each example is clipped, noise is added to their sum, and the expected number of
    examples divides it (Abadi et al. 2016, algorithm 1). An example is augmented by itself, so
    nothing but this sum joins two examples. `optax.contrib.differentially_private_aggregate`, whose
    clipping this is, divides by the number at hand and cannot add up microbatches.

    Args:
        of_one: the loss of one example.
        recipe: with `private`; `accumulate` parts are processed one after the other.
        params: the parameters.
        examples: as many as there is room for.
        noise: the key of the noise.
    """
    settings = recipe.private
    assert settings is not None

    def of_part(part: Examples) -> Any:
        one = jax.value_and_grad(of_one, has_aux=True)
        (values, (states, correct)), grads = jax.vmap(one, in_axes=(None, 0, 0, 0))(
            params, part.images, part.labels, part.keys
        )
        # An example that does not count must add nothing, also if its gradient is not finite.
        grads = jax.tree.map(partial(_where, part.counts), grads)
        leaves, tree = jax.tree.flatten(grads)
        clipped: Any = optax.per_example_global_norm_clip(leaves, settings.clip)[0]
        sums = [jnp.where(part.counts, one, 0).sum() for one in (values, correct)]
        return jax.tree.unflatten(tree, clipped), sums, jax.tree.map(lambda leaf: leaf[0], states)

    parts = recipe.accumulate
    pieces = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), examples)
    totals = lax.map(of_part, pieces) if parts > 1 else jax.vmap(of_part)(pieces)
    clipped, (value, correct) = jax.tree.map(lambda leaf: leaf.sum(axis=0), totals[:2])
    total = with_noise(clipped, noise, settings.clip * settings.noise_multiplier)
    gradient = jax.tree.map(lambda leaf: leaf / recipe.batch_size, total)
    count = examples.counts.sum().astype(jnp.float32)
    # A transform of kernels sees no example, so its state is the same after each.
    state = jax.tree.map(lambda leaf: leaf[0], totals[2])
    return Found(value / jnp.maximum(count, 1), state, correct, count, gradient)


def _where(counts: Array, leaf: Array) -> Array:
    return jnp.where(counts.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0)

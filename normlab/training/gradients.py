"""The loss of a batch and its gradient, at once or in microbatches."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.training.losses import cross_entropy
from normlab.training.mesh import Mesh
from normlab.training.recipe import Recipe
from normlab.training.recompute import in_segments

ONE = Mesh()


class Found(NamedTuple):
    """Holds what a batch gives.

    Attributes:
        loss: the mean over the batch.
        norm_state: the normalisers' state after the step.
        correct: the number of correct predictions.
        examples: the number of examples, float32.
        gradient: that of the loss, a tree like the parameters.
    """

    loss: Array
    norm_state: Any
    correct: Array
    examples: Array
    gradient: Any


def loss(
    network: Classifier,
    recipe: Recipe,
    params: Any,
    norm_state: Any,
    images: Array,
    labels: Array,
    key: Array,
) -> tuple[Array, tuple[Any, Array]]:
    """Compute the mean training loss, the normalisers' state after it, and the correct answers."""
    logits, norm_state = network.apply(params, norm_state, images, train=True, key=key)
    losses = cross_entropy(logits, labels, recipe.label_smoothing)
    correct = (logits.argmax(axis=-1) == labels).sum().astype(jnp.float32)
    return losses.mean(), (norm_state, correct)


def of_batch(
    network: Classifier,
    recipe: Recipe,
    params: Any,
    norm_state: Any,
    images: Array,
    labels: Array,
    key: Array,
    mesh: Mesh = ONE,
) -> Found:
    """Compute loss, normaliser state, correct predictions and gradient of a batch.

    With accumulation, equal microbatches are processed one after the other. Each is normalised by
    its own statistics and starts from the same normaliser state. The state after the step pools all
    of them (`core.pool_states`). So it is with the groups of a microbatch, which are processed at
    once where statistics are `local`: one group for each of `mesh.data` devices.
    """
    count = jnp.asarray(len(labels), jnp.float32)
    parts, groups = recipe.microbatches, mesh.data if recipe.statistics == "local" else 1
    gradients = partial(_value_and_grad, network, recipe)
    if groups > 1:
        gradients = partial(_of_groups, network, recipe, mesh)
    if parts == groups == 1:
        (value, (moved, correct)), grads = gradients(params, norm_state, images, labels, key)
        return Found(value, moved, correct, count, grads)

    auxiliary, total, at = [], None, params
    pieces = (jnp.split(images, parts), jnp.split(labels, parts), jax.random.split(key, parts))
    for part in zip(*pieces, strict=True):
        found, grads = gradients(at, norm_state, mesh.cut(part[0]), *part[1:])
        total = grads if total is None else jax.tree.map(jnp.add, total, grads)
        # This dependency is false. Without it the compiler may run the microbatches in
        # parallel, and accumulation would save no memory.
        at, total = lax.optimization_barrier((at, total))
        auxiliary.append(found)
    join = jnp.stack if groups == 1 else jnp.concatenate
    values, (states, correct) = jax.tree.map(lambda *leaves: join(leaves), *auxiliary)
    moved = network.pool(states, params, pieces[0][0])
    grads = jax.tree.map(lambda leaf: leaf / parts, total)
    return Found(values.mean(), moved, correct.sum(), count, grads)


def _value_and_grad(
    network: Classifier, recipe: Recipe, params: Any, norm_state: Any, *batch: Array
) -> Any:
    of = partial(loss, network, recipe)
    if recipe.accumulate > recipe.microbatches:
        of = in_segments(of, recipe.accumulate)
    watched = network.by_gradient(norm_state)
    if not watched:
        return jax.value_and_grad(of, has_aux=True)(params, norm_state, *batch)

    def both(params: Any, watched: Any) -> Any:
        return of(params, {**norm_state, **watched}, *batch)

    found, (grads, left) = jax.value_and_grad(both, argnums=(0, 1), has_aux=True)(params, watched)
    value, (moved, correct) = found
    return (value, (network.with_gradient(moved, left), correct)), grads


def _of_groups(
    network: Classifier,
    recipe: Recipe,
    mesh: Mesh,
    params: Any,
    norm_state: Any,
    images: Array,
    labels: Array,
    key: Array,
) -> Any:
    """Compute what `_value_and_grad` does of each group of a microbatch by itself.

    The groups are an axis of their own, which lies along the devices. Each device has whole groups,
    so it computes as one that knows of no others until the gradients are averaged. All results but
    the gradients have the groups in front.
    """
    groups = mesh.data
    images, labels = (mesh.cut(a.reshape(groups, -1, *a.shape[1:])) for a in (images, labels))
    keys = jax.random.split(key, groups)
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (groups, *leaf.shape)), norm_state)
    watched = network.by_gradient(states)

    def total(params: Any, watched: Any) -> Any:
        each = jax.vmap(partial(loss, network, recipe), in_axes=(None, 0, 0, 0, 0))
        values, found = each(params, {**states, **watched}, images, labels, keys)
        return values.sum(), (values, found)  # a mean would scale what each group sends back

    both = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (_, (values, (moved, correct))), (grads, left) = both(params, watched)
    if watched:
        moved = network.with_gradient(moved, left)
    return (values, (moved, correct)), jax.tree.map(lambda leaf: leaf / groups, grads)

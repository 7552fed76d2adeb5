"""Evaluates with a learned mixture, for each channel, of stored statistics and the batch's: TTN."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from normlab.adapters.channel_statistics import (
    mean_and_variance,
    of_population,
    with_mean_and_variance,
)
from normlab.adapters.classifier import Classifier
from normlab.adapters.linen_places import Place
from normlab.adapters.statistics import Change
from normlab.core import Array, State
from normlab.errors import UserError, require_field, require_whole
from normlab.ops.moments import Moments
from normlab.ops.running import counted
from normlab.policies.contract import Adapted, Source, answer_with, policy, scales_and_biases

Weights = dict[str, Array]
"""The weight of the batch's statistics for each channel `(C,)`, by the layer's path."""


@policy(paper="arXiv:2302.05155")
@dataclass(frozen=True)
class TTN:
    """Mixes stored statistics with the batch's by a learned weight a channel (Lim et al. 2023).

    The weight `a` of the batch is learned after training, from training images; nothing is learned
    at test time. The mean is `a m_t + (1 - a) m_s`, and the variance is
    `a v_t + (1 - a) v_s + a (1 - a) (m_t - m_s)^2`.

    1. The distance of a channel is one minus the cosine between the gradients of the loss for an
       image and for its augmented version, with respect to the channel's scale and bias, averaged
       over images. Distances are scaled to 0..1 over all channels and squared: the prior.
    2. From there the weights minimise the loss on augmented images plus `strength` times the mean
       squared distance from the prior, by Adam.

    This follows the paper; its authors have published no code. The augmentations (flips, changed
    contrast and brightness, grey, blur), the number of passes and the mean in place of a sum of
    squares are this library's choices.

    Attributes:
        strength: the weight of the distance from the prior in the loss.
        learning_rate: that of Adam.
        passes: how often the source's batches are gone through.

    >>> TTN(passes=2)
    TTN(strength=1.0, learning_rate=0.001, passes=2)
    """

    strength: float = 1.0
    learning_rate: float = 1e-3
    passes: int = 1

    def __post_init__(self) -> None:
        for field in ("strength", "learning_rate"):
            value = getattr(self, field)
            require_field(value >= 0, field, value, "a number, 0 or more")
        require_whole("passes", self.passes, 0)

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Learn the weights from the source's batches."""
        if not _places(network, params, norm_state, source.images[0]):
            return Adapted(params, norm_state, norm_state, {})
        keys = jax.random.split(source.key, len(source.images))
        changed = [augmented(*both) for both in zip(keys, source.images, strict=True)]
        both = zip(source.images, changed, source.labels, strict=True)
        cosines = [_cosines(network, params, norm_state, *batch) for batch in both]
        prior = as_prior(jax.tree.map(lambda *each: jnp.stack(each).mean(axis=0), *cosines))

        weights, optimizer = prior, optax.adam(self.learning_rate)
        state = optimizer.init(weights)
        for _ in range(self.passes):
            for images, labels in zip(changed, source.labels, strict=True):
                weights, state = _learn(
                    self, network, params, norm_state, weights, state, prior, images, labels
                )
        return Adapted(params, norm_state, norm_state, weights)

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Answer one batch, `(N, H, W, C)`."""
        change = interpolated(adapted.memory)
        found = answer_with(network, adapted.params, adapted.norm_state, images, change)
        return found[0], adapted._replace(last=found[1])


def interpolated(weights: Weights) -> Change:
    """Return the change that mixes statistics by these weights, as equations 2 and 3 do."""

    def change(place: Place, state: State, moments: Moments) -> State:
        a = weights[str(place)]
        mean_s, variance_s = mean_and_variance(place.normaliser, state)
        mean_t, variance_t = of_population(place.normaliser, moments)
        a = jnp.where(counted({"mean": mean_t, "variance": variance_t}, moments.count), a, 0)
        mean_t, variance_t = (  # a channel of one value has no variance
            jnp.where(a == 0, s, t.astype(s.dtype))
            for s, t in ((mean_s, mean_t), (variance_s, variance_t))
        )
        mean = a * mean_t + (1 - a) * mean_s
        variance = a * variance_t + (1 - a) * variance_s + a * (1 - a) * (mean_t - mean_s) ** 2
        return with_mean_and_variance(place.normaliser, state, mean, variance)

    return change


def as_prior(cosines: Weights) -> Weights:
    """Return the prior from mean cosines: distances, scaled to 0..1 over all channels, squared.

    >>> prior = as_prior({"a": jnp.array([1.0, 0.5]), "b": jnp.array([0.0])})
    >>> prior["a"].tolist(), prior["b"].tolist()
    ([0.0, 0.25], [1.0])
    """
    distances = jax.tree.map(lambda cosine: 1 - cosine, cosines)
    every = jnp.concatenate(jax.tree.leaves(distances))
    low, span = every.min(), every.max() - every.min()
    span = jnp.where(span > 0, span, 1)
    return jax.tree.map(lambda distance: ((distance - low) / span) ** 2, distances)


@jax.jit
def augmented(key: Array, images: Array) -> Array:
    """Flip, blur, grey and relight each of the standardised images, `(N, H, W, C)`, at random."""
    keys = jax.random.split(key, 5)

    def chosen(key: Array, share: float) -> Array:
        return jax.random.bernoulli(key, share, (len(images), 1, 1, 1))

    images = jnp.where(chosen(keys[0], 0.5), images[:, :, ::-1], images)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = images.shape[1:3]
    near = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    images = jnp.where(chosen(keys[1], 0.5), sum(near) / 9, images)
    images = jnp.where(chosen(keys[2], 0.2), images.mean(axis=-1, keepdims=True), images)
    contrast, offset = jax.random.uniform(keys[3], (2, len(images), 1, 1, 1), minval=-1, maxval=1)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return mean + (images - mean) * (1 + 0.5 * contrast) + 0.5 * offset


@partial(jax.jit, static_argnums=0)
def _cosines(
    network: Classifier, params: Any, norm_state: Any, images: Array, changed: Array, labels: Array
) -> Weights:
    """Return the mean cosine between two gradients for each channel, by the layer's path."""
    places = _places(network, params, norm_state, images)
    marked = scales_and_biases(network, params, norm_state, images)
    leaves, tree = jax.tree.flatten(params)
    flags, paths = jax.tree.leaves(marked), _paths(params)
    inside = [
        flag and any(path[: len(place.path)] == place.path for place in places)
        for flag, path in zip(flags, paths, strict=True)
    ]

    def loss(affine: list[Array], image: Array, label: Array) -> Array:
        given = iter(affine)
        own = [next(given) if one else leaf for one, leaf in zip(inside, leaves, strict=True)]
        whole = jax.tree.unflatten(tree, own)
        logits, _ = network.apply(whole, norm_state, image[None], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label[None]).mean()

    affine = [leaf for one, leaf in zip(inside, leaves, strict=True) if one]
    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))
    each = zip(gradients(affine, images, labels), gradients(affine, changed, labels), strict=True)
    owners = [path for one, path in zip(inside, paths, strict=True) if one]
    sums: dict[str, list[Array]] = {}
    for path, (one, other) in zip(owners, each, strict=True):
        found = jnp.stack([one * other, one**2, other**2])
        for place in places:
            if path[: len(place.path)] == place.path:
                sums.setdefault(str(place), []).append(found)
    lacking = [str(place) for place in places if str(place) not in sums]
    if lacking:
        raise UserError(
            f"ttn compares gradients of scales and biases, and {lacking[0]} has none: give the "
            "normaliser use_scale or use_bias"
        )

    def cosine(parts: list[Array]) -> Array:
        dot, square, other = jnp.stack(parts).sum(axis=0)
        lengths = jnp.sqrt(square * other)
        # A dead channel has no gradient for either image, so nothing tells them apart.
        return jnp.where(lengths > 0, dot / jnp.where(lengths > 0, lengths, 1), 1).mean(axis=0)

    return {path: cosine(parts) for path, parts in sums.items()}


@partial(jax.jit, static_argnums=(0, 1))
def _learn(
    ttn: TTN,
    network: Classifier,
    params: Any,
    norm_state: Any,
    weights: Weights,
    state: Any,
    prior: Weights,
    images: Array,
    labels: Array,
) -> tuple[Weights, Any]:
    """Take one step of the weights, which stay between 0 and 1."""

    def loss(weights: Weights) -> Array:
        logits, _ = answer_with(network, params, norm_state, images, interpolated(weights))
        wrong = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        squares = jax.tree.map(lambda one, other: (one - other) ** 2, weights, prior)
        return wrong + ttn.strength * jnp.concatenate(jax.tree.leaves(squares)).mean()

    updates, state = optax.adam(ttn.learning_rate).update(jax.grad(loss)(weights), state)
    moved = optax.apply_updates(weights, updates)
    return jax.tree.map(lambda one: jnp.clip(one, 0, 1), moved), state


def _places(network: Classifier, params: Any, norm_state: Any, images: Array) -> list[Place]:
    """Return the layers that keep statistics of batches."""
    variables = network.variables(params, norm_state)
    places = network.places(params, norm_state, images)
    return [place for place in places if place.state(variables)]


def _paths(params: Any) -> list[tuple[str, ...]]:
    found = jax.tree_util.tree_leaves_with_path(params)
    return [tuple(str(getattr(part, "key", part)) for part in path) for path, _ in found]

"""The recipe of airbench94 (Jordan 2024, arXiv:2404.00498) as pure functions of data and a seed.

It grew out of hlb-CIFAR10 (T. Balsam 2023) and D. Page's series "How to train your ResNet" (2018).
Each constant is from `airbench94.py` of github.com/KellerJordan/cifar10-airbench, in the form that
the later `airbench94_compiled.py` has too; the network is `normlab.models.speednet`. In short:

* a frozen first layer that whitens 2x2 patches, both signs; its bias is learnt for 3 epochs;
* no scales in the normalisers, and biases at 64 times the learning rate;
* an image is mirrored or not at random in the first epoch, and then in turn; and moved by up to
  two pixels;
* label smoothing of 0.2, the losses of a batch added up; Nesterov SGD with a triangular schedule;
  every 5 steps the weights go back to their slow average (a kind of lookahead);
* a test image is seen in six views: as it is, moved by a pixel both ways, and their mirror images.

It differs from the published code in four things: parameters are float32 and computation has
`Speednet.dtype`, where that has float16 for both; GELU is the approximation by tanh; the first
layer's kernel is frozen to the last bit, where the lookahead there rounds it; and a bias in front
of a normaliser that has none of its own is trained as one in the normaliser would be.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from math import ceil
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from normlab.catalogue import NORMS
from normlab.core import Array, Normaliser
from normlab.data.augment import Crop
from normlab.models.slots import NORM_STATE, with_backward_state
from normlab.models.speednet import WHITENING, Speednet, whitening_kernel
from normlab.norms import BatchNorm
from normlab.training.state import DeviceData
from normlab.training.streams import stream_key

FirstLayer = Literal["whitened", "orthonormal"]

# As published. Rates are "per 1024 examples" and for constant gradients, see `optimizer`.
LEARNING_RATE, BIAS_RATE, WEIGHT_DECAY, MOMENTUM = 11.5, 64.0, 0.0153, 0.85
START, PEAK, END = 0.2, 0.23, 0.07  # of the triangle: share of the rate, of the steps, of the rate
LABEL_SMOOTHING, TRANSLATION = 0.2, 2
LOOKAHEAD_EVERY, LOOKAHEAD_DECAY, LOOKAHEAD_POWER = 5, 0.95**5, 3
WHITENED_IMAGES, BIAS_EPOCHS, TEST_BATCH = 5000, 3, 2000


class Carry(NamedTuple):
    """The state between steps. `slow` is the lookahead's pair of params and norm_state."""

    step: Array
    params: Any
    norm_state: Any
    opt_state: Any
    slow: Any


def normaliser(name: str) -> Normaliser:
    """Make a normaliser, without a learnt scale if possible. `batch_norm` is as published.

    They are torch's arguments 0.4 for `momentum` and 1e-12 for `eps`.
    """
    if name == "batch_norm":
        return BatchNorm(momentum=0.6, eps=1e-12, use_scale=False, unbiased_running_variance=True)
    cls = NORMS.load(name)
    return cls(**{field.name: False for field in fields(cls) if field.name == "use_scale"})


def triangle(step: Array | float, steps: int) -> Array:
    """Compute the learning rate at a step (from 0), relative to its peak."""
    corners = np.array([0, max(1, int(PEAK * steps)), steps], np.float32)
    heights = np.array([START, 1, END], np.float32)
    return jnp.interp(jnp.asarray(step, jnp.float32), corners, heights)


def lookahead_decay(done: Array | float, steps: int) -> Array:
    """Compute the decay of the slow weights after a number of steps."""
    return LOOKAHEAD_DECAY * (jnp.asarray(done, jnp.float32) / steps) ** LOOKAHEAD_POWER


def groups(params: Any) -> Any:
    """Assign each parameter its learning rate: of biases, none (the whitening), or the other."""

    def group(path: tuple[Any, ...], _: Array) -> str:
        names = [part.key for part in path]
        if names == [WHITENING, "kernel"]:
            return "frozen"
        return "bias" if names[-1] == "bias" and names[0] != WHITENING else "other"

    return jax.tree_util.tree_map_with_path(group, params)


def optimizer(steps: int, batch: int) -> optax.GradientTransformation:
    """Nesterov SGD on the sum of a batch's losses.

    For a constant gradient it moves `1 + 1 / (1 - momentum)` times as far as plain descent, so the
    rate is divided by that, and by 1024 examples. The decay is made independent of the rate.
    """
    unit = 1024 * (1 + 1 / (1 - MOMENTUM))
    rate, decay = LEARNING_RATE / unit, WEIGHT_DECAY * batch / unit

    def group(rate: float) -> optax.GradientTransformation:
        def at(step: Any) -> Any:
            return rate * triangle(step, steps)

        sgd = optax.sgd(at, MOMENTUM, nesterov=True)
        return optax.chain(optax.add_decayed_weights(decay / rate), sgd)

    rates = {"bias": group(BIAS_RATE * rate), "other": group(rate), "frozen": optax.set_to_zero()}
    return optax.partition(rates, groups)  # pyright: ignore[reportArgumentType]


def smoothed_loss(logits: Array, labels: Array) -> Array:
    """Sum the cross-entropies with smoothed labels over the batch."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, LABEL_SMOOTHING)).sum()


def epoch_of(data: DeviceData, seed: Array, epoch: Array | int) -> tuple[Array, Array]:
    """Mirror, move and shuffle the training images for one epoch; return them with their labels."""
    images, labels = data.train
    mirrored = jax.random.bernoulli(stream_key(seed, "augment"), shape=(len(labels), 1, 1, 1))
    mirrored ^= jnp.asarray(epoch) % 2 == 1
    images = jnp.where(mirrored, images[:, :, ::-1], images)
    images = Crop(TRANSLATION)(jax.random.fold_in(stream_key(seed, "augment"), epoch), images)
    key = jax.random.fold_in(stream_key(seed, "order"), epoch)
    order = jax.random.permutation(key, len(labels))
    return images[order], labels[order]


def six_views(apply: Callable[[Array], Array], images: Array) -> Array:
    """Average the logits of an image (half) and of two shifts by a pixel, and their mirrors."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    up, down = (padded[:, i : i + height, i : i + width] for i in (0, 2))
    views = [view[:, :, ::side] for view in (images, up, down) for side in (1, -1)]
    logits = apply(jnp.concatenate(views)).reshape(len(views), len(images), -1)
    weights = jnp.array([1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8]).reshape(-1, 1, 1)
    return (weights * logits).sum(axis=0)


@dataclass(frozen=True)
class Recipe:
    """A run as pure functions of the data and a seed."""

    model: Speednet
    batch: int
    per_epoch: int
    epochs: float
    first: FirstLayer = "whitened"

    @property
    def steps(self) -> int:
        """Return the number of steps of the whole run."""
        return ceil(self.per_epoch * self.epochs)

    def plan(self) -> list[tuple[int, bool]]:
        """List for each epoch its steps, and whether the bias of the first layer still learns."""
        lefts = range(self.steps, 0, -self.per_epoch)
        return [(min(left, self.per_epoch), i < BIAS_EPOCHS) for i, left in enumerate(lefts)]

    def start(self, data: DeviceData, seed: Array) -> Carry:
        """Make the state before the first step."""
        images = data.standardised(data.train.images[:WHITENED_IMAGES])
        variables = self.model.init(stream_key(seed, "init"), images[:1], train=False)
        params, norm_state = variables["params"], variables.get(NORM_STATE, {})
        if self.first == "whitened":
            kernel = whitening_kernel(images, self.model.patch)
            params = {**params, WHITENING: {**params[WHITENING], "kernel": kernel}}
        moments = optimizer(self.steps, self.batch).init(params)
        return Carry(jnp.zeros((), jnp.int32), params, norm_state, moments, (params, norm_state))

    def step(
        self, carry: Carry, data: DeviceData, images: Array, labels: Array, *, bias_learns: bool
    ) -> Carry:
        """Take one step on the next batch of the epoch's images."""
        at = carry.step % self.per_epoch * self.batch
        images, labels = (lax.dynamic_slice_in_dim(a, at, self.batch) for a in (images, labels))

        def loss(params: Any, norm_state: Any) -> tuple[Array, Any]:
            first = jax.tree.map(lax.stop_gradient, params[WHITENING])
            if bias_learns:
                first["bias"] = params[WHITENING]["bias"]
            logits, moved = self.model.apply(
                {"params": {**params, WHITENING: first}, NORM_STATE: norm_state},
                data.standardised(images), train=True, mutable=[NORM_STATE],
            )  # fmt: skip
            return smoothed_loss(logits, labels), moved.get(NORM_STATE, {})

        gradients = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (grads, left), norm_state = gradients(carry.params, carry.norm_state)
        norm_state = with_backward_state(self.model.norm, norm_state, left)
        sgd = optimizer(self.steps, self.batch)
        updates: Any
        updates, opt_state = sgd.update(grads, carry.opt_state, carry.params)
        if not bias_learns:
            updates = {**updates, WHITENING: jax.tree.map(jnp.zeros_like, updates[WHITENING])}
        fast = optax.apply_updates(carry.params, updates), norm_state

        done = carry.step + 1
        due, pull = done % LOOKAHEAD_EVERY == 0, 1 - lookahead_decay(done, self.steps)
        slow = jax.tree.map(lambda s, f: jnp.where(due, s + pull * (f - s), s), carry.slow, fast)
        params, norm_state = jax.tree.map(partial(jnp.where, due), slow, fast)
        return Carry(done, params, norm_state, opt_state, slow)

    def epoch(
        self, carry: Carry, data: DeviceData, seed: Array, index: Array,
        *, steps: int, bias_learns: bool,
    ) -> Carry:  # fmt: skip
        """Run a whole epoch as one program."""
        shown = epoch_of(data, seed, index)
        step = partial(self.step, bias_learns=bias_learns)
        return lax.fori_loop(0, steps, lambda _, moved: step(moved, data, *shown), carry)

    def correct(self, slow: Any, data: DeviceData, at: Array, *, views: bool) -> Array:
        """Count the test images from `at` on that the slow weights classify correctly."""
        examples = len(data.test.labels)
        index = at + jnp.arange(min(TEST_BATCH, examples))
        images, labels = (a[index % examples] for a in data.test)
        apply = partial(self.model.apply, {"params": slow[0], NORM_STATE: slow[1]}, train=False)
        images = data.standardised(images)
        logits: Any = six_views(apply, images) if views else apply(images)  # type: ignore[arg-type]
        return ((logits.argmax(axis=-1) == labels) & (index < examples)).sum()

"""Small networks that the tests of probes share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from normlab.models.plain import MLP, Convnet
from normlab.models.resnet import Resnet, ResnetV2
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchNorm, GroupNorm, Identity
from normlab.probes.contract import HeldOut, Moment, Subject
from normlab.probes.looking import look

MODELS = {
    "mlp": lambda norm, **more: MLP(norm=norm, classes=3, widths=(8, 8), **more),
    "convnet": lambda norm, **more: Convnet(norm=norm, classes=3, widths=(4, 8), layers=1, **more),
    "resnet": lambda norm, **more: Resnet(norm=norm, classes=3, depth=8, width=4, **more),
    "resnet_v2": lambda norm, **more: ResnetV2(norm=norm, classes=3, depth=8, width=4, **more),
}
NORMS = {"batch_norm": BatchNorm(), "group_norm": GroupNorm(groups=2), "identity": Identity()}


def subject(model, optimizer=None):
    def loss(params, norm_state, images, labels):
        variables = {"params": params, NORM_STATE: norm_state}
        logits, moved = model.apply(variables, images, train=True, mutable=[NORM_STATE])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), moved.get(NORM_STATE, {})

    return Subject(model, loss, optimizer or optax.sgd(0.1, momentum=0.9))


def moment(subject, images=(16, 8, 8, 3), seed=0):
    """Make a moment before the first step, with images of noise."""
    if isinstance(images, tuple):
        images = np.random.default_rng(seed).standard_normal(images).astype(np.float32)
    images = jnp.asarray(images)
    labels = jnp.arange(len(images), dtype=jnp.int32) % 3
    variables = subject.model.init(jax.random.key(seed), images, train=False)
    opt_state = subject.optimizer.init(variables["params"])
    state = variables.get(NORM_STATE, {})
    return Moment(variables["params"], state, opt_state, images, labels, held_out(images.shape[1:]))


def held_out(shape, count=24):
    """Add test images of noise to a moment, if its inputs are images."""
    if len(shape) != 3:
        return None
    pixels = np.random.default_rng(1).integers(0, 256, (count, *shape))
    mean, std = (jnp.full(shape[-1:], value, jnp.float32) for value in (127.5, 74.0))
    labels = jnp.arange(count, dtype=jnp.int32) % 3
    return HeldOut(jnp.asarray(pixels, jnp.uint8), labels, mean, std)


class Linear(nn.Module):
    """Dense layers in a row and nothing else, `x W0 W1 ...`, with simple gradients."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        for width in self.widths:
            x = nn.Dense(width, use_bias=False)(x)
        return x


def half_squares(outputs, targets):
    """Compute the mean over examples of half the squared distance."""
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=-1).mean()


def linear_look(probe, kernels, x, targets, loss=half_squares, **more):
    """Apply a probe to a linear network of given kernels, on given examples."""
    single = [jnp.asarray(value, jnp.float32) for value in (x, targets)]
    params = {f"Dense_{i}": {"kernel": jnp.asarray(w, jnp.float32)} for i, w in enumerate(kernels)}
    model = Linear(tuple(w.shape[1] for w in kernels))
    (found,) = look(model, {"params": params}, *single, [probe], loss=loss, **more).values()
    return found


def with_singular_values(values, rows, seed=0):
    """Make a matrix `(rows, len(values))` with these singular values, float64."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((rows, len(values))))
    right, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return (left * np.asarray(values)) @ right.T

"""The parts of every model: slots for normaliser, activation and kernel transform, and layers."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from normlab.catalogue import NORMS
from normlab.core import Array, HeldTo, KernelTransform, Normaliser, Params, State, pool_states
from normlab.models.convolution import convolve

NORM = "norm"
"""The key of a normaliser's params and state in every slot."""

TRANSFORM = "transform"
"""The key of a kernel transform's params and state in every layer."""

NORM_STATE = "norm_state"
"""The variable collection that holds the state of every normaliser and every kernel transform."""

Dtype = Literal["float32", "bfloat16", "float16"]
"""The dtype of activations; parameters, statistics and logits are always float32."""

ActivationName = Literal["relu", "gelu", "silu", "tanh", "sigmoid", "identity"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "identity": lambda x: x,
}

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Keeps the scale of ReLU activations without a normaliser (He et al. 2015, arXiv:1502.01852)."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that are known without running it.

    Attributes:
        paper: its source.
        held_to: what its equations are held to (`normlab.core.HeldTo`).
    """

    paper: str
    held_to: HeldTo = "paper"


Described = TypeVar("Described", bound=type)


def model(*, paper: str, held_to: HeldTo = "paper") -> Callable[[Described], Described]:
    """Mark a Flax module as an entry of the catalogue.

    Its fields are the schema of a config's `model:`, except for three that the config fills from
    elsewhere: `norm`, a `Normaliser`; `classes`, from the data; and the optional `kernel`, a
    `KernelTransform` or None. The model is called as `model.apply(variables, images, train=...)`
    and returns float32 logits.
    """

    def mark(cls: Described) -> Described:
        cls.facts = ModelFacts(paper, held_to)
        cls.catalogue_kind = "model"
        return cls

    return mark


def is_ours(named: Any) -> bool:
    """Return whether a model or its class is marked by `model`, as those of this library are.

    >>> from normlab.models import MLP
    >>> is_ours(MLP), is_ours(nn.Dense)
    (True, False)
    """
    return getattr(named, "catalogue_kind", None) == "model"


class Norm(nn.Module):
    """A normaliser's slot, with its params in `params` and its state in `norm_state`.

    The state changes only when `train` is True and the collection is mutable, never in `init`.
    """

    normaliser: Normaliser

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalise `x`; the result has its shape and dtype.

        A normaliser that adds noise is given the key of dropout in training.
        """
        params, state = self.normaliser.init(x.shape[-1])
        if params:
            params = self.param(NORM, lambda key: params)
        key: dict[str, Any] = {}
        # `train` comes last, because it may be traced inside of a transformation such as `remat`.
        if takes_key(self.normaliser) and self.has_rng("dropout") and train:
            key = {"rng": self.make_rng("dropout")}
        apply = partial(self.normaliser.apply, train=train, **key)
        if not state:
            return apply(params, state, x)[0]
        variable = self.variable(NORM_STATE, NORM, lambda: state)
        y, moved = apply(params, variable.value, x)
        if train and not self.is_initializing() and self.is_mutable_collection(NORM_STATE):
            variable.value = moved
        return y


def takes_key(normaliser: Normaliser) -> bool:
    """Return whether a normaliser's `apply` takes a key, `rng`, for noise in training.

    >>> from normlab.norms import BatchNorm, NormalityBatchNorm
    >>> takes_key(BatchNorm()), takes_key(NormalityBatchNorm())
    (False, True)
    """
    return "rng" in inspect.signature(normaliser.apply).parameters


class NormAct(nn.Module):
    """A normaliser followed by the activation, unless the normaliser contains one."""

    normaliser: Normaliser
    activation: ActivationName

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute `activation(normaliser(x))`."""
        y = Norm(self.normaliser)(x, train=train)
        return y if self.normaliser.facts.fuses_activation else ACTIVATIONS[self.activation](y)


def no_normaliser() -> Normaliser:
    """Return what stands in the slot of a layer that no normaliser follows: `identity`."""
    return NORMS.load("identity")()


def needs_bias(normaliser: Normaliser, features: int) -> bool:
    """Return whether a layer before this normaliser needs its own bias.

    Every arm of a comparison then has exactly one bias per channel.
    """
    return "bias" not in normaliser.init(features)[0]


class Kernel(nn.Module):
    """A kernel transform's slot, between the learnt kernel and its use in a layer.

    The state changes only when `train` is True and the collection is mutable, never in `init`.
    """

    transform: KernelTransform

    @nn.compact
    def __call__(self, kernel: Array, *, train: bool) -> Array:
        """Transform the kernel; the result has its shape and dtype."""
        key = self.make_rng("params") if self.is_initializing() else jax.random.key(0)
        start = partial(self.transform.init, key, kernel)
        params, state = jax.eval_shape(start)  # only their structure; `init` makes the arrays
        if params:
            params = self.param(TRANSFORM, lambda _: start()[0])
        if not state:
            return self.transform.apply(params, state, kernel, train=train)[0]
        variable = self.variable(NORM_STATE, TRANSFORM, lambda: start()[1])
        used, moved = self.transform.apply(params, variable.value, kernel, train=train)
        if train and not self.is_initializing() and self.is_mutable_collection(NORM_STATE):
            variable.value = moved
        return used


def conv(
    normaliser: Normaliser,
    features: int,
    size: int,
    stride: int,
    dtype: Dtype,
    *,
    transform: KernelTransform | None = None,
    train: bool,
    bias: bool = True,
    padding: int | None = None,
    start: nn.initializers.Initializer = he_normal,
) -> nn.Conv:
    """Make a convolution followed by `normaliser`, padded to keep the size unless `padding` is set.

    The learnt `kernel` is initialised by `start` and passes through `transform`, if there is one,
    each time it is used. `bias=False` is for a convolution whose output is added to that of another
    which may have a bias.
    """
    return nn.Conv(
        features,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding=size // 2 if padding is None else padding,
        use_bias=bias and needs_bias(normaliser, features),
        kernel_init=start,
        dtype=jnp.dtype(dtype),
        promote_dtype=_transformed(transform, train),
        conv_general_dilated=convolve,
    )


def dense(
    normaliser: Normaliser,
    features: int,
    dtype: Dtype,
    *,
    transform: KernelTransform | None = None,
    train: bool,
    start: nn.initializers.Initializer = he_normal,
) -> nn.Dense:
    """Make a linear layer followed by `normaliser`; `start` and `transform` are as in `conv`."""
    return nn.Dense(
        features,
        use_bias=needs_bias(normaliser, features),
        kernel_init=start,
        dtype=jnp.dtype(dtype),
        promote_dtype=_transformed(transform, train),
    )


def _transformed(transform: KernelTransform | None, train: bool) -> Callable[..., Any]:
    """Return the function that a flax layer applies to its input, kernel and bias before use.

    The function transforms the learnt kernel in float32, before the kernel is rounded to the dtype
    of the activations.
    """
    if transform is None:
        return promote_dtype

    def transform_and_promote(x: Array, kernel: Array, bias: Array | None, *, dtype: Any) -> Any:
        return promote_dtype(x, Kernel(transform)(kernel, train=train), bias, dtype=dtype)

    return transform_and_promote


def halve(x: Array) -> Array:
    """Take the maximum of each 2x2 square; an odd last row or column is left out.

    It is computed as the maximum of four strided views, because XLA's gradient of a pooling window
    is slow on CPUs. If a square's largest value occurs twice, both share the gradient.

    >>> halve(jnp.arange(15.0).reshape(1, 3, 5, 1))[0, :, :, 0].tolist()
    [[6.0, 8.0]]
    """
    height, width = (side - side % 2 for side in x.shape[1:3])
    views = [x[:, i:height:2, j:width:2] for i in range(2) for j in range(2)]
    return jnp.maximum(jnp.maximum(views[0], views[1]), jnp.maximum(views[2], views[3]))


def classify(features: Array, classes: int) -> Array:
    """Apply the linear head, in float32 whatever the dtype of the network.

    As is usual, no kernel transform applies to the head: a standardised or bounded kernel would fix
    the scale of the logits and so limit the network's confidence.
    """
    return nn.Dense(classes, dtype=jnp.float32)(features.astype(jnp.float32))


def parameter_role(path: tuple[Any, ...]) -> Literal["weight", "bias", "norm"]:
    """Return a parameter's role from its path in the tree; weight decay depends on the role.

    The parameters of a kernel transform (a gain) have the role of a normaliser's, and the kernel
    remains a weight. If the transform removes the kernel's scale, as weight normalisation and
    standardisation do, decaying the kernel changes no output. It only keeps the kernel from growing
    and so the effective learning rate from falling (van Laarhoven 2017, arXiv:1706.05350).

    >>> from jax.tree_util import DictKey
    >>> parameter_role((DictKey("Norm_0"), DictKey("norm"), DictKey("bias")))
    'norm'
    >>> parameter_role((DictKey("Conv_0"), DictKey("kernel")))
    'weight'
    >>> parameter_role((DictKey("Conv_0"), DictKey("Kernel_0"), DictKey("transform"), DictKey("g")))
    'norm'
    """
    keys = [str(getattr(part, "key", part)) for part in path]
    if NORM in keys or TRANSFORM in keys:
        return NORM
    return "bias" if keys[-1] == "bias" else "weight"


def pool_norm_states(normaliser: Normaliser, states: dict[str, Any]) -> dict[str, Any]:
    """Apply `pool_states` to every slot of a model's `norm_state`; leaves have a leading axis.

    A kernel transform sees no data, so its state is the same after every microbatch, and the first
    one is taken.
    """

    def at(tree: dict[str, Any]) -> State | Params | dict[str, Any]:
        return {key: pooled(key, value) for key, value in tree.items()}

    def pooled(key: str, value: Any) -> Any:
        if key == TRANSFORM:
            return jax.tree.map(lambda leaf: leaf[0], value)
        return pool_states(normaliser, value) if key == NORM else at(value)

    return at(states)


def with_backward_state(
    normaliser: Normaliser, state: dict[str, Any], gradient: dict[str, Any]
) -> dict[str, Any]:
    """Put the state that the backward pass made (`Facts.backward_state`) into `norm_state`.

    `gradient` is the gradient of the loss with respect to the `norm_state` before the step. Kernel
    transforms have no such state.
    """
    moved = normaliser.facts.backward_state

    def at(tree: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        return {key: settled(key, value, found[key]) for key, value in tree.items()}

    def settled(key: str, value: Any, left: Any) -> Any:
        if key == NORM:
            return {name: (left if name in moved else value)[name] for name in value}
        return value if key == TRANSFORM else at(value, left)

    return at(state, gradient)

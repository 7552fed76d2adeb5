"""What every model is made of: the normaliser slot, the activation slot, and the weights' start."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax.numpy as jnp

from normlab.core import Array, Normaliser, Params, State, pool_states

NORM = "norm"
"""The key under which a slot keeps its normaliser's params and state, wherever it sits."""

NORM_STATE = "norm_state"
"""The variable collection that holds every normaliser's state."""

Dtype = Literal["float32", "bfloat16", "float16"]
"""The precision of activations; parameters, statistics and logits are float32 in any case."""

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
"""He et al. 2015 (arXiv:1502.01852): keeps the scale of ReLU activations without a normaliser."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without running it."""

    paper: str


Described = TypeVar("Described", bound=type)


def model(*, paper: str) -> Callable[[Described], Described]:
    """Mark a Flax module as an entry of the catalogue.

    Its fields are the schema of a config's `model:`, but for the slots that the config fills from
    elsewhere: `norm`, a `Normaliser`, and `classes`, from the data. It is called as
    `model.apply(variables, images, train=...)` and returns float32 logits.
    """

    def mark(cls: Described) -> Described:
        cls.facts = ModelFacts(paper)
        cls.catalogue_kind = "model"
        return cls

    return mark


class Norm(nn.Module):
    """A normaliser's place in a network: its params among the params, its state in `norm_state`.

    The state moves only when `train` is True and the collection is mutable, never in `init`.
    """

    normaliser: Normaliser

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """`x` normalised, in its own shape and dtype."""
        params, state = self.normaliser.init(x.shape[-1])
        if params:
            params = self.param(NORM, lambda key: params)
        if not state:
            return self.normaliser.apply(params, state, x, train=train)[0]
        variable = self.variable(NORM_STATE, NORM, lambda: state)
        y, moved = self.normaliser.apply(params, variable.value, x, train=train)
        if train and not self.is_initializing() and self.is_mutable_collection(NORM_STATE):
            variable.value = moved
        return y


class NormAct(nn.Module):
    """A normaliser and then the activation, unless the normaliser contains one."""

    normaliser: Normaliser
    activation: ActivationName

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """`activation(normaliser(x))`."""
        y = Norm(self.normaliser)(x, train=train)
        return y if self.normaliser.facts.fuses_activation else ACTIVATIONS[self.activation](y)


def needs_bias(normaliser: Normaliser, features: int) -> bool:
    """Whether a layer before this normaliser must bring a bias of its own.

    So every arm of a comparison has one bias a channel, and none has two.
    """
    return "bias" not in normaliser.init(features)[0]


def conv(
    normaliser: Normaliser,
    features: int,
    kernel: int,
    stride: int,
    dtype: Dtype,
    *,
    bias: bool = True,
) -> nn.Conv:
    """A convolution that `normaliser` follows: padded to keep the size, He-normal.

    With `bias=False` it has none in any case: its output is added to that of one which may.
    """
    return nn.Conv(
        features,
        kernel_size=(kernel, kernel),
        strides=(stride, stride),
        padding=kernel // 2,
        use_bias=bias and needs_bias(normaliser, features),
        kernel_init=he_normal,
        dtype=jnp.dtype(dtype),
    )


def classify(features: Array, classes: int) -> Array:
    """The linear head, in float32 whatever the precision of the network."""
    return nn.Dense(classes, dtype=jnp.float32)(features.astype(jnp.float32))


def parameter_role(path: tuple[Any, ...]) -> Literal["weight", "bias", "norm"]:
    """What a parameter is for, from its path in the tree: weight decay treats the three apart.

    >>> from jax.tree_util import DictKey
    >>> parameter_role((DictKey("Norm_0"), DictKey("norm"), DictKey("bias")))
    'norm'
    >>> parameter_role((DictKey("Conv_0"), DictKey("kernel")))
    'weight'
    """
    keys = [str(getattr(part, "key", part)) for part in path]
    if NORM in keys:
        return NORM
    return "bias" if keys[-1] == "bias" else "weight"


def pool_norm_states(normaliser: Normaliser, states: dict[str, Any]) -> dict[str, Any]:
    """`pool_states` at every slot of a model's `norm_state`; leaves have a leading axis."""

    def at(tree: dict[str, Any]) -> State | Params | dict[str, Any]:
        return {
            key: pool_states(normaliser, value) if key == NORM else at(value)
            for key, value in tree.items()
        }

    return at(states)


def with_backward_state(
    normaliser: Normaliser, state: dict[str, Any], gradient: dict[str, Any]
) -> dict[str, Any]:
    """A model's `norm_state` with what the backward pass left (`Facts.backward_state`).

    `gradient` is that of the loss with respect to the `norm_state` before the step.
    """
    moved = normaliser.facts.backward_state

    def at(tree: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        return {
            key: {name: (found[key] if name in moved else value)[name] for name in value}
            if key == NORM
            else at(value, found[key])
            for key, value in tree.items()
        }

    return at(state, gradient)

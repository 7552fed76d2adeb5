"""What stands around any optax optimiser: clips of the gradient, weight decay by role."""

import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from normlab.errors import UserError
from normlab.models.slots import parameter_role
from normlab.training.recipe import Recipe

Role = Literal["weight", "bias", "norm"]


def as_told(
    optimizer: optax.GradientTransformation, recipe: Recipe
) -> optax.GradientTransformation:
    """The optimiser with what a recipe says of gradients and updates."""
    optimizer = with_scalar_rate(optimizer, recipe.scalar_rate)
    return adaptively_clipped(clipped(optimizer, recipe.clip), recipe.adaptive_clip)


def clipped(
    optimizer: optax.GradientTransformation, clip: float | None
) -> optax.GradientTransformation:
    """The optimiser behind a clip of the gradient's global norm, or as it is for None."""
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)


def adaptively_clipped(
    optimizer: optax.GradientTransformation, share: float | None
) -> optax.GradientTransformation:
    """The optimiser behind `optax.adaptive_grad_clip` of all but the head, or as it is for None.

    A unit is what makes one output: a kernel's last axis tells them apart, and a vector or a
    single number is one unit. (Optax takes a kernel with three axes for one of attention, whose
    inputs are the first axis alone, as those of a convolution in one dimension are not. No model
    here has a kernel with three axes.)
    """
    if share is None:
        return optimizer
    return optax.chain(optax.masked(optax.adaptive_grad_clip(share), outside_head), optimizer)


def with_scalar_rate(
    optimizer: optax.GradientTransformation, rate: float | None
) -> optax.GradientTransformation:
    """The optimiser with its updates of single numbers times `rate`, or as it is for None.

    So it is their learning rate over that of the others, whatever the optimiser.
    """
    if rate is None:
        return optimizer
    return optax.chain(optimizer, optax.masked(optax.scale(rate), is_scalar))


def outside_head(params: dict[str, Any]) -> Any:
    """Which parameters are not the head's: False for the last `Dense_` of the outermost level.

    Raises:
        UserError: there is none, so it cannot be told which layer is the head.

    >>> outside_head({"Dense_0": {"kernel": 1.0}, "Dense_1": {"kernel": 2.0, "bias": 3.0}})
    {'Dense_0': {'kernel': True}, 'Dense_1': {'bias': False, 'kernel': False}}
    """
    numbers = [int(name[6:]) for name in params if re.fullmatch(r"Dense_\d+", name)]
    if not numbers:
        raise UserError(
            "adaptive_clip leaves out the head, and this model has none: make it by "
            "normlab.models.slots.classify, or use clip"
        )
    head = f"Dense_{max(numbers)}"
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key != head, params)


def is_scalar(params: Any) -> Any:
    """Which parameters are single numbers, as a tree of booleans."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) == 0, params)


def decayed(
    optimizer: optax.GradientTransformation, rate: float, roles: tuple[Role, ...]
) -> optax.GradientTransformation:
    """The optimiser behind `rate * parameter` added to the gradient (L2, as in torch's SGD).

    Args:
        optimizer: any optax transformation.
        rate: the weight of the penalty; 0 leaves the optimiser as it is.
        roles: which parameters it touches.
    """
    if rate == 0:
        return optimizer
    return optax.chain(optax.add_decayed_weights(rate, mask=RoleMask(roles)), optimizer)


class RoleMask:
    """Which parameters have one of `roles`: a tree of booleans, as optax's `mask` arguments take.

    >>> RoleMask(("weight",))({"Dense_0": {"kernel": 1.0, "bias": 2.0}})
    {'Dense_0': {'bias': False, 'kernel': True}}
    """

    def __init__(self, roles: tuple[Role, ...]):
        self.roles = roles

    def __call__(self, params: Any) -> Any:
        """True where a parameter's role is one of them."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: parameter_role(path) in self.roles, params
        )

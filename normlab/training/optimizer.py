"""Wraps optax optimisers: gradient clipping, learning rates of scalars, weight decay by role."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from normlab.models.slots import parameter_role
from normlab.training.averaging import with_average
from normlab.training.heads import outside_head
from normlab.training.projection import projected
from normlab.training.recipe import Recipe

Role = Literal["weight", "bias", "norm"]

Path = tuple[str, ...]


def with_recipe(
    optimizer: optax.GradientTransformation, recipe: Recipe
) -> optax.GradientTransformation:
    """Add a recipe's clipping, rate of scalars, projection and average of weights."""
    optimizer = with_scalar_rate(optimizer, recipe.scalar_rate)
    optimizer = adaptively_clipped(clipped(optimizer, recipe.clip), recipe.adaptive_clip)
    return with_average(projected(optimizer, recipe.project), recipe.ema)


def clipped(
    optimizer: optax.GradientTransformation, clip: float | None
) -> optax.GradientTransformation:
    """Clip the gradient's global norm before the optimiser, or return it unchanged for None."""
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)


def adaptively_clipped(
    optimizer: optax.GradientTransformation, share: float | None
) -> optax.GradientTransformation:
    """Apply `optax.adaptive_grad_clip` to all parameters but the head, before the optimiser.

    A `share` of None returns the optimiser unchanged. A unit makes one output: the last axis of a
    kernel separates units, and a vector or a scalar is one unit. Optax assumes that a kernel with
    three axes belongs to attention, where only the first axis is the input; this would be wrong for
    one-dimensional convolutions, but no model here has a kernel with three axes.
    """
    if share is None:
        return optimizer
    return optax.chain(optax.masked(optax.adaptive_grad_clip(share), outside_head), optimizer)


def with_scalar_rate(
    optimizer: optax.GradientTransformation, rate: float | None
) -> optax.GradientTransformation:
    """Multiply the updates of scalar parameters by `rate`, or return the optimiser unchanged.

    `rate` is their learning rate relative to that of the others, whatever the optimiser.
    """
    if rate is None:
        return optimizer
    return optax.chain(optimizer, optax.masked(optax.scale(rate), is_scalar))


def is_scalar(params: Any) -> Any:
    """Return a tree of booleans: True for parameters that are scalars."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) == 0, params)


def decayed(
    optimizer: optax.GradientTransformation,
    rate: float,
    roles: tuple[Role, ...],
    norm_paths: frozenset[Path] | None = None,
) -> optax.GradientTransformation:
    """Add `rate * parameter` to the gradient before the optimiser (L2, as in torch's SGD).

    Args:
        optimizer: any optax transformation.
        rate: the weight of the penalty; 0 returns the optimiser unchanged.
        roles: the roles of the parameters that decay.
        norm_paths: as for `RoleMask`.
    """
    if rate == 0:
        return optimizer
    mask = RoleMask(roles, norm_paths)
    return optax.chain(optax.add_decayed_weights(rate, mask=mask), optimizer)


class RoleMask:
    """Marks the parameters that have one of `roles`, for optax's `mask` arguments.

    Args:
        roles: of "weight", "bias" and "norm".
        norm_paths: where the normalisation layers of a person's own model are. None for a model of
            this library, whose slots have names.

    >>> RoleMask(("weight",))({"Dense_0": {"kernel": 1.0, "bias": 2.0}})
    {'Dense_0': {'bias': False, 'kernel': True}}
    """

    def __init__(self, roles: tuple[Role, ...], norm_paths: frozenset[Path] | None = None):
        self.roles, self.norm_paths = roles, norm_paths

    def __call__(self, params: Any) -> Any:
        """Return a tree of booleans: True for parameters with one of the roles."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self._role(path, leaf) in self.roles, params
        )

    def _role(self, path: tuple[Any, ...], leaf: Any) -> Role:
        if self.norm_paths is None:
            return parameter_role(path)
        keys = tuple(str(getattr(part, "key", part)) for part in path)
        if any(keys[:length] in self.norm_paths for length in range(len(keys))):
            return "norm"
        if keys[-1] == "bias":
            return "bias"
        # The factors of a layer that is not known to normalise, such as a layer scale.
        return "weight" if jnp.ndim(leaf) > 1 else "norm"

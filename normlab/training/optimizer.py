"""What stands before any optax optimiser: a clip of the gradient, and weight decay by role."""

from typing import Any, Literal

import jax
import optax

from normlab.models.slots import parameter_role

Role = Literal["weight", "bias", "norm"]


def clipped(
    optimizer: optax.GradientTransformation, clip: float | None
) -> optax.GradientTransformation:
    """The optimiser behind a clip of the gradient's global norm, or as it is for None."""
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)


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

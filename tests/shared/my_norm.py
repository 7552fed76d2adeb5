"""A normaliser of a user's own, for the tests: named in configs as `my_norm:Tempered`.

It is written as a user would, with nothing of normlab but the contract.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from normlab.core import Facts, normaliser


@normaliser(paper="none", uses_batch=True, affine_in_evaluation=True, keeps_moments=True)
@dataclass(frozen=True)
class Tempered:
    """A batch norm with a twist: it divides by a power of the variance, not by the root."""

    facts: ClassVar[Facts]  # for a type checker; @normaliser fills it in

    power: float = 0.25
    momentum: float = 0.5
    eps: float = 1e-3
    still: bool = False

    def init(self, features):
        params = {"scale": jnp.ones(features), "bias": jnp.zeros(features)}
        return params, {"mean": jnp.zeros(features), "variance": jnp.ones(features)}

    def apply(self, params, state, x, *, train, mask=None):
        mean, variance = state["mean"], state["variance"]
        if train and not self.still:
            axes, m = tuple(range(x.ndim - 1)), self.momentum
            batch = x.mean(axis=axes), x.var(axis=axes)
            mean, variance = batch
            moved = m * state["mean"] + (1 - m) * mean, m * state["variance"] + (1 - m) * variance
            state = {"mean": moved[0], "variance": moved[1]}
        shape = (1,) * (x.ndim - 1) + (-1,)
        factor = params["scale"] * (variance + self.eps) ** -self.power
        return (x - mean.reshape(shape)) * factor.reshape(shape) + params["bias"].reshape(
            shape
        ), state

    def frozen(self):
        return Tempered(self.power, self.momentum, self.eps, still=True)

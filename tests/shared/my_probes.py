"""Probes of a user's own, for the tests: named in configs as `my_probes:Sizes`."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from normlab.errors import UserError, require_field
from normlab.probes.contract import PerLayer, probe


@probe(paper="none")
@dataclass(frozen=True)
class Sizes:
    """The norm of every parameter array, by place; the loss; and what is not finite."""

    power: float = 2.0

    def __post_init__(self):
        require_field(self.power > 0, "power", self.power, "positive")

    def measure(self, subject, moment):
        leaves = jax.tree.leaves(moment.params)
        sizes = jnp.stack([jnp.sum(jnp.abs(leaf) ** self.power) for leaf in leaves])
        loss, _ = subject.loss(moment.params, moment.norm_state, moment.images, moment.labels)
        names = tuple(f"array_{i}" for i in range(len(leaves)))
        return {
            "size": PerLayer(sizes, names),
            "loss": loss,
            "line": sizes[:3],
            "odd": jnp.stack([jnp.nan * loss, jnp.inf * loss, loss]),
            "sum": moment.images.sum(),
        }


@probe(paper="none")
@dataclass(frozen=True)
class Refuses:
    """Cannot look into anything."""

    def measure(self, subject, moment):
        raise UserError("there is no attention in it")

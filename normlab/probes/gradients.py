"""How large the gradient is, layer by layer."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.probes.contract import Moment, Readings, Subject, probe
from normlab.probes.formulas import norm, spread
from normlab.probes.layers import kernels, layers, loss_and_gradient, per_layer


@probe(paper="Glorot & Bengio 2010")
@dataclass(frozen=True)
class Gradients:
    """The gradient of the training loss with respect to each layer's kernel.

    norm: its Euclidean norm. rms: the root of its mean square, which a large layer does not
    raise. total: the norm of the whole gradient, of all parameters. spread: by how many powers of
    ten rms differs between layers (`formulas.spread`).

    >>> Gradients()
    Gradients()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Each quantity for each layer, and two numbers of the whole network."""
        paths = layers(subject, moment)
        _, gradient = loss_and_gradient(subject, moment)
        found = kernels(gradient, paths)
        sizes = per_layer(paths, [norm(g) for g in found])
        rms = per_layer(paths, [norm(g) / jnp.sqrt(float(g.size)) for g in found])
        return {"norm": sizes, "rms": rms, "total": norm(gradient), "spread": spread(rms.values)}

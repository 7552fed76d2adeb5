"""Measures the size of the gradient, layer by layer."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.probes.contract import Moment, Readings, Subject, probe
from normlab.probes.formulas import norm, spread
from normlab.probes.layers import kernels, layers, loss_and_gradient, per_layer


@probe(paper="Glorot & Bengio 2010", leading=("rms", "spread", "total"))
@dataclass(frozen=True)
class Gradients:
    """Measures the gradient of the training loss with respect to each layer's kernel.

    - norm: the Euclidean norm.
    - rms: the root mean square, which does not depend on the size of the layer.
    - total: the norm of the gradient of all parameters.
    - spread: the spread of rms over layers in powers of ten (`formulas.spread`).

    >>> Gradients()
    Gradients()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure each quantity for each layer, and two numbers for the whole network."""
        paths = layers(subject, moment)
        _, gradient = loss_and_gradient(subject, moment)
        found = kernels(gradient, paths)
        sizes = per_layer(paths, [norm(g) for g in found])
        rms = per_layer(paths, [norm(g) / jnp.sqrt(float(g.size)) for g in found])
        return {"norm": sizes, "rms": rms, "total": norm(gradient), "spread": spread(rms.values)}

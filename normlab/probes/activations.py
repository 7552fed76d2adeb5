"""What passes through the layers: how large, how skewed, how much dead, in how many directions."""

from dataclasses import dataclass
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.errors import require_field
from normlab.models.slots import ActivationName
from normlab.probes.contract import Moment, PerLayer, Readings, Subject, probe
from normlab.probes.formulas import ratio
from normlab.probes.layers import Place, seen

FLAT = 0.05
"""A value is saturated where the activation's slope is below this share of its greatest."""


def skewness(values: Array) -> Array:
    """The third standardised moment of all values; zero for a constant.

    >>> f"{skewness(jnp.array([0.0, 0.0, 0.0, 1.0])):.3f}"
    '1.155'
    """
    centred = values - values.mean()
    return ratio(jnp.mean(centred**3), jnp.mean(centred**2) ** 1.5)


def not_finite(values: Array) -> Array:
    """How many channels have a mean or a variance over the batch that is not finite, float32.

    A normaliser leaves the running statistics of such a channel alone.

    Args:
        values: `(N, ..., C)`.

    >>> not_finite(jnp.array([[0.0, jnp.nan, 1e30], [0.0, 1.0, -1e30]])).item()
    2.0
    """
    rows = values.reshape(-1, values.shape[-1])
    finite = jnp.isfinite(rows.mean(axis=0)) & jnp.isfinite(rows.var(axis=0))
    return jnp.sum((~finite).astype(jnp.float32))


def dead_fraction(values: Array) -> Array:
    """The share of the channels that are the same number wherever one looks.

    A unit that never fires gives zero for every example and position, and learns nothing from any
    of them; so does one whose value never changes.

    Args:
        values: `(N, ..., C)`.

    >>> dead_fraction(jnp.array([[0.0, 1.0], [0.0, 2.0]])).item()
    0.5
    """
    rows = values.reshape(-1, values.shape[-1])
    return jnp.mean((rows.max(axis=0) == rows.min(axis=0)).astype(jnp.float32))


def saturated_fraction(values: Array, activation: ActivationName) -> Array | None:
    """The share of an activation's values at which its slope is below 5% of the greatest.

    Of ReLU that is the share of zeros; of a sigmoid or tanh the values near either end. None
    for GELU and SiLU, whose slope cannot be told from their value.

    >>> saturated_fraction(jnp.array([0.001, 0.5, 0.999, 0.9]), "sigmoid").item()
    0.5
    """
    if activation == "relu":
        flat = values <= 0
    elif activation == "sigmoid":
        flat = 4 * values * (1 - values) < FLAT
    elif activation == "tanh":
        flat = 1 - values**2 < FLAT
    elif activation == "identity":
        flat = jnp.zeros(values.shape, bool)
    else:
        return None
    return jnp.mean(jnp.where(jnp.isnan(values), jnp.nan, flat.astype(jnp.float32)))


def effective_rank(matrix: Array) -> Array:
    """How many directions a matrix has: the exponential of the entropy of its singular values.

    `exp(-sum p log p)` with `p` the singular values over their sum (Roy & Vetterli 2007). `k` equal
    singular values make it `k`; one alone makes it 1. The mean of the rows is not taken away, so
    where all examples have become alike it is near 1.

    Args:
        matrix: `(N, D)`, float32 or wider; one row for each example.

    >>> effective_rank(jnp.diag(jnp.array([2.0, 2.0, 2.0, 0.0]))).round(4).item()
    3.0
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    scale = jnp.abs(tall).max()
    # Of the triangle alone: it has the same singular values, and is small where D is large.
    values = jnp.linalg.svd(jnp.linalg.qr(ratio(tall, scale), mode="r"), compute_uv=False)
    share = ratio(values, values.sum())
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1))))


@probe(paper="Glorot & Bengio 2010; effective rank: Roy & Vetterli 2007")
@dataclass(frozen=True, kw_only=True)
class Activations:
    """What the activations of each layer are like, over a batch in training mode.

    mean, variance, skew: of all elements. not_finite: how many channels have a mean or a variance
    that is not (with `at` norms, those whose running statistics a step leaves alone). dead: the
    share of channels that never change.
    effective_rank: across examples, each with all its positions as one row. saturated: the share
    of values at which the activation function is flat, where that can be told (`at` inputs, of
    ReLU, sigmoid, tanh or none).

    Attributes:
        at: "inputs" looks at what enters each layer but the first: the activations, after any
            pooling or addition; "outputs" at what each layer gives: the pre-activations; "norms"
            at what each normaliser gives.
        activation: the function that the inputs have been through, for what is saturated; null
            for the model's own.

    >>> import jax, optax
    >>> from normlab.models.plain import MLP
    >>> from normlab.norms import BatchNorm
    >>> from normlab.probes import look
    >>> model, x = MLP(norm=BatchNorm(), classes=2, widths=(4, 4)), jnp.eye(8).reshape(8, 2, 2, 2)
    >>> variables = model.init(jax.random.key(0), x, train=False)
    >>> found = look(model, variables, x, jnp.arange(8) % 2, [Activations()], train=True)
    >>> found["activations"]["dead"]
    PerLayer(values=Array([0., 0.], dtype=float32), layers=('Dense_1', 'Dense_2'))
    """

    at: Place = "inputs"
    activation: ActivationName | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("at", self.at, get_args(Place)),
            ("activation", self.activation, (*get_args(ActivationName), None)),
        ):
            require_field(value in allowed, name, value, f"one of {', '.join(map(str, allowed))}")

    @partial(jax.jit, static_argnums=(0, 1))
    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Each quantity for each layer."""
        values = seen(subject, moment, self.at)
        activation = self.activation or getattr(subject.model, "activation", None)

        def each(figure) -> PerLayer:  # type: ignore[no-untyped-def]
            return PerLayer(jnp.stack([figure(x) for x in values.values()]), tuple(values))

        found: Readings = {
            "mean": each(jnp.mean),
            "variance": each(jnp.var),
            "skew": each(skewness),
            "not_finite": each(not_finite),
            "dead": each(dead_fraction),
            "effective_rank": each(lambda x: effective_rank(x.reshape(x.shape[0], -1))),
        }
        if self.at == "inputs" and activation in ("relu", "sigmoid", "tanh", "identity"):
            found["saturated"] = each(lambda x: saturated_fraction(x, activation))
        return found

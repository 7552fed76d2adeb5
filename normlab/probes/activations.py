"""Measures the activations of each layer: size, skewness, dead and saturated units, rank."""

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
from normlab.probes.layers import Place, activations

FLAT = 0.05
"""A value is saturated if the activation's slope is below this share of its maximum."""


def skewness(values: Array) -> Array:
    """Compute the third standardised moment of all values; zero for a constant.

    >>> f"{skewness(jnp.array([0.0, 0.0, 0.0, 1.0])):.3f}"
    '1.155'
    """
    centred = values - values.mean()
    return ratio(jnp.mean(centred**3), jnp.mean(centred**2) ** 1.5)


def not_finite(values: Array) -> Array:
    """Count the channels whose mean or variance over the batch is not finite, float32.

    A normaliser does not update the running statistics of such a channel.

    Args:
        values: `(N, ..., C)`.

    >>> not_finite(jnp.array([[0.0, jnp.nan, 1e30], [0.0, 1.0, -1e30]])).item()
    2.0
    """
    rows = values.reshape(-1, values.shape[-1])
    finite = jnp.isfinite(rows.mean(axis=0)) & jnp.isfinite(rows.var(axis=0))
    return jnp.sum((~finite).astype(jnp.float32))


def dead_fraction(values: Array) -> Array:
    """Compute the share of channels that have one value for all examples and positions.

    A unit that never fires gives zero everywhere and learns nothing; neither does a unit with any
    other constant value.

    Args:
        values: `(N, ..., C)`.

    >>> dead_fraction(jnp.array([[0.0, 1.0], [0.0, 2.0]])).item()
    0.5
    """
    rows = values.reshape(-1, values.shape[-1])
    return jnp.mean((rows.max(axis=0) == rows.min(axis=0)).astype(jnp.float32))


def saturated_fraction(values: Array, activation: ActivationName) -> Array | None:
    """Compute the share of activations whose slope is below 5% of the maximum.

    For ReLU these are the zeros, for a sigmoid or tanh the values near either end. The result is
    None for GELU and SiLU, whose slope cannot be derived from the value.

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
    """Compute the effective rank: the exponential of the entropy of a matrix's singular values.

    It is `exp(-sum p log p)`, where `p` are the singular values divided by their sum (Roy &
    Vetterli 2007). `k` equal singular values give `k`. The mean of the rows is not subtracted, so
    the rank is near 1 if all examples are alike.

    Args:
        matrix: `(N, D)`, float32 or wider; one row for each example.

    >>> effective_rank(jnp.diag(jnp.array([2.0, 2.0, 2.0, 0.0]))).round(4).item()
    3.0
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    scale = jnp.abs(tall).max()
    # The triangular factor has the same singular values and is small if D is large.
    values = jnp.linalg.svd(jnp.linalg.qr(ratio(tall, scale), mode="r"), compute_uv=False)
    share = ratio(values, values.sum())
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1))))


@probe(
    paper="Glorot & Bengio 2010; effective rank: Roy & Vetterli 2007",
    leading=("variance", "effective_rank", "dead"),
)
@dataclass(frozen=True, kw_only=True)
class Activations:
    """Measures the activations of each layer, over a batch in training mode.

    - mean, variance, skew: moments over all elements.
    - not_finite: number of channels whose mean or variance is not finite. With `at` norms, a step
      does not update the running statistics of these channels.
    - dead: the share of channels that have one value everywhere.
    - effective_rank: the rank across examples, with all positions of an example as one row.
    - saturated: the share of values where the activation function is flat, if known (`at` inputs,
      for ReLU, sigmoid, tanh or none).

    Attributes:
        at: "inputs" measures the input of each layer but the first: the activations, after any
            pooling or addition. "outputs" measures the output of each layer: the pre-activations.
            "norms" measures the output of each normaliser.
        activation: the function that made the inputs, for `saturated`; null for the model's own.

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
        """Measure each quantity for each layer."""
        values = activations(subject, moment, self.at)
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

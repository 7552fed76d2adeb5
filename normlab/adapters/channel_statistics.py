"""What a normaliser's state keeps of its input, where that is each channel's mean and variance."""

import jax.numpy as jnp

from normlab.adapters.linen_places import Place
from normlab.core import Array, Normaliser, State
from normlab.errors import UserError
from normlab.norms.averaged import AveragedBatchNorm
from normlab.norms.batch import BatchNorm
from normlab.norms.batch_group import BatchGroupNorm
from normlab.norms.batch_instance import BatchInstanceNorm
from normlab.norms.batch_renorm import BatchRenorm
from normlab.norms.domains import ConditionalBatchNorm
from normlab.norms.evo import EvoNormB0
from normlab.norms.example_weighted import ExampleWeightedBatchNorm
from normlab.norms.frozen import FrozenBatchNorm
from normlab.norms.population import PopulationNorm
from normlab.ops.moments import Moments, pool

RENEWABLE = (
    AveragedBatchNorm,
    BatchGroupNorm,
    BatchInstanceNorm,
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    EvoNormB0,
    ExampleWeightedBatchNorm,
    FrozenBatchNorm,
    PopulationNorm,
)
"""The normalisers whose state follows from the moments of each channel of their input."""


def require_renewable(place: Place) -> None:
    """Raise `UserError` for a normaliser whose statistics are not each channel's moments."""
    if not isinstance(place.normaliser, RENEWABLE):
        names = ", ".join(cls.__name__ for cls in RENEWABLE)
        raise UserError(
            f"{place}: the statistics that {type(place.normaliser).__name__} keeps are not the "
            f"moments of its channels; those that can be taken anew: {names}"
        )


def of_batch(normaliser: Normaliser, moments: Moments) -> tuple[Array, Array]:
    """Mean and biased variance, `(C,)`: what training normalises by."""
    moments = _shared(normaliser, moments)
    return moments.mean, moments.variance


def of_population(normaliser: Normaliser, moments: Moments) -> tuple[Array, Array]:
    """Mean and variance, `(C,)`, as the state keeps it: biased, unless the normaliser says not."""
    moments = _shared(normaliser, moments)
    unbiased = getattr(normaliser, "unbiased_running_variance", False)
    return moments.mean, moments.unbiased_variance if unbiased else moments.variance


def mean_and_variance(normaliser: Normaliser, state: State) -> tuple[Array, Array]:
    """Those of a state."""
    if isinstance(normaliser, BatchRenorm):
        return state["mean"], state["deviation"] ** 2 - normaliser.eps
    return state["mean"], state["variance"]


def with_mean_and_variance(
    normaliser: Normaliser, state: State, mean: Array, variance: Array
) -> State:
    """A state with others; whatever else it holds stays."""
    new = {"mean": mean, "variance": variance}
    if isinstance(normaliser, BatchRenorm):
        new = {"mean": mean, "deviation": jnp.sqrt(variance + normaliser.eps)}
    return {**state, **{name: leaf.astype(state[name].dtype) for name, leaf in new.items()}}


def _shared(normaliser: Normaliser, moments: Moments) -> Moments:
    """The moments of the channels that share them, at each of these."""
    if not isinstance(normaliser, BatchGroupNorm):
        return moments
    shape = moments.mean.shape
    grouped = (leaf.reshape(*shape[:-1], normaliser.groups, -1) for leaf in moments)
    size = shape[-1] // normaliser.groups
    pooled = pool(Moments(*grouped), axis=-1)
    return Moments(*(jnp.repeat(leaf[..., 0], size, axis=-1) for leaf in pooled))

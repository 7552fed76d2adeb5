"""Defines the contract of a probe.

A probe measures one moment of training: the parameters, the state, and a batch. The batch is the
same at every moment, so that only the network changes. A probe is pure and changes nothing; a step
that it takes is hypothetical.

`measure` compiles what it needs, once for each subject, so it is called without `jit`. It also
works within `jit`, but then its repetitions (a gradient for each layer, a product for each Lanczos
vector) become a loop inside one program, where XLA's convolutions are much slower on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import flax.linen as nn
import jax
import optax

from normlab.core import Array

Loss = Callable[[Any, Any, Array, Array], tuple[Array, Any]]
"""(params, norm_state, images, labels) -> (mean training loss, the norm_state after it)."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The network, loss and optimiser of a run, which do not change.

    A subject equals only itself, and compiled functions are cached by subject. Keep one for a run.

    Attributes:
        model: any linen module that is called as `module(images, train=...)`.
        loss: the loss of a batch in training mode; not jitted, because probes intercept its trace.
        optimizer: any optax transformation.
    """

    model: nn.Module
    loss: Loss
    optimizer: optax.GradientTransformation


class HeldOut(NamedTuple):
    """The test split, for probes that evaluate images outside the training set.

    Attributes:
        images: `(N, H, W, C)` uint8, as in the dataset.
        labels: `(N,)` integers.
        mean: `(C,)`, the mean of the training images in 0..255 units, subtracted before the model.
        std: `(C,)`, their standard deviation, the divisor.
    """

    images: Array
    labels: Array
    mean: Array
    std: Array


class Moment(NamedTuple):
    """The state of training before a step, and the batch that probes use.

    Attributes:
        params: the model's parameters.
        norm_state: the normalisers' state.
        opt_state: the optimiser's state.
        images: `(N, H, W, C)`, standardised.
        labels: `(N,)` integers.
        held_out: the test split, if there is one; it is the same at every moment.
    """

    params: Any
    norm_state: Any
    opt_state: Any
    images: Array
    labels: Array
    held_out: HeldOut | None = None


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["layers"])
@dataclass(frozen=True)
class PerLayer:
    """One number or one vector for each layer.

    Attributes:
        values: `(L, ...)`, in the order of the layers.
        layers: the layers' paths in the network, such as `Conv_0`, in the order of the calls.
    """

    values: Array
    layers: tuple[str, ...]


Readings = dict[str, Array | PerLayer]
"""The results of a probe: for each quantity a number or a vector for the whole network, or one for
each layer."""


@dataclass(frozen=True)
class ProbeFacts:
    """Facts about a probe that are known without running it.

    Attributes:
        paper: the paper that it comes from.
        leading: the quantities that a report shows first; empty for the first three.
    """

    paper: str
    leading: tuple[str, ...] = ()


class Probe(Protocol):
    """A frozen, hashable dataclass whose fields are the probe's settings."""

    facts: ClassVar[ProbeFacts]

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure the quantities at this moment; the module's docstring explains `jit`."""
        ...


Described = TypeVar("Described", bound=type)


def probe(*, paper: str, leading: tuple[str, ...] = ()) -> Callable[[Described], Described]:
    """Mark a frozen dataclass as a probe of the catalogue.

    Args:
        paper: the paper that the probe comes from.
        leading: the quantities that a report shows first, written out as texts, because reports
            read them without importing the probe. By default these are the first three.
    """

    def mark(cls: Described) -> Described:
        cls.facts = ProbeFacts(paper, leading)
        cls.catalogue_kind = "probe"
        return cls

    return mark

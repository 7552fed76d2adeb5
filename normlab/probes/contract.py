"""The contract that every probe keeps.

A probe looks at one moment of training: the parameters, the state, and a batch that stays the same
from moment to moment, so that what changes is the network. It is pure and changes nothing; where it
asks what a step would do, it takes that step on paper.

`measure` compiles what it needs by itself, once for each subject: call it as it is. Within `jit` it
works too, but what it repeats (a gradient for each layer, a product for each Lanczos vector) is
then a loop inside one program, where XLA's convolutions on a CPU are some thirty times slower.
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
    """What stays the same over a run: the network, its loss and its optimiser.

    Each is itself and equal to no other, so keep one for a run: what is compiled hangs on it.

    Attributes:
        model: any linen module that is called as `module(images, train=...)`.
        loss: of a batch, in training mode; not jitted, for probes look into it as it is traced.
        optimizer: any optax transformation.
    """

    model: nn.Module
    loss: Loss
    optimizer: optax.GradientTransformation


class HeldOut(NamedTuple):
    """The test split, for probes that ask what a network does on images it was not trained on.

    Attributes:
        images: `(N, H, W, C)` uint8, as the dataset has them.
        labels: `(N,)` whole numbers.
        mean: `(C,)` of the training images, in 0..255 units; subtracted before the model.
        std: `(C,)` likewise; divided by.
    """

    images: Array
    labels: Array
    mean: Array
    std: Array


class Moment(NamedTuple):
    """What changes from step to step, as it is before a step; and the batch to look at it with.

    Attributes:
        params: the model's parameters.
        norm_state: the normalisers' state.
        opt_state: the optimiser's.
        images: `(N, H, W, C)`, standardised as the model takes them.
        labels: `(N,)` whole numbers.
        held_out: the test split, where there is one; it too stays the same.
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
    """One number, or one vector, for each layer.

    Attributes:
        values: `(L, ...)`, in the order of the layers.
        layers: their paths in the network, as `Conv_0`, in the order in which they are called.
    """

    values: Array
    layers: tuple[str, ...]


Readings = dict[str, Array | PerLayer]
"""What a probe found: the name of each quantity, and its value (a number or a vector of the whole
network, or one for each layer)."""


@dataclass(frozen=True)
class ProbeFacts:
    """What is known of a probe without running it."""

    paper: str


class Probe(Protocol):
    """A frozen, hashable dataclass whose fields are the probe's settings."""

    facts: ClassVar[ProbeFacts]

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """What there is to see at this moment; see the module on `jit`."""
        ...


Described = TypeVar("Described", bound=type)


def probe(*, paper: str) -> Callable[[Described], Described]:
    """Mark a frozen dataclass as a probe of the catalogue."""

    def mark(cls: Described) -> Described:
        cls.facts = ProbeFacts(paper)
        cls.catalogue_kind = "probe"
        return cls

    return mark

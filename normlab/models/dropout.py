"""Applies dropout at one of two places of a network: within its blocks or before its head."""

from typing import Literal, Protocol, get_args

import flax.linen as nn

from normlab.core import Array
from normlab.errors import require_field

DropoutPlace = Literal["head", "blocks"]
"""Where units are dropped. `head`: the input of the linear head, after the last normaliser.
`blocks`: the input of convolutions and dense layers between normalisers (each model says which), so
that a later normaliser sees different variances in training and in evaluation."""


class Drops(Protocol):
    """A model with the fields `dropout` and `dropout_at`."""

    @property
    def dropout(self) -> float:
        """The share of units that is dropped, 0 for none."""
        ...

    @property
    def dropout_at(self) -> DropoutPlace:
        """Where units are dropped."""
        ...


def drop(model: Drops, x: Array, at: DropoutPlace, train: bool) -> Array:
    """Drop units of `x` in training, if `at` is the place where `model` drops them.

    Each number is set to 0 with probability `dropout`, independently of the others, and otherwise
    divided by `1 - dropout` (Srivastava et al. 2014). The mean stays the same, so evaluation needs
    no correction. The variance does not (Li et al. 2019, arXiv:1801.05134).

    Args:
        model: the model; its fields say how many units are dropped and where.
        x: an array of any shape and floating dtype; the result has both.
        at: the place of this call.
        train: whether this is training; False returns `x` as it is. True requires that the model
            is called with `rngs={"dropout": key}`.
    """
    if not model.dropout or model.dropout_at != at:
        return x
    return nn.Dropout(model.dropout, deterministic=not train)(x)


def require_dropout(model: Drops, blocks: bool = True) -> None:
    """Raise `FieldError` unless the model's fields are valid; `blocks` says whether it has any."""
    inside = 0 <= model.dropout < 1
    require_field(inside, "dropout", model.dropout, "at least 0 and below 1")
    places = get_args(DropoutPlace) if blocks or not model.dropout else ("head",)
    allowed = "head or blocks" if len(places) > 1 else "head, as there is only one layer before it"
    require_field(model.dropout_at in places, "dropout_at", model.dropout_at, allowed)

"""Dropout in a network's two kinds of place: within its blocks, and before its head."""

from typing import Literal, Protocol, get_args

import flax.linen as nn

from normlab.core import Array
from normlab.errors import require_field

Place = Literal["head", "blocks"]
"""Where units are dropped. `head`: what the linear head takes in, after the last normaliser.
`blocks`: what convolutions and dense layers between normalisers take in (each model says which), so
that a normaliser behind sees another variance in training than in evaluation."""


class Drops(Protocol):
    """A model with dropout: its fields `dropout`, the share, and `dropout_at`, the place."""

    @property
    def dropout(self) -> float:
        """The share of units that is dropped, 0 for none."""
        ...

    @property
    def dropout_at(self) -> Place:
        """Where."""
        ...


def drop(model: Drops, x: Array, at: Place, train: bool) -> Array:
    """`x` with its units dropped in training, if this is the place where `model` drops them.

    Srivastava et al. 2014: each number is 0 with probability `dropout`, independently of the
    others, and else divided by `1 - dropout`, so that its mean stays the same and evaluation needs
    no correction. Its variance does not stay the same (Li et al. 2019, arXiv:1801.05134).

    Args:
        model: whose fields say how many and where.
        x: any shape and float dtype, which it keeps.
        at: the place of this call.
        train: False leaves `x` as it is. With True the model is called with
            `rngs={"dropout": key}`.
    """
    if not model.dropout or model.dropout_at != at:
        return x
    return nn.Dropout(model.dropout, deterministic=not train)(x)


def require_dropout(model: Drops, blocks: bool = True) -> None:
    """Raise `FieldError` unless the model's fields make sense; `blocks`: there is such a place."""
    inside = 0 <= model.dropout < 1
    require_field(inside, "dropout", model.dropout, "at least 0 and below 1")
    places = get_args(Place) if blocks or not model.dropout else ("head",)
    allowed = "head or blocks" if len(places) > 1 else "head, as there is only one layer before it"
    require_field(model.dropout_at in places, "dropout_at", model.dropout_at, allowed)

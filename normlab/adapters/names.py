"""What Flax calls the leaves of a state, and which normalisers a layer can hold."""

from normlab.core import Normaliser
from normlab.errors import UserError

FLAX_NAMES = {"variance": "var"}
"""Of state leaves, where Flax has its own name; all other leaves keep theirs."""


def flax_name(leaf: str) -> str:
    """The name of a leaf of a normaliser's state in Flax's `batch_stats`."""
    return FLAX_NAMES.get(leaf, leaf)


def require_forward_state(normaliser: Normaliser) -> None:
    """Raise `UserError` for a normaliser whose backward pass has a state, which no layer carries."""
    if normaliser.facts.backward_state:
        raise UserError(
            f"{type(normaliser).__name__} keeps a state in its backward pass, which comes out of "
            "the gradient with respect to its state; a Flax layer has no place for it. Train it "
            "with normlab.fit, or call its apply yourself"
        )

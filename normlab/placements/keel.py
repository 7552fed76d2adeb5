"""Keel: post-norm with a highway, and a normaliser before each branch."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.errors import require_field
from normlab.placements.contract import Map, TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2601.19895", held_to="reported")
@dataclass(frozen=True)
class Keel(TokenPlacement):
    """Keel: `norm(alpha x + f(norm(x)))` with a large alpha (Chen & Wei 2026).

    Post-norm loses a share of the gradient at every normaliser. With alpha equal to the number of
    branches, `2 depth`, all of them together lose a share that does not grow with the depth. No
    normaliser follows the last block. The paper needs no initialisation of its own. The equation is
    from others' accounts of the paper, which agree on it.

    Attributes:
        alpha: the weight of the shortcut; null is the number of branches.
    """

    alpha: float | None = None

    def __post_init__(self) -> None:
        valid = self.alpha is None or self.alpha > 0
        require_field(valid, "alpha", self.alpha, "above 0, or null")

    def block(self, x: Array, at: TokenBlock) -> Array:
        alpha = 2 * at.depth if self.alpha is None else self.alpha
        x = at.norm(alpha * x + at.attention(at.norm(x)))
        return at.norm(alpha * x + at.mlp(at.norm(x)))

    def end(self, x: Array, norm: Map) -> Array:
        return x

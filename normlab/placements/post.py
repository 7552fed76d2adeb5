"""Post-norm: the sum of branch and shortcut is normalised, as in the first transformer."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import Map, TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:1706.03762", aka=("Post-LN",))
@dataclass(frozen=True)
class Post(TokenPlacement):
    """Post-norm: `norm(x + f(x))`, without a last normaliser (Vaswani et al. 2017).

    Tokens have variance 1 after every branch. At the start of training a branch adds as much as
    there was, so along the shortcuts the gradient loses a factor of `sqrt(2)` at every normaliser
    on its way back.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        x = at.norm(x + at.attention(x))
        return at.norm(x + at.mlp(x))

    def end(self, x: Array, norm: Map) -> Array:
        return x

"""Pre-norm: the branch sees a normalised copy, and the shortcut is the identity."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2002.04745; arXiv:2010.11929 for images", aka=("Pre-LN",))
@dataclass(frozen=True)
class Pre(TokenPlacement):
    """Pre-norm: `x + f(norm(x))`, and a last normaliser. The transformer's own placement.

    At the start of training every branch adds about the same variance, so that of the tokens grows
    in proportion to the depth (Xiong et al. 2020, lemma 2).
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        x = x + at.attention(at.norm(x))
        return x + at.mlp(at.norm(x))

"""NormFormer: pre-norm with three more operations in each block."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2110.09456", held_to="code")
@dataclass(frozen=True)
class NormFormer(TokenPlacement):
    """NormFormer: pre-norm, with each head scaled, and two more normalisers in each block.

    They stand after the attention and before the last layer of the MLP (Shleifer et al. 2021,
    section 2). A head's output is multiplied by a learnt number before the last layer of the
    attention, as the paper's equation says; the authors' code does so after that layer. The scale
    of the residual, which they use in small models only, is left out.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        x = x + at.norm(at.attention(at.norm(x), heads=at.by_head))
        return x + at.mlp(at.norm(x), inner=at.norm)

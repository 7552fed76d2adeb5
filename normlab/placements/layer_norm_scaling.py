"""LayerNorm scaling: pre-norm whose normalisers shrink with the depth."""

import math
from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2502.05795", aka=("LNS", "the curse of depth"), held_to="code")
@dataclass(frozen=True)
class LayerNormScaling(TokenPlacement):
    """LayerNorm scaling: `x + f(norm(x) / sqrt(l))` in block l from 1 (Sun et al. 2025).

    A branch that is linear in its input then adds a variance of `1 / l`, so that of the tokens
    grows as the logarithm of the depth instead of in proportion to it. A last normaliser, which is
    not scaled, stands before the head.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        scale = 1 / math.sqrt(at.number)
        x = x + at.attention(scale * at.norm(x))
        return x + at.mlp(scale * at.norm(x))

"""Sub-LN: a second normaliser within each branch, before its last linear layer."""

import math
from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import Gains, TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2210.06423", aka=("Magneto", "Foundation Transformer"), held_to="code")
@dataclass(frozen=True)
class SubLN(TokenPlacement):
    """Sub-LN: pre-norm, with a normaliser before the last linear layer of each branch.

    The source is Magneto (Wang et al. 2022). The kernels of values, output and MLP start larger by
    `sqrt(log(2 depth))`, its factor for an encoder without a decoder. With it, the change of the
    output by a step does not grow with the depth.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        x = x + at.attention(at.norm(x), inner=at.norm)
        return x + at.mlp(at.norm(x), inner=at.norm)

    def gains(self, depth: int) -> Gains:
        gamma = math.sqrt(math.log(2 * depth))
        return Gains(value=gamma, output=gamma, up=gamma, down=gamma)

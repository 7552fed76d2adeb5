"""SpanNorm: post-norm in which one shortcut spans the whole block."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import Gains, Map, TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2601.22580", held_to="reported")
@dataclass(frozen=True)
class SpanNorm(TokenPlacement):
    """SpanNorm: `y = norm(x + attention(x))`, then `norm(x + mlp(y))` (Wang et al. 2026).

    The shortcut of the second sum is the input of the block, so the gradient passes one normaliser
    a block and not two. In the first block the attention sees a normalised input, and the shortcut
    does not. No normaliser follows the last block.

    This is from others' accounts of equations 5 to 8. The paper's scaling of the initial kernels
    could not be read. Here the last layers of both branches start smaller by `depth^(-1/2)`, with
    which the factors of the gradient have a bounded product.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        seen = at.norm(x) if at.number == 1 else x
        y = at.norm(x + at.attention(seen))
        return at.norm(x + at.mlp(y))

    def end(self, x: Array, norm: Map) -> Array:
        return x

    def gains(self, depth: int) -> Gains:
        return Gains(output=depth**-0.5, down=depth**-0.5)

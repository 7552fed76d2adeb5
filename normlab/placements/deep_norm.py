"""DeepNorm: post-norm with a heavier shortcut and lighter initial kernels."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import Gains, Map, TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2203.00555", aka=("DeepNet",), held_to="code")
@dataclass(frozen=True)
class DeepNorm(TokenPlacement):
    """DeepNorm: `norm(alpha x + f(x))`, and initial kernels times `beta` (Wang et al. 2022).

    With `depth` blocks and no decoder, `alpha` is `(2 depth)^(1/4)` and `beta` is
    `(8 depth)^(-1/4)`. The kernels of values, output and MLP are scaled, those of queries and keys
    are not. The change of the output by a step then has a bound that does not depend on the depth.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        alpha = (2 * at.depth) ** 0.25
        x = at.norm(alpha * x + at.attention(x))
        return at.norm(alpha * x + at.mlp(x))

    def end(self, x: Array, norm: Map) -> Array:
        return x

    def gains(self, depth: int) -> Gains:
        beta = (8 * depth) ** -0.25
        return Gains(value=beta, output=beta, up=beta, down=beta)

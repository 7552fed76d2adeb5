"""HybridNorm: normalised queries, keys and values in the attention, post-norm in the MLP."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.errors import require_field
from normlab.placements.contract import TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2503.04598, algorithm 1", held_to="reported")
@dataclass(frozen=True)
class HybridNorm(TokenPlacement):
    """HybridNorm: `y = x + attention(x)` with normalised q, k and v, then `norm(y) + mlp(norm(y))`.

    The source is Zhuo et al. 2025. Queries, keys and values are normalised in each head, by
    normalisers that the heads share; the model's `qk_norm` must be `none` beside it. A last
    normaliser stands before the head.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        y = at.norm(x + at.attention(x, qkv=at.norm))
        return y + at.mlp(y)

    def require(self, depth: int, qk_norm: str) -> None:
        allowed = "none, because this placement normalises queries and keys itself"
        require_field(qk_norm == "none", "qk_norm", qk_norm, allowed)


@placement(paper="arXiv:2503.04598", aka=("HybridNorm*",), held_to="reported")
@dataclass(frozen=True)
class HybridNormStar(HybridNorm):
    """HybridNorm*: HybridNorm, with a first block of pre-norm whose q, k and v are normalised too.

    It is the variant that the authors train at length; their README gives it as a setting of block
    0 alone.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        if at.number > 1:
            return super().block(x, at)
        x = x + at.attention(at.norm(x), qkv=at.norm)
        return x + at.mlp(at.norm(x))

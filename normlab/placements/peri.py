"""Peri-LN and sandwich norm: normalisers on both sides of every branch."""

from dataclasses import dataclass

from normlab.core import Array
from normlab.placements.contract import Map, TokenBlock, TokenPlacement, placement


@placement(paper="arXiv:2105.13290", aka=("Sandwich-LN", "double norm"))
@dataclass(frozen=True)
class Sandwich(TokenPlacement):
    """Sandwich norm: `x + norm(f(norm(x)))`, and a last normaliser (Ding et al. 2021, CogView).

    What a branch adds has variance 1 whatever its kernels are, as long as the normaliser's scale
    does not move.
    """

    def block(self, x: Array, at: TokenBlock) -> Array:
        x = x + at.norm(at.attention(at.norm(x)))
        return x + at.norm(at.mlp(at.norm(x)))


@placement(paper="arXiv:2502.02732", aka=("Peri-LN",))
@dataclass(frozen=True)
class Peri(Sandwich):
    """Peri-LN: sandwich norm, with a normaliser of the embedding too (Kim et al. 2025).

    The variance of the tokens grows linearly with the depth and stays within a bound that does not
    depend on the kernels. With pre-norm, kernels that grow in training let it grow exponentially.
    The paper calls the normaliser of the embedding optional; without it this is `sandwich`.
    """

    def start(self, x: Array, norm: Map) -> Array:
        return norm(x)
